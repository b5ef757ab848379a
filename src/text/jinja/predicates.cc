#include "text/jinja/predicates.h"

#include <fmt/core.h>

#include "text/jinja/compare.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/jinja/string_ops.h"

namespace moebius::text::jinja {
namespace {

template <bool (Value::*kIs)() const>
Result<Value> Is(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Bool((subject.*kIs)());
}

Result<Value> Defined(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Bool(!subject.IsUndefined());
}

template <bool kWanted>
Result<Value> IsConstant(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Bool(subject.IsBool() && subject.AsBool() == kWanted);
}

Result<Value> Sequence(Interpreter&, const Value& subject, const BoundArgs&) {
  switch (subject.kind()) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kRange:
      return Value::Bool(true);
    default:
      return Value::Bool(false);
  }
}

Result<Value> Iterable(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Bool(IsIterable(subject));
}

Result<Value> Callable(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Bool(subject.kind() == Kind::kCallable || subject.IsUndefined() ||
                     subject.kind() == Kind::kLoop);
}

Result<Value> Remainder(Interpreter& interpreter, const Value& subject, const Value& divisor,
                        int64_t wanted) {
  MOEBIUS_ASSIGN(const Value remainder, Arithmetic(interpreter, BinaryOp::kMod, subject, divisor));
  MOEBIUS_ASSIGN(const bool equal, Equal(remainder, Value::Int(wanted), interpreter.budget()));
  return Value::Bool(equal);
}
template <int64_t kWanted>
Result<Value> Parity(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  return Remainder(interpreter, subject, Value::Int(2), kWanted);
}
Result<Value> DivisibleBy(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  return Remainder(interpreter, subject, args.Get(0), 0);
}

template <bool kUpper>
Result<Value> CaseTest(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  MOEBIUS_ASSIGN(const std::string text, ToStr(subject, interpreter.budget()));
  return Value::Bool(kUpper ? IsUpperText(text) : IsLowerText(text));
}

template <bool kWanted>
Result<Value> EqualTo(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const bool equal, Equal(subject, args.Get(0), interpreter.budget()));
  return Value::Bool(equal == kWanted);
}

// The orders that satisfy the test.
template <int kOrder, bool kOrEqual>
Result<Value> Ordered(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const int order, Compare(subject, args.Get(0), interpreter.budget()));
  return Value::Bool(order == kOrder || (kOrEqual && order == 0));
}

Result<Value> In(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const bool contains, Contains(args.Get(0), subject, interpreter.budget()));
  return Value::Bool(contains);
}

Result<Value> SameAs(Interpreter&, const Value& subject, const BoundArgs& args) {
  // Whether equal numbers or texts are one object is up to CPython.
  const auto has_identity = [](const Value& v) {
    return !(v.IsInt() || v.IsFloat() || v.IsString() || v.IsUndefined() || v.IsTuple());
  };
  if (subject.kind() == args.Get(0).kind() && !has_identity(subject)) {
    return MakeError(ErrorCode::kUnsupported, "test 'sameas' on a {} is not supported",
                     subject.TypeName());
  }
  return Value::Bool(subject.Same(args.Get(0)));
}

Result<Value> IsFilter(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Bool(subject.IsString() && FindFilter(subject.AsString()) != nullptr);
}
Result<Value> IsTest(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Bool(subject.IsString() && FindPredicate(subject.AsString()) != nullptr);
}

constexpr Builtin kPredicates[] = {
    {"boolean", "", 0, Is<&Value::IsBool>},
    {"callable", "", 0, Callable},
    {"defined", "", 0, Defined},
    {"divisibleby", "num", 1, DivisibleBy},
    {"eq", "$b", 1, EqualTo<true>},
    {"equalto", "$b", 1, EqualTo<true>},
    {"==", "$b", 1, EqualTo<true>},
    {"escaped", "", 0, Is<&Value::IsMarkup>},
    {"even", "", 0, Parity<0>},
    {"false", "", 0, IsConstant<false>},
    {"filter", "", 0, IsFilter},
    {"float", "", 0, Is<&Value::IsFloat>},
    {"ge", "$b", 1, Ordered<1, true>},
    {">=", "$b", 1, Ordered<1, true>},
    {"greaterthan", "$b", 1, Ordered<1, false>},
    {"gt", "$b", 1, Ordered<1, false>},
    {">", "$b", 1, Ordered<1, false>},
    {"in", "seq", 1, In},
    {"integer", "", 0, Is<&Value::IsInt>},
    {"iterable", "", 0, Iterable},
    {"le", "$b", 1, Ordered<-1, true>},
    {"<=", "$b", 1, Ordered<-1, true>},
    {"lessthan", "$b", 1, Ordered<-1, false>},
    {"lower", "", 0, CaseTest<false>},
    {"lt", "$b", 1, Ordered<-1, false>},
    {"<", "$b", 1, Ordered<-1, false>},
    {"mapping", "", 0, Is<&Value::IsDict>},
    {"ne", "$b", 1, EqualTo<false>},
    {"!=", "$b", 1, EqualTo<false>},
    {"none", "", 0, Is<&Value::IsNone>},
    {"number", "", 0, Is<&Value::IsNumber>},
    {"odd", "", 0, Parity<1>},
    {"sameas", "other", 1, SameAs},
    {"sequence", "", 0, Sequence},
    {"string", "", 0, Is<&Value::IsString>},
    {"test", "", 0, IsTest},
    {"true", "", 0, IsConstant<true>},
    {"undefined", "", 0, Is<&Value::IsUndefined>},
    {"upper", "", 0, CaseTest<true>},
};

}  // namespace

const Builtin* FindPredicate(std::string_view name) { return FindBuiltin(kPredicates, name); }

Error UnknownPredicate(std::string_view name) {
  return Error(ErrorCode::kInvalidArgument, fmt::format("no test named '{}'", name));
}

}  // namespace moebius::text::jinja
