#include "text/jinja/expr_parser.h"

#include <algorithm>

namespace moebius::text::jinja {

ExprPtr ExprParser::New(ExprKind kind, int line) const {
  auto expr = std::make_unique<Expr>();
  expr->kind = kind;
  expr->line = line;
  return expr;
}

Result<ExprPtr> ExprParser::Done(ExprPtr expr) const {
  int highest = 0;
  const auto look = [&highest](const ExprPtr& part) {
    if (part) highest = std::max(highest, part->height);
  };
  for (const ExprPtr& operand : expr->operands) look(operand);
  for (const ExprPtr& argument : expr->arguments.positional) look(argument);
  for (const auto& [name, argument] : expr->arguments.keywords) look(argument);
  look(expr->arguments.rest);
  look(expr->arguments.rest_keywords);
  expr->height = highest + 1;
  if (expr->height > kMaxExprHeight) {
    return tokens_.Fail(ErrorCode::kUnsupported, "an expression of more than {} levels",
                        kMaxExprHeight);
  }
  return expr;
}

Result<ExprPtr> ExprParser::Binary(ExprKind kind, BinaryOp op, ExprPtr left, ExprPtr right,
                                   int line) const {
  ExprPtr expr = New(kind, line);
  expr->op = op;
  expr->operands.push_back(std::move(left));
  expr->operands.push_back(std::move(right));
  return Done(std::move(expr));
}

Result<ExprPtr> ExprParser::Expression(bool with_condition) {
  const DepthGuard guard(context_);
  MOEBIUS_TRY(guard.Check());
  return with_condition ? Condition() : Or();
}

Result<ExprPtr> ExprParser::Condition() {
  const int line = tokens_.line();
  const size_t mark = context_.unknowns.size();
  MOEBIUS_ASSIGN(ExprPtr expr, Or());
  while (tokens_.SkipName("if")) {
    ExprPtr conditional = New(ExprKind::kConditional, line);
    MOEBIUS_ASSIGN(ExprPtr test, Or());
    ExprPtr otherwise;
    if (tokens_.SkipName("else")) {
      const DepthGuard guard(context_);
      MOEBIUS_TRY(guard.Check());
      MOEBIUS_ASSIGN(otherwise, Condition());
    }
    conditional->operands.push_back(std::move(expr));
    conditional->operands.push_back(std::move(test));
    conditional->operands.push_back(std::move(otherwise));
    MOEBIUS_ASSIGN(expr, Done(std::move(conditional)));
    context_.ForgiveUnknowns(mark);
  }
  return expr;
}

Result<ExprPtr> ExprParser::Or() {
  const int line = tokens_.line();
  MOEBIUS_ASSIGN(ExprPtr left, And());
  while (tokens_.SkipName("or")) {
    MOEBIUS_ASSIGN(ExprPtr right, And());
    MOEBIUS_ASSIGN(left,
                   Binary(ExprKind::kOr, BinaryOp::kAdd, std::move(left), std::move(right), line));
  }
  return left;
}

Result<ExprPtr> ExprParser::And() {
  const int line = tokens_.line();
  MOEBIUS_ASSIGN(ExprPtr left, Not());
  while (tokens_.SkipName("and")) {
    MOEBIUS_ASSIGN(ExprPtr right, Not());
    MOEBIUS_ASSIGN(left,
                   Binary(ExprKind::kAnd, BinaryOp::kAdd, std::move(left), std::move(right), line));
  }
  return left;
}

Result<ExprPtr> ExprParser::Not() {
  if (!tokens_.IsName("not")) return Comparison();
  const DepthGuard guard(context_);
  MOEBIUS_TRY(guard.Check());
  ExprPtr expr = New(ExprKind::kNot, tokens_.Take().line);
  MOEBIUS_ASSIGN(ExprPtr operand, Not());
  expr->operands.push_back(std::move(operand));
  return Done(std::move(expr));
}

Result<ExprPtr> ExprParser::Comparison() {
  constexpr std::pair<std::string_view, CompareOp> kOperators[] = {
      {"==", CompareOp::kEq}, {"!=", CompareOp::kNe}, {"<", CompareOp::kLt},
      {"<=", CompareOp::kLe}, {">", CompareOp::kGt},  {">=", CompareOp::kGe}};
  ExprPtr chain = New(ExprKind::kCompare, tokens_.line());
  MOEBIUS_ASSIGN(ExprPtr operand, Sum());
  while (true) {
    const auto* found =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [&](const auto& entry) { return tokens_.IsOperator(entry.first); });
    CompareOp op = CompareOp::kIn;
    if (found != std::end(kOperators)) {
      tokens_.Take();
      op = found->second;
    } else if (tokens_.IsName("not") && TokenStream::IsName(tokens_.next(), "in")) {
      tokens_.Take();
      tokens_.Take();
      op = CompareOp::kNotIn;
    } else if (!tokens_.SkipName("in")) {
      break;
    }
    chain->operands.push_back(std::move(operand));
    chain->comparisons.push_back(op);
    MOEBIUS_ASSIGN(operand, Sum());
  }
  if (chain->comparisons.empty()) return operand;
  chain->operands.push_back(std::move(operand));
  return Done(std::move(chain));
}

