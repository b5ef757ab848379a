#include "text/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "text/jinja/interpreter.h"
#include "text/jinja/objects.h"
#include "text/jinja/percent_format.h"
#include "text/jinja/print.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

constexpr std::string_view kSymbols[] = {"+", "-", "*", "/", "//", "%", "**"};

tl::unexpected<Error> Overflow(BinaryOp op) {
  return MakeError(ErrorCode::kUnsupported, "the result of '{}' is an integer beyond 64 bits",
                   kSymbols[static_cast<size_t>(op)]);
}

tl::unexpected<Error> DivisionByZero() {
  return MakeError(ErrorCode::kInvalidArgument, "division by zero");
}

Result<Value> IntPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return DivisionByZero();
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (true) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result))
      return Overflow(BinaryOp::kPow);
    exponent >>= 1;
    if (exponent == 0) return Value::Int(result);
    if (__builtin_mul_overflow(base, base, &base)) return Overflow(BinaryOp::kPow);
  }
}

Result<Value> IntArithmetic(BinaryOp op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case BinaryOp::kAdd:
      if (__builtin_add_overflow(a, b, &result)) return Overflow(op);
      return Value::Int(result);
    case BinaryOp::kSub:
      if (__builtin_sub_overflow(a, b, &result)) return Overflow(op);
      return Value::Int(result);
    case BinaryOp::kMul:
      if (__builtin_mul_overflow(a, b, &result)) return Overflow(op);
      return Value::Int(result);
    case BinaryOp::kDiv:
      if (b == 0) return DivisionByZero();
      return Value::Float(
          static_cast<double>(static_cast<long double>(a) / static_cast<long double>(b)));
    case BinaryOp::kPow:
      return IntPower(a, b);
    default:
      break;
  }
  if (b == 0) return DivisionByZero();
  if (b == -1) {  // INT64_MIN / -1 traps
    if (op == BinaryOp::kMod) return Value::Int(0);
    if (__builtin_sub_overflow(int64_t{0}, a, &result)) return Overflow(op);
    return Value::Int(result);
  }
  // Python rounds towards minus infinity; the remainder has the divisor's sign.
  const int64_t remainder = a % b;
  const bool adjust = remainder != 0 && (remainder < 0) != (b < 0);
  if (op == BinaryOp::kMod) return Value::Int(adjust ? remainder + b : remainder);
  return Value::Int(a / b - (adjust ? 1 : 0));
}

// As CPython computes them: the quotient is made from the remainder, which is exact.
Value FloatDivMod(BinaryOp op, double a, double b) {
  double mod = std::fmod(a, b);
  double div = (a - mod) / b;
  if (mod != 0) {
    if ((b < 0) != (mod < 0)) {
      mod += b;
      div -= 1;
    }
  } else {
    mod = std::copysign(0.0, b);
  }
  if (op == BinaryOp::kMod) return Value::Float(mod);
  if (div == 0) return Value::Float(std::copysign(0.0, a / b));
  const double floor = std::floor(div);
  return Value::Float(div - floor > 0.5 ? floor + 1 : floor);
}

Result<Value> FloatArithmetic(BinaryOp op, double a, double b) {
  switch (op) {
    case BinaryOp::kAdd:
      return Value::Float(a + b);
    case BinaryOp::kSub:
      return Value::Float(a - b);
    case BinaryOp::kMul:
      return Value::Float(a * b);
    case BinaryOp::kDiv:
      if (b == 0) return DivisionByZero();
      return Value::Float(a / b);
    case BinaryOp::kFloorDiv:
    case BinaryOp::kMod:
      if (b == 0) return DivisionByZero();
      return FloatDivMod(op, a, b);
    case BinaryOp::kPow: {
      if (a == 0 && b < 0) return DivisionByZero();
      const double power = std::pow(a, b);
      if (a < 0 && std::isnan(power) && !std::isnan(b)) {
        return MakeError(ErrorCode::kUnsupported, "complex numbers are not supported");
      }
      if (std::isinf(power) && std::isfinite(a) && std::isfinite(b)) {
        return MakeError(ErrorCode::kInvalidArgument,
                         "the result of '**' is too large for a float");
      }
      return Value::Float(power);
    }
  }
  return DivisionByZero();
}

