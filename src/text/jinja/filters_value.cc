// Filters on single values: default, numbers, tojson.
#include <algorithm>
#include <cmath>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/json.h"
#include "text/jinja/number_parse.h"
#include "text/jinja/operators.h"
#include "text/jinja/string_ops.h"

namespace moebius::text::jinja {
namespace {

Result<Value> Default(Interpreter&, const Value& subject, const BoundArgs& args) {
  const bool replace = subject.IsUndefined() || (args.Truthy(1) && !subject.Truthy());
  return replace ? args.GetOr(0, Value::String("")) : subject;
}

Result<Value> Abs(Interpreter&, const Value& subject, const BoundArgs&) {
  if (subject.IsFloat()) return Value::Float(std::fabs(subject.AsFloat()));
  if (!subject.IsIntegral()) {
    return MakeError(ErrorCode::kInvalidArgument, "abs: bad operand type '{}'", subject.TypeName());
  }
  return subject.AsInt() < 0 ? Negate(subject) : Value::Int(subject.AsInt());
}

// int(x) of a float; absent where Python raises OverflowError or ValueError.
Result<std::optional<int64_t>> Truncated(double number) {
  if (!std::isfinite(number)) return std::optional<int64_t>();
  const double whole = std::trunc(number);
  if (!(std::fabs(whole) < 0x1p63)) {
    return MakeError(ErrorCode::kUnsupported, "int: {} is beyond 64 bits", number);
  }
  return std::optional<int64_t>(static_cast<int64_t>(whole));
}

Result<Value> Int(Interpreter&, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const int64_t base, args.Int(1, 10));
  Value fallback = args.GetOr(0, Value::Int(0));
  if (subject.IsIntegral()) return Value::Int(subject.AsInt());
  if (subject.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", subject.UndefinedMessage());
  std::optional<double> number;
  if (subject.IsFloat()) {
    // int(inf) is no ValueError: Python's filter lets it out.
    if (std::isinf(subject.AsFloat()))
      return MakeError(ErrorCode::kInvalidArgument, "int: cannot convert infinity");
    number = subject.AsFloat();
  } else if (subject.IsString()) {
    MOEBIUS_ASSIGN(const std::optional<int64_t> parsed, ParseInt(subject.AsString(), base));
    if (parsed) return Value::Int(*parsed);
    number = ParseFloat(subject.AsString());
  }
  if (!number) return fallback;
  MOEBIUS_ASSIGN(const std::optional<int64_t> whole, Truncated(*number));
  return whole ? Value::Int(*whole) : fallback;
}

Result<Value> Float(Interpreter&, const Value& subject, const BoundArgs& args) {
  if (subject.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", subject.UndefinedMessage());
  if (subject.IsNumber()) return Value::Float(subject.AsFloat());
  std::optional<double> number;
  if (subject.IsString()) number = ParseFloat(subject.AsString());
  return number ? Value::Float(*number) : args.GetOr(0, Value::Float(0));
}

// round(x, digits) as Python has it: to the nearest decimal of the exact binary value, halves to
// even.
double RoundDecimal(double number, int digits) {
  char text[512];
  if (digits >= 0) {
    if (std::fabs(number) > 1e300 || digits > 300) return number;
    // printf rounds the exact value, halves to even: the same.
    std::snprintf(text, sizeof(text), "%.*f", digits, number);
    return std::strtod(text, nullptr);
  }
  const double scale = std::pow(10.0, -digits);
  return std::isfinite(scale) ? std::nearbyint(number / scale) * scale : std::copysign(0.0, number);
}

Result<Value> Round(Interpreter&, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::string method, args.Text(1, "common"));
  if (method != "common" && method != "ceil" && method != "floor") {
    return MakeError(ErrorCode::kInvalidArgument,
                     "round: method must be common, ceil or floor, not '{}'", method);
  }
  const bool whole = args.Has(0) && args.Get(0).IsNone();
  int64_t precision = 0;
  if (!whole) {
    MOEBIUS_ASSIGN(precision, args.Int(0, 0));
  }
  if (!subject.IsNumber()) {
    return MakeError(ErrorCode::kInvalidArgument, "round: needs a number, not {}",
                     subject.TypeName());
  }
  if (whole || precision < -300 || precision > 300) {
    return MakeError(ErrorCode::kUnsupported,
                     "round: precision None or beyond 300 is not supported");
  }
  const auto digits = static_cast<int>(precision);
  if (method == "common") {
    if (subject.IsFloat()) {
      return Value::Float(std::isfinite(subject.AsFloat()) ? RoundDecimal(subject.AsFloat(), digits)
                                                           : subject.AsFloat());
    }
    if (digits >= 0) return Value::Int(subject.AsInt());
    return MakeError(ErrorCode::kUnsupported,
                     "round: an int with negative precision is not supported");
  }
  const double scale = std::pow(10.0, digits);
  const double scaled = subject.AsFloat() * scale;
  if (!std::isfinite(scaled))
    return MakeError(ErrorCode::kInvalidArgument, "round: the number is not finite");
  // Python's ceil and floor give an int, and int / int or int / float a float.
  return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Result<Value> ToJson(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  JsonStyle style;
  style.ensure_ascii = args.Truthy(0);
  style.sort_keys = args.Truthy(3);
  if (args.IsSet(1)) {
    style.pretty = true;
    style.item_separator.pop_back();  // only the comma: the blank would stand before the line break
    if (args.Get(1).IsString()) {
      style.indent = args.Get(1).AsString();
    } else {
      MOEBIUS_ASSIGN(const int64_t width, args.Int(1, 0));
      MOEBIUS_TRY(interpreter.budget().Bytes(std::max<int64_t>(width, 0)));
      style.indent = RepeatText(" ", width);
    }
  }
  if (args.IsSet(2)) {
    const Value& separators = args.Get(2);
    const bool is_pair = (separators.IsTuple() || separators.IsList()) &&
                         separators.Items().size() == 2 && separators.Items()[0].IsString() &&
                         separators.Items()[1].IsString();
    if (!is_pair)
      return MakeError(ErrorCode::kInvalidArgument, "tojson: separators must be two strings");
    style.item_separator = separators.Items()[0].AsString();
    style.key_separator = separators.Items()[1].AsString();
  }
  MOEBIUS_ASSIGN(std::string text, DumpJson(subject, style, interpreter.budget()));
  return Value::String(std::move(text));
}

constexpr Builtin kValueFilters[] = {
    {"abs", "", 0, Abs},
    {"d", "default_value boolean", 0, Default},
    {"default", "default_value boolean", 0, Default},
    {"float", "default", 0, Float},
    {"int", "default base", 0, Int},
    {"round", "precision method", 0, Round},
    {"tojson", "ensure_ascii indent separators sort_keys", 0, ToJson},
};

}  // namespace

std::span<const Builtin> ValueFilters() { return kValueFilters; }

}  // namespace moebius::text::jinja