Result<ExprPtr> ExprParser::Sum() {
  const int line = tokens_.line();
  MOEBIUS_ASSIGN(ExprPtr left, Concat());
  while (tokens_.IsOperator("+") || tokens_.IsOperator("-")) {
    const BinaryOp op = tokens_.Take().text == "+" ? BinaryOp::kAdd : BinaryOp::kSub;
    MOEBIUS_ASSIGN(ExprPtr right, Concat());
    MOEBIUS_ASSIGN(left, Binary(ExprKind::kBinary, op, std::move(left), std::move(right), line));
  }
  return left;
}

Result<ExprPtr> ExprParser::Concat() {
  ExprPtr concat = New(ExprKind::kConcat, tokens_.line());
  MOEBIUS_ASSIGN(ExprPtr operand, Product());
  if (!tokens_.IsOperator("~")) return operand;
  concat->operands.push_back(std::move(operand));
  while (tokens_.SkipOperator("~")) {
    MOEBIUS_ASSIGN(operand, Product());
    concat->operands.push_back(std::move(operand));
  }
  return Done(std::move(concat));
}

Result<ExprPtr> ExprParser::Product() {
  constexpr std::pair<std::string_view, BinaryOp> kOperators[] = {{"*", BinaryOp::kMul},
                                                                  {"/", BinaryOp::kDiv},
                                                                  {"//", BinaryOp::kFloorDiv},
                                                                  {"%", BinaryOp::kMod}};
  const int line = tokens_.line();
  MOEBIUS_ASSIGN(ExprPtr left, Power());
  while (true) {
    const auto* found =
        std::find_if(std::begin(kOperators), std::end(kOperators),
                     [&](const auto& entry) { return tokens_.IsOperator(entry.first); });
    if (found == std::end(kOperators)) return left;
    tokens_.Take();
    MOEBIUS_ASSIGN(ExprPtr right, Power());
    MOEBIUS_ASSIGN(
        left, Binary(ExprKind::kBinary, found->second, std::move(left), std::move(right), line));
  }
}

Result<ExprPtr> ExprParser::Power() {
  const int line = tokens_.line();
  MOEBIUS_ASSIGN(ExprPtr left, Unary(true));
  // Unlike in Python, from left to right.
  while (tokens_.SkipOperator("**")) {
    MOEBIUS_ASSIGN(ExprPtr right, Unary(true));
    MOEBIUS_ASSIGN(
        left, Binary(ExprKind::kBinary, BinaryOp::kPow, std::move(left), std::move(right), line));
  }
  return left;
}

Result<ExprPtr> ExprParser::Unary(bool with_filters) {
  ExprPtr expr;
  if (tokens_.IsOperator("-") || tokens_.IsOperator("+")) {
    const DepthGuard guard(context_);
    MOEBIUS_TRY(guard.Check());
    const Token& sign = tokens_.Take();
    ExprPtr signed_expr = New(sign.text == "-" ? ExprKind::kNegate : ExprKind::kPlus, sign.line);
    MOEBIUS_ASSIGN(ExprPtr operand, Unary(false));
    signed_expr->operands.push_back(std::move(operand));
    MOEBIUS_ASSIGN(expr, Done(std::move(signed_expr)));
  } else {
    MOEBIUS_ASSIGN(expr, Primary());
  }
  MOEBIUS_ASSIGN(expr, Postfix(std::move(expr)));
  if (with_filters) return FiltersAndTests(std::move(expr));
  return expr;
}