Result<Value> Repeat(const Value& value, int64_t count, Budget& budget) {
  count = std::max<int64_t>(count, 0);
  const int64_t size = value.IsString()
                           ? static_cast<int64_t>(value.AsString().size())
                           : static_cast<int64_t>(value.Items().size() * sizeof(Value));
  int64_t total = 0;
  if (__builtin_mul_overflow(size, count, &total)) total = INT64_MAX;
  MOEBIUS_TRY(budget.Bytes(total));
  if (value.IsString()) {
    std::string text;
    text.reserve(static_cast<size_t>(total));
    if (size == 0) count = 0;
    for (int64_t i = 0; i < count; ++i) text += value.AsString();
    return Value::String(std::move(text), value.IsMarkup());
  }
  std::vector<Value> items;
  if (size == 0) count = 0;
  for (int64_t i = 0; i < count; ++i)
    items.insert(items.end(), value.Items().begin(), value.Items().end());
  return value.IsList() ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

Result<Value> Join(const Value& a, const Value& b, Budget& budget) {
  if (a.IsString()) {
    MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(a.AsString().size() + b.AsString().size())));
    if (!a.IsMarkup() && !b.IsMarkup()) return Value::String(a.AsString() + b.AsString());
    // Markup escapes what it is joined with.
    const auto escaped = [](const Value& v) {
      return v.IsMarkup() ? v.AsString() : EscapeHtml(v.AsString());
    };
    return Value::String(escaped(a) + escaped(b), true);
  }
  MOEBIUS_TRY(
      budget.Bytes(static_cast<int64_t>((a.Items().size() + b.Items().size()) * sizeof(Value))));
  std::vector<Value> items = a.Items();
  items.insert(items.end(), b.Items().begin(), b.Items().end());
  return a.IsList() ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

bool IsSequence(const Value& value) {
  return value.IsString() || value.IsList() || value.IsTuple();
}

struct SliceBounds {
  int64_t start;
  int64_t stop;
  int64_t step;
  int64_t count;
};

// Python's slice.indices.
Result<SliceBounds> ResolveSlice(int64_t length, const Value& start, const Value& stop,
                                 const Value& step) {
  for (const Value* part : {&start, &stop, &step}) {
    if (part->IsUndefined())
      return MakeError(ErrorCode::kInvalidArgument, "{}", part->UndefinedMessage());
    if (!part->IsNone() && !part->IsIntegral()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "slice indices must be integers or None, not {}", part->TypeName());
    }
  }
  const int64_t by = step.IsNone() ? 1 : step.AsInt();
  if (by == 0) return MakeError(ErrorCode::kInvalidArgument, "slice step cannot be zero");
  const int64_t lowest = by < 0 ? -1 : 0;
  const int64_t highest = by < 0 ? length - 1 : length;
  const auto clamp = [&](const Value& part, int64_t absent) {
    if (part.IsNone()) return absent;
    const int64_t idx = part.AsInt();
    return std::clamp(idx < 0 ? std::max(idx, -length - 1) + length : idx, lowest, highest);
  };
  const int64_t from = clamp(start, by < 0 ? highest : lowest);
  const int64_t to = clamp(stop, by < 0 ? lowest : highest);
  const RangeObject range(from, to, by);
  return SliceBounds{from, to, by, range.length};
}

std::string SliceText(const std::string& text, const SliceBounds& bounds, int64_t num_chars) {
  if (bounds.step == 1) {
    const size_t begin = ByteOffset(text, static_cast<size_t>(bounds.start));
    const size_t size =
        ByteOffset(std::string_view(text).substr(begin), static_cast<size_t>(bounds.count));
    return text.substr(begin, size);
  }
  std::vector<size_t> offsets;
  offsets.reserve(static_cast<size_t>(num_chars));
  for (size_t at = 0; at < text.size(); at += CharSize(text, at)) offsets.push_back(at);
  std::string out;
  for (int64_t i = 0; i < bounds.count; ++i) {
    const size_t at = offsets[static_cast<size_t>(bounds.start + i * bounds.step)];
    out += text.substr(at, CharSize(text, at));
  }
  return out;
}

}  // namespace

