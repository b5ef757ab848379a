// The expressions of a template (Interpreter::Eval and below).
#include <fmt/core.h>

#include <utility>

#include "text/jinja/attributes.h"
#include "text/jinja/builtin.h"
#include "text/jinja/compare.h"
#include "text/jinja/depth_counter.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/predicates.h"
#include "text/jinja/print.h"

namespace moebius::text::jinja {
namespace {

int64_t ShallowBytes(const Value& value) {
  switch (value.kind()) {
    case Kind::kString:
      return static_cast<int64_t>(value.AsString().size()) + 64;
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.Items().size() * sizeof(Value)) + 64;
    case Kind::kDict:
      return static_cast<int64_t>(value.AsDict().size() * 2 * sizeof(Value)) + 64;
    case Kind::kIterator:
      return static_cast<int64_t>(static_cast<const IteratorObject*>(value.object())->items.size() *
                                  sizeof(Value)) +
             64;
    default:
      return 0;
  }
}

}  // namespace

Status Interpreter::Account(const Value& value) {
  if (value.depth() > options_.limits.value_depth) {
    return MakeError(ErrorCode::kInvalidArgument, "a value nests deeper than {} levels",
                     options_.limits.value_depth);
  }
  return budget_.Bytes(ShallowBytes(value));
}

Result<Value> Interpreter::Eval(const Expr& expr, const ScopePtr& scope) {
  DepthCounter depth(*this);
  Result<Value> value = depth.Check().and_then([&] { return budget_.Step(); }).and_then([&] {
    return EvalInner(expr, scope);
  });
  if (!value && !has_error_line_) {
    has_error_line_ = true;
    return tl::unexpected<Error>(value.error().WithContext(fmt::format("line {}", expr.line)));
  }
  return value;
}

Result<Value> Interpreter::EvalInner(const Expr& expr, const ScopePtr& scope) {
  Result<Value> value;
  switch (expr.kind) {
    case ExprKind::kConst:
      return expr.value;
    case ExprKind::kName:
      return Lookup(expr.name, scope);
    case ExprKind::kAnd:
    case ExprKind::kOr: {
      MOEBIUS_ASSIGN(Value left, EvalOperand(expr, 0, scope));
      if (left.Truthy() == (expr.kind == ExprKind::kOr)) return left;
      return EvalOperand(expr, 1, scope);
    }
    case ExprKind::kNot: {
      MOEBIUS_ASSIGN(const Value operand, EvalOperand(expr, 0, scope));
      return Value::Bool(!operand.Truthy());
    }
    case ExprKind::kNegate: {
      MOEBIUS_ASSIGN(const Value operand, EvalOperand(expr, 0, scope));
      return Negate(operand);
    }
    case ExprKind::kPlus: {
      MOEBIUS_ASSIGN(const Value operand, EvalOperand(expr, 0, scope));
      return Plus(operand);
    }
    case ExprKind::kCompare:
      return EvalCompare(expr, scope);
    case ExprKind::kConditional:
      return EvalConditional(expr, scope);
    case ExprKind::kTest: {
      MOEBIUS_ASSIGN(const Value subject, EvalOperand(expr, 0, scope));
      return EvalBuiltin(expr, subject, scope);
    }
    case ExprKind::kList:
    case ExprKind::kTuple: {
      MOEBIUS_ASSIGN(std::vector<Value> items, EvalAll(expr.operands, scope));
      value = expr.kind == ExprKind::kList ? Value::List(std::move(items))
                                           : Value::Tuple(std::move(items));
      break;
    }
    case ExprKind::kDict:
      value = EvalDict(expr, scope);
      break;
    case ExprKind::kAttribute: {
      MOEBIUS_ASSIGN(const Value object, EvalOperand(expr, 0, scope));
      value = GetAttribute(*this, object, expr.text);
      break;
    }
    case ExprKind::kItem: {
      MOEBIUS_ASSIGN(const Value object, EvalOperand(expr, 0, scope));
      MOEBIUS_ASSIGN(const Value key, EvalOperand(expr, 1, scope));
      // Most often what the container holds already: nothing new to account for.
      return GetItem(*this, object, key);
    }
    case ExprKind::kSlice:
      value = EvalSlice(expr, scope);
      break;
    case ExprKind::kBinary: {
      MOEBIUS_ASSIGN(const Value left, EvalOperand(expr, 0, scope));
      MOEBIUS_ASSIGN(const Value right, EvalOperand(expr, 1, scope));
      value = Arithmetic(*this, expr.op, left, right);
      break;
    }
    case ExprKind::kConcat:
      return EvalConcat(expr, scope);
    case ExprKind::kFilter: {
      Value subject;
      if (expr.operands[0]) {
        MOEBIUS_ASSIGN(subject, EvalOperand(expr, 0, scope));
      } else {
        subject = *scope->Find(kBlockText);
      }
      value = EvalBuiltin(expr, subject, scope);
      break;
    }
    case ExprKind::kCall: {
      MOEBIUS_ASSIGN(const Value callee, EvalOperand(expr, 0, scope));
      MOEBIUS_ASSIGN(CallArgs args, EvalArguments(expr.arguments, scope));
      value = Call(callee, std::move(args));
      break;
    }
  }
  if (value) MOEBIUS_TRY(Account(*value));
  return value;
}

Result<Value> Interpreter::EvalOperand(const Expr& expr, size_t idx, const ScopePtr& scope) {
  return Eval(*expr.operands[idx], scope);
}

Result<std::vector<Value>> Interpreter::EvalAll(const std::vector<ExprPtr>& exprs,
                                                const ScopePtr& scope) {
  std::vector<Value> values;
  values.reserve(exprs.size());
  for (const ExprPtr& expr : exprs) {
    MOEBIUS_ASSIGN(Value value, Eval(*expr, scope));
    values.push_back(std::move(value));
  }
  return values;
}