Result<ExprPtr> ExprParser::Primary() {
  const Token& token = tokens_.current();
  ExprPtr constant = New(ExprKind::kConst, token.line);
  switch (token.type) {
    case TokenType::kName:
      return Name();
    case TokenType::kString: {
      std::string text;
      while (tokens_.Is(TokenType::kString)) text += tokens_.Take().text;
      constant->value = Value::String(std::move(text));
      return constant;
    }
    case TokenType::kInteger:
      constant->value = Value::Int(tokens_.Take().integer);
      return constant;
    case TokenType::kFloat:
      constant->value = Value::Float(tokens_.Take().number);
      return constant;
    default:
      break;
  }
  if (tokens_.IsOperator("(")) return Parenthesized();
  if (tokens_.IsOperator("[")) return ListLiteral();
  if (tokens_.IsOperator("{")) return DictLiteral();
  return tokens_.Unexpected("an expression");
}

Result<ExprPtr> ExprParser::Name() {
  const Token& token = tokens_.Take();
  ExprPtr expr = New(ExprKind::kConst, token.line);
  if (token.text == "true" || token.text == "True" || token.text == "false" ||
      token.text == "False") {
    expr->value = Value::Bool(token.text == "true" || token.text == "True");
    return expr;
  }
  if (token.text == "none" || token.text == "None") return expr;
  expr->kind = ExprKind::kName;
  expr->name = context_.Intern(token.text);
  for (Signature* macro : context_.macros) {
    macro->uses_caller = macro->uses_caller || token.text == "caller";
    macro->uses_kwargs = macro->uses_kwargs || token.text == "kwargs";
    macro->uses_varargs = macro->uses_varargs || token.text == "varargs";
  }
  return expr;
}

Result<ExprPtr> ExprParser::TupleOrExpression(bool with_condition) {
  const auto at_end = [&] {
    return tokens_.Is(TokenType::kVariableEnd) || tokens_.Is(TokenType::kBlockEnd) ||
           tokens_.IsOperator(")");
  };
  ExprPtr tuple = New(ExprKind::kTuple, tokens_.line());
  bool is_tuple = false;
  while (true) {
    if (!tuple->operands.empty()) MOEBIUS_TRY(tokens_.ExpectOperator(","));
    if (at_end()) break;
    MOEBIUS_ASSIGN(ExprPtr element, Expression(with_condition));
    tuple->operands.push_back(std::move(element));
    if (!tokens_.IsOperator(",")) break;
    is_tuple = true;
  }
  if (is_tuple) return Done(std::move(tuple));
  if (tuple->operands.empty()) return tokens_.Unexpected("an expression");
  return std::move(tuple->operands[0]);
}

Result<ExprPtr> ExprParser::Parenthesized() {
  const int line = tokens_.Take().line;
  if (tokens_.SkipOperator(")")) return New(ExprKind::kTuple, line);
  MOEBIUS_ASSIGN(ExprPtr expr, TupleOrExpression());
  MOEBIUS_TRY(tokens_.ExpectOperator(")"));
  return expr;
}

Result<ExprPtr> ExprParser::ListLiteral() {
  ExprPtr list = New(ExprKind::kList, tokens_.Take().line);
  while (!tokens_.IsOperator("]")) {
    if (!list->operands.empty()) {
      MOEBIUS_TRY(tokens_.ExpectOperator(","));
      if (tokens_.IsOperator("]")) break;
    }
    MOEBIUS_ASSIGN(ExprPtr element, Expression());
    list->operands.push_back(std::move(element));
  }
  tokens_.Take();
  return Done(std::move(list));
}

Result<ExprPtr> ExprParser::DictLiteral() {
  ExprPtr dict = New(ExprKind::kDict, tokens_.Take().line);
  while (!tokens_.IsOperator("}")) {
    if (!dict->operands.empty()) {
      MOEBIUS_TRY(tokens_.ExpectOperator(","));
      if (tokens_.IsOperator("}")) break;
    }
    MOEBIUS_ASSIGN(ExprPtr key, Expression());
    MOEBIUS_TRY(tokens_.ExpectOperator(":"));
    MOEBIUS_ASSIGN(ExprPtr value, Expression());
    dict->operands.push_back(std::move(key));
    dict->operands.push_back(std::move(value));
  }
  tokens_.Take();
  return Done(std::move(dict));
}

}  // namespace moebius::text::jinja