Result<Value> Arithmetic(Interpreter& interpreter, BinaryOp op, const Value& a, const Value& b) {
  if (op == BinaryOp::kMod && a.IsString()) return PercentFormat(interpreter, a, b);
  for (const Value* value : {&a, &b}) {
    if (value->IsUndefined())
      return MakeError(ErrorCode::kInvalidArgument, "{}", value->UndefinedMessage());
  }
  if (a.IsIntegral() && b.IsIntegral()) return IntArithmetic(op, a.AsInt(), b.AsInt());
  if (a.IsNumber() && b.IsNumber()) return FloatArithmetic(op, a.AsFloat(), b.AsFloat());
  if (op == BinaryOp::kAdd && a.kind() == b.kind() && IsSequence(a))
    return Join(a, b, interpreter.budget());
  if (op == BinaryOp::kMul && IsSequence(a) && b.IsIntegral())
    return Repeat(a, b.AsInt(), interpreter.budget());
  if (op == BinaryOp::kMul && a.IsIntegral() && IsSequence(b))
    return Repeat(b, a.AsInt(), interpreter.budget());
  return MakeError(ErrorCode::kInvalidArgument, "unsupported operand types for {}: '{}' and '{}'",
                   kSymbols[static_cast<size_t>(op)], a.TypeName(), b.TypeName());
}

Result<Value> Negate(const Value& value) {
  if (value.IsFloat()) return Value::Float(-value.AsFloat());
  if (value.IsIntegral()) return IntArithmetic(BinaryOp::kSub, 0, value.AsInt());
  if (value.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", value.UndefinedMessage());
  return MakeError(ErrorCode::kInvalidArgument, "bad operand type for unary -: '{}'",
                   value.TypeName());
}

Result<Value> Plus(const Value& value) {
  if (value.IsFloat()) return value;
  if (value.IsIntegral()) return Value::Int(value.AsInt());
  if (value.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", value.UndefinedMessage());
  return MakeError(ErrorCode::kInvalidArgument, "bad operand type for unary +: '{}'",
                   value.TypeName());
}

Result<Value> Slice(const Value& value, const Value& start, const Value& stop, const Value& step,
                    Budget& budget) {
  if (value.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", value.UndefinedMessage());
  if (value.IsString()) {
    const std::string& text = value.AsString();
    MOEBIUS_TRY(budget.Step(static_cast<int64_t>(text.size() / 16)));
    const auto num_chars = static_cast<int64_t>(NumChars(text));
    MOEBIUS_ASSIGN(const SliceBounds bounds, ResolveSlice(num_chars, start, stop, step));
    return Value::String(SliceText(text, bounds, num_chars), value.IsMarkup());
  }
  if (value.kind() == Kind::kRange) {
    const auto& range = *static_cast<const RangeObject*>(value.object());
    MOEBIUS_ASSIGN(const SliceBounds bounds, ResolveSlice(range.length, start, stop, step));
    // A range is short (Limits::range), but its numbers may be at the ends of int64.
    const auto at = [&](int64_t idx, int64_t& number) {
      return !__builtin_mul_overflow(idx, range.step, &number) &&
             !__builtin_add_overflow(range.start, number, &number);
    };
    int64_t by = 0;
    int64_t first = 0;
    int64_t end = 0;
    if (__builtin_mul_overflow(range.step, bounds.step, &by) || !at(bounds.start, first) ||
        !at(bounds.stop, end)) {
      return MakeError(ErrorCode::kUnsupported, "a slice of a range beyond 64 bits");
    }
    return MakeRange(first, end, by);
  }
  if (!value.IsList() && !value.IsTuple()) {
    return MakeError(ErrorCode::kInvalidArgument, "'{}' object cannot be sliced", value.TypeName());
  }
  const std::vector<Value>& all = value.Items();
  MOEBIUS_ASSIGN(const SliceBounds bounds,
                 ResolveSlice(static_cast<int64_t>(all.size()), start, stop, step));
  std::vector<Value> items;
  items.reserve(static_cast<size_t>(bounds.count));
  for (int64_t i = 0; i < bounds.count; ++i)
    items.push_back(all[static_cast<size_t>(bounds.start + i * bounds.step)]);
  return value.IsList() ? Value::List(std::move(items)) : Value::Tuple(std::move(items));
}

std::string EscapeHtml(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace moebius::text::jinja