Result<Value> Interpreter::EvalDict(const Expr& expr, const ScopePtr& scope) {
  Dict dict;
  for (size_t i = 0; i < expr.operands.size(); i += 2) {
    MOEBIUS_ASSIGN(Value key, EvalOperand(expr, i, scope));
    MOEBIUS_ASSIGN(Value value, EvalOperand(expr, i + 1, scope));
    if (!IsHashable(key))
      return MakeError(ErrorCode::kInvalidArgument, "unhashable type: '{}'", key.TypeName());
    dict.Set(std::move(key), std::move(value));
  }
  return Value::Dict(std::move(dict));
}

Result<Value> Interpreter::EvalConcat(const Expr& expr, const ScopePtr& scope) {
  std::string text;
  for (size_t i = 0; i < expr.operands.size(); ++i) {
    MOEBIUS_ASSIGN(const Value operand, EvalOperand(expr, i, scope));
    MOEBIUS_TRY(Emit(operand, text));
  }
  return Value::String(std::move(text));
}

Result<Value> Interpreter::EvalCompare(const Expr& expr, const ScopePtr& scope) {
  MOEBIUS_ASSIGN(Value left, EvalOperand(expr, 0, scope));
  for (size_t i = 0; i < expr.comparisons.size(); ++i) {
    MOEBIUS_ASSIGN(Value right, EvalOperand(expr, i + 1, scope));
    bool holds = false;
    const CompareOp op = expr.comparisons[i];
    if (op == CompareOp::kEq || op == CompareOp::kNe) {
      MOEBIUS_ASSIGN(const bool equal, Equal(left, right, budget_));
      holds = equal == (op == CompareOp::kEq);
    } else if (op == CompareOp::kIn || op == CompareOp::kNotIn) {
      MOEBIUS_ASSIGN(const bool contains, Contains(right, left, budget_));
      holds = contains == (op == CompareOp::kIn);
    } else {
      MOEBIUS_ASSIGN(const int order, Compare(left, right, budget_));
      holds = (op == CompareOp::kLt && order == -1) || (op == CompareOp::kGt && order == 1) ||
              (op == CompareOp::kLe && (order == -1 || order == 0)) ||
              (op == CompareOp::kGe && (order == 1 || order == 0));
    }
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

Result<Value> Interpreter::EvalConditional(const Expr& expr, const ScopePtr& scope) {
  MOEBIUS_ASSIGN(const Value test, EvalOperand(expr, 1, scope));
  if (test.Truthy()) return EvalOperand(expr, 0, scope);
  if (expr.operands[2]) return EvalOperand(expr, 2, scope);
  return Value::Undefined(
      "the inline if-expression evaluated to false and no else section was defined");
}

Result<Value> Interpreter::EvalSlice(const Expr& expr, const ScopePtr& scope) {
  MOEBIUS_ASSIGN(const Value object, EvalOperand(expr, 0, scope));
  Value parts[3];
  for (size_t i = 0; i < 3; ++i) {
    if (expr.operands[i + 1]) {
      MOEBIUS_ASSIGN(parts[i], EvalOperand(expr, i + 1, scope));
    }
  }
  return Slice(object, parts[0], parts[1], parts[2], budget_);
}

Result<Value> Interpreter::EvalBuiltin(const Expr& expr, const Value& subject,
                                       const ScopePtr& scope) {
  if (expr.builtin == nullptr) {
    return tl::unexpected<Error>(expr.kind == ExprKind::kFilter ? UnknownFilter(expr.text)
                                                                : UnknownPredicate(expr.text));
  }
  MOEBIUS_ASSIGN(CallArgs args, EvalArguments(expr.arguments, scope));
  return CallBuiltin(*this, *expr.builtin, subject, std::move(args));
}

Result<CallArgs> Interpreter::EvalArguments(const Arguments& arguments, const ScopePtr& scope) {
  CallArgs args;
  MOEBIUS_ASSIGN(args.positional, EvalAll(arguments.positional, scope));
  if (arguments.rest) {
    MOEBIUS_ASSIGN(const Value rest, Eval(*arguments.rest, scope));
    MOEBIUS_ASSIGN(std::vector<Value> items, ToItems(rest, budget_));
    for (Value& item : items) args.positional.push_back(std::move(item));
  }
  for (const auto& [name, expr] : arguments.keywords) {
    MOEBIUS_ASSIGN(Value value, Eval(*expr, scope));
    args.keywords.emplace_back(name, std::move(value));
  }
  if (arguments.rest_keywords) {
    MOEBIUS_ASSIGN(const Value rest, Eval(*arguments.rest_keywords, scope));
    if (!rest.IsDict()) {
      return MakeError(ErrorCode::kInvalidArgument, "argument after ** must be a mapping, not {}",
                       rest.TypeName());
    }
    for (const auto& [name, value] : rest.AsDict()) {
      if (!name.IsString())
        return MakeError(ErrorCode::kInvalidArgument, "keywords must be strings");
      for (const auto& [other, unused] : args.keywords) {
        if (other == name.AsString()) {
          return MakeError(ErrorCode::kInvalidArgument, "keyword '{}' is given twice", other);
        }
      }
      args.keywords.emplace_back(name.AsString(), value);
    }
  }
  return args;
}

Result<Value> Interpreter::Lookup(NameId name, const ScopePtr& scope) {
  for (Scope* at = scope.get(); at != nullptr; at = at->parent.get()) {
    if (const Value* value = at->Find(name)) return *value;
  }
  return UndefinedName(name);
}

}  // namespace moebius::text::jinja
