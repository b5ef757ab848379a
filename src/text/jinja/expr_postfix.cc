// What may stand behind an operand: attributes, subscripts, calls, filters, tests; and targets of
// assignments.
#include "text/jinja/expr_parser.h"
#include "text/jinja/filters.h"
#include "text/jinja/predicates.h"

namespace moebius::text::jinja {

Result<ExprPtr> ExprParser::Postfix(ExprPtr operand) {
  while (true) {
    if (tokens_.IsOperator(".") || tokens_.IsOperator("[")) {
      MOEBIUS_ASSIGN(operand, Subscript(std::move(operand)));
    } else if (tokens_.IsOperator("(")) {
      MOEBIUS_ASSIGN(operand, Call(std::move(operand)));
    } else {
      return operand;
    }
  }
}

Result<ExprPtr> ExprParser::FiltersAndTests(ExprPtr operand) {
  while (true) {
    if (tokens_.IsOperator("|")) {
      MOEBIUS_ASSIGN(operand, Filters(std::move(operand), false));
    } else if (tokens_.IsName("is")) {
      MOEBIUS_ASSIGN(operand, Test(std::move(operand)));
    } else if (tokens_.IsOperator("(")) {
      MOEBIUS_ASSIGN(operand, Call(std::move(operand)));
    } else {
      return operand;
    }
  }
}

Result<ExprPtr> ExprParser::Subscript(ExprPtr operand) {
  const Token& open = tokens_.Take();
  if (open.text == ".") {
    const Token& attribute = tokens_.Take();
    if (attribute.type == TokenType::kName) {
      ExprPtr expr = New(ExprKind::kAttribute, open.line);
      expr->text = attribute.text;
      expr->operands.push_back(std::move(operand));
      return Done(std::move(expr));
    }
    if (attribute.type != TokenType::kInteger)
      return tokens_.Unexpected("a name or number after '.'");
    ExprPtr index = New(ExprKind::kConst, attribute.line);
    index->value = Value::Int(attribute.integer);
    return Binary(ExprKind::kItem, BinaryOp::kAdd, std::move(operand), std::move(index), open.line);
  }
  MOEBIUS_ASSIGN(ExprPtr expr, Subscribed(std::move(operand)));
  if (tokens_.IsOperator(",")) {
    if (expr->kind == ExprKind::kSlice) {
      return tokens_.Fail(ErrorCode::kUnsupported,
                          "a slice among several subscripts is not supported");
    }
    ExprPtr tuple = New(ExprKind::kTuple, open.line);
    tuple->operands.push_back(std::move(expr->operands[1]));
    while (tokens_.SkipOperator(",")) {
      MOEBIUS_ASSIGN(ExprPtr element, Expression());
      tuple->operands.push_back(std::move(element));
    }
    MOEBIUS_ASSIGN(expr->operands[1], Done(std::move(tuple)));
    MOEBIUS_ASSIGN(expr, Done(std::move(expr)));
  }
  MOEBIUS_TRY(tokens_.ExpectOperator("]"));
  return expr;
}

Result<ExprPtr> ExprParser::Subscribed(ExprPtr operand) {
  const int line = tokens_.line();
  const auto part_ends = [&] {
    return tokens_.IsOperator(":") || tokens_.IsOperator("]") || tokens_.IsOperator(",");
  };
  ExprPtr start;
  if (!tokens_.IsOperator(":")) {
    MOEBIUS_ASSIGN(start, Expression());
    if (!tokens_.IsOperator(":")) {
      return Binary(ExprKind::kItem, BinaryOp::kAdd, std::move(operand), std::move(start), line);
    }
  }
  tokens_.Take();
  ExprPtr slice = New(ExprKind::kSlice, line);
  ExprPtr stop;
  ExprPtr step;
  if (!part_ends()) {
    MOEBIUS_ASSIGN(stop, Expression());
  }
  if (tokens_.SkipOperator(":") && !part_ends()) {
    MOEBIUS_ASSIGN(step, Expression());
  }
  slice->operands.push_back(std::move(operand));
  slice->operands.push_back(std::move(start));
  slice->operands.push_back(std::move(stop));
  slice->operands.push_back(std::move(step));
  return Done(std::move(slice));
}

Result<ExprPtr> ExprParser::Call(ExprPtr callee) {
  ExprPtr call = New(ExprKind::kCall, tokens_.line());
  MOEBIUS_ASSIGN(call->arguments, CallArguments());
  call->operands.push_back(std::move(callee));
  return Done(std::move(call));
}

Result<Arguments> ExprParser::CallArguments() {
  Arguments arguments;
  MOEBIUS_TRY(tokens_.ExpectOperator("("));
  bool first = true;
  while (!tokens_.IsOperator(")")) {
    if (!first) {
      MOEBIUS_TRY(tokens_.ExpectOperator(","));
      if (tokens_.IsOperator(")")) break;
    }
    first = false;
    bool in_order = !arguments.rest_keywords;
    if (tokens_.IsOperator("*")) {
      in_order = in_order && !arguments.rest;
      tokens_.Take();
      MOEBIUS_ASSIGN(arguments.rest, Expression());
    } else if (tokens_.SkipOperator("**")) {
      MOEBIUS_ASSIGN(arguments.rest_keywords, Expression());
    } else if (tokens_.Is(TokenType::kName) && TokenStream::IsOperator(tokens_.next(), "=")) {
      std::string name = tokens_.Take().text;
      tokens_.Take();
      for (const auto& [other, value] : arguments.keywords) in_order = in_order && other != name;
      MOEBIUS_ASSIGN(ExprPtr value, Expression());
      arguments.keywords.emplace_back(std::move(name), std::move(value));
    } else {
      in_order = in_order && !arguments.rest && arguments.keywords.empty();
      MOEBIUS_ASSIGN(ExprPtr value, Expression());
      arguments.positional.push_back(std::move(value));
    }
    if (!in_order) {
      return tokens_.Fail(ErrorCode::kInvalidArgument,
                          "invalid syntax for function call expression");
    }
  }
  MOEBIUS_TRY(tokens_.ExpectOperator(")"));
  return arguments;
}

Result<std::string> ExprParser::DottedName() {
  MOEBIUS_ASSIGN(std::string name, tokens_.ExpectAnyName());
  while (tokens_.SkipOperator(".")) {
    MOEBIUS_ASSIGN(const std::string part, tokens_.ExpectAnyName());
    name += "." + part;
  }
  return name;
}

Result<ExprPtr> ExprParser::Filters(ExprPtr operand, bool first_without_pipe) {
  while (tokens_.IsOperator("|") || first_without_pipe) {
    if (!first_without_pipe) tokens_.Take();
    first_without_pipe = false;
    ExprPtr filter = New(ExprKind::kFilter, tokens_.line());
    MOEBIUS_ASSIGN(filter->text, DottedName());
    filter->builtin = FindFilter(filter->text);
    if (filter->builtin == nullptr) context_.AddUnknown(filter->line, UnknownFilter(filter->text));
    if (tokens_.IsOperator("(")) {
      MOEBIUS_ASSIGN(filter->arguments, CallArguments());
    }
    filter->operands.push_back(std::move(operand));
    MOEBIUS_ASSIGN(operand, Done(std::move(filter)));
  }
  return operand;
}

Result<ExprPtr> ExprParser::Test(ExprPtr operand) {
  ExprPtr test = New(ExprKind::kTest, tokens_.Take().line);
  const bool negated = tokens_.SkipName("not");
  MOEBIUS_ASSIGN(test->text, DottedName());
  test->builtin = FindPredicate(test->text);
  if (test->builtin == nullptr) context_.AddUnknown(test->line, UnknownPredicate(test->text));
  const Token& next = tokens_.current();
  const bool starts_argument = next.type == TokenType::kName || next.type == TokenType::kString ||
                               next.type == TokenType::kInteger || next.type == TokenType::kFloat ||
                               tokens_.IsOperator("[") || tokens_.IsOperator("{");
  if (tokens_.IsOperator("(")) {
    MOEBIUS_ASSIGN(test->arguments, CallArguments());
  } else if (starts_argument && !tokens_.IsName("else") && !tokens_.IsName("or") &&
             !tokens_.IsName("and")) {
    if (tokens_.IsName("is")) {
      return tokens_.Fail(ErrorCode::kInvalidArgument, "tests cannot be chained with 'is'");
    }
    MOEBIUS_ASSIGN(ExprPtr argument, Primary());
    MOEBIUS_ASSIGN(argument, Postfix(std::move(argument)));
    test->arguments.positional.push_back(std::move(argument));
  }
  test->operands.push_back(std::move(operand));
  MOEBIUS_ASSIGN(test, Done(std::move(test)));
  if (!negated) return test;
  ExprPtr inverse = New(ExprKind::kNot, test->line);
  inverse->operands.push_back(std::move(test));
  return Done(std::move(inverse));
}

Result<NameId> ExprParser::AssignName() {
  MOEBIUS_ASSIGN(const std::string name, tokens_.ExpectAnyName());
  for (std::string_view constant : {"true", "True", "false", "False", "none", "None"}) {
    if (name == constant)
      return tokens_.Fail(ErrorCode::kInvalidArgument, "cannot assign to '{}'", name);
  }
  return context_.Intern(name);
}

Result<Target> ExprParser::TargetElement(bool with_attributes) {
  Target target;
  if (tokens_.SkipOperator("(")) {
    const DepthGuard guard(context_);
    MOEBIUS_TRY(guard.Check());
    // jinja2 takes no attribute within parentheses.
    MOEBIUS_ASSIGN(target, AssignTarget(false));
    MOEBIUS_TRY(tokens_.ExpectOperator(")"));
    return target;
  }
  MOEBIUS_ASSIGN(target.name, AssignName());
  if (with_attributes && tokens_.SkipOperator(".")) {
    MOEBIUS_ASSIGN(target.attribute, tokens_.ExpectAnyName());
  } else if (context_.num_all_loops > 0 && context_.names[target.name] == "loop") {
    return tokens_.Fail(ErrorCode::kInvalidArgument, "cannot assign to 'loop' in a for loop");
  }
  return target;
}

Result<Target> ExprParser::AssignTarget(bool with_attributes) {
  Target tuple;
  tuple.is_tuple = true;
  bool has_comma = false;
  while (true) {
    if (!tuple.elements.empty()) MOEBIUS_TRY(tokens_.ExpectOperator(","));
    if (tokens_.Is(TokenType::kBlockEnd) || tokens_.IsOperator(")")) {
      break;
    }
    MOEBIUS_ASSIGN(Target element, TargetElement(with_attributes));
    tuple.elements.push_back(std::move(element));
    if (!tokens_.IsOperator(",")) break;
    has_comma = true;
  }
  if (tuple.elements.empty()) return tokens_.Unexpected("a name to assign to");
  if (has_comma) return tuple;
  return std::move(tuple.elements[0]);
}

}  // namespace moebius::text::jinja
