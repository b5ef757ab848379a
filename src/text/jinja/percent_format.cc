#include "text/jinja/percent_format.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/number_format.h"
#include "text/jinja/objects.h"
#include "text/jinja/print.h"

namespace moebius::text::jinja {
namespace {

class PercentFormatter {
 public:
  PercentFormatter(Interpreter& interpreter, std::string_view format, const Value& values)
      : budget_(interpreter.budget()), format_(format), values_(values) {}

  Result<std::string> Run() {
    std::string out;
    while (at_ < format_.size()) {
      if (format_[at_] != '%') {
        out += format_[at_++];
        continue;
      }
      ++at_;
      MOEBIUS_ASSIGN(const std::string text, Conversion());
      out += text;
    }
    const bool all_used =
        !values_.IsTuple() ? used_ || MayStayUnused() : next_ == values_.Items().size();
    if (!all_used)
      return MakeError(ErrorCode::kInvalidArgument,
                       "not all arguments converted during '%' formatting");
    return out;
  }

 private:
  // As Python has it: what could have been looked into by name need not be used.
  bool MayStayUnused() const {
    return values_.IsDict() || values_.IsList() || values_.IsUndefined() ||
           values_.kind() == Kind::kRange;
  }

  char Peek() const { return at_ < format_.size() ? format_[at_] : '\0'; }

  Result<Value> NextValue() {
    if (values_.IsTuple()) {
      if (next_ < values_.Items().size()) return values_.Items()[next_++];
    } else if (!used_) {
      used_ = true;
      return values_;
    }
    return MakeError(ErrorCode::kInvalidArgument, "not enough arguments for '%' format");
  }

  // The value named in "%(name)s".
  Result<Value> NamedValue() {
    size_t depth = 1;
    const size_t begin = ++at_;
    for (; at_ < format_.size() && depth > 0; ++at_)
      depth += format_[at_] == '(' ? 1 : format_[at_] == ')' ? size_t(-1) : 0;
    if (depth != 0) return MakeError(ErrorCode::kInvalidArgument, "incomplete key in '%' format");
    const std::string name(format_.substr(begin, at_ - begin - 1));
    if (!values_.IsDict())
      return MakeError(ErrorCode::kInvalidArgument, "'%({})' needs a mapping", name);
    const Value* value = values_.AsDict().Find(name);
    if (value == nullptr)
      return MakeError(ErrorCode::kInvalidArgument, "'%({})': no such key", name);
    used_ = true;
    return *value;
  }

  // Digits or '*'.
  Result<int64_t> Number() {
    if (Peek() == '*') {
      ++at_;
      MOEBIUS_ASSIGN(const Value value, NextValue());
      if (!value.IsIntegral())
        return MakeError(ErrorCode::kInvalidArgument, "'*' wants int in '%' format");
      return std::clamp<int64_t>(value.AsInt(), -(int64_t{1} << 40), int64_t{1} << 40);
    }
    int64_t number = 0;
    for (; Peek() >= '0' && Peek() <= '9'; ++at_)
      number = std::min<int64_t>(number * 10 + (Peek() - '0'), int64_t{1} << 40);
    return number;
  }

  Result<std::string> Conversion() {
    FormatSpec spec;
    spec.align = '>';
    std::optional<Value> named;
    if (Peek() == '(') {
      MOEBIUS_ASSIGN(named, NamedValue());
    }
    bool zero = false;
    bool left = false;
    for (;; ++at_) {
      const char flag = Peek();
      if (flag == '-') {
        left = true;
      } else if (flag == '+' || (flag == ' ' && spec.sign != '+')) {
        spec.sign = flag;
      } else if (flag == '#') {
        spec.alternate = true;
      } else if (flag == '0') {
        zero = true;
      } else if (flag != ' ') {
        break;
      }
    }
    MOEBIUS_ASSIGN(spec.width, Number());
    if (spec.width < 0) {
      left = true;
      spec.width = -spec.width;
    }
    if (Peek() == '.') {
      ++at_;
      MOEBIUS_ASSIGN(const int64_t precision, Number());
      if (precision > 1000)
        return MakeError(ErrorCode::kUnsupported, "a precision above 1000 in '%' format");
      spec.precision = static_cast<int>(std::max<int64_t>(precision, 0));
    }
    while (Peek() == 'h' || Peek() == 'l' || Peek() == 'L') ++at_;
    const char type = Peek();
    ++at_;
    if (type == '%') return std::string("%");
    if (type == '\0') return MakeError(ErrorCode::kInvalidArgument, "incomplete '%' format");
    MOEBIUS_ASSIGN(const Value value, named ? Result<Value>(*named) : NextValue());
    if (left) {
      spec.align = '<';
    } else if (zero && std::string_view("diuoxXeEfFgG").find(type) != std::string_view::npos) {
      spec.PadWithZeros();
    }
    return Convert(value, type, spec);
  }

  Result<std::string> Convert(const Value& value, char type, FormatSpec spec) {
    switch (type) {
      case 's':
      case 'r': {
        MOEBIUS_ASSIGN(const std::string text,
                       type == 's' ? ToStr(value, budget_) : ToRepr(value, budget_));
        spec.sign = '-';
        spec.alternate = false;
        return FormatText(text, spec, budget_);
      }
      case 'd':
      case 'i':
      case 'u':
      case 'o':
      case 'x':
      case 'X':
        return ConvertInt(value, type, spec);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!value.IsNumber()) return WrongType(value, type);
        spec.type = type;
        return FormatNumber(Value::Float(value.AsFloat()), spec, budget_);
      case 'c':
        spec.sign = '-';
        if (value.IsString()) {
          MOEBIUS_ASSIGN(const int64_t length, Length(value));
          if (length != 1) return MakeError(ErrorCode::kInvalidArgument, "%c requires int or char");
          return FormatText(value.AsString(), spec, budget_);
        }
        if (!value.IsIntegral()) return WrongType(value, type);
        spec.type = type;
        spec.precision.reset();
        return FormatNumber(value, spec, budget_);
      default:
        return MakeError(ErrorCode::kInvalidArgument, "unsupported format character '{}'", type);
    }
  }

  Result<std::string> ConvertInt(const Value& value, char type, FormatSpec spec) {
    if (spec.precision)
      return MakeError(ErrorCode::kUnsupported, "'%.{}{}' is not supported", *spec.precision, type);
    const bool decimal = type == 'd' || type == 'i' || type == 'u';
    spec.type = decimal ? 'd' : type;
    if (value.IsIntegral()) return FormatNumber(Value::Int(value.AsInt()), spec, budget_);
    if (!decimal || !value.IsFloat()) return WrongType(value, type);
    const double number = std::trunc(value.AsFloat());
    if (!(std::fabs(number) < 0x1p63))
      return MakeError(ErrorCode::kUnsupported, "%{}: beyond 64 bits", type);
    return FormatNumber(Value::Int(static_cast<int64_t>(number)), spec, budget_);
  }

  static tl::unexpected<Error> WrongType(const Value& value, char type) {
    if (value.IsUndefined())
      return MakeError(ErrorCode::kInvalidArgument, "{}", value.UndefinedMessage());
    return MakeError(ErrorCode::kInvalidArgument, "%{} format: a number is required, not {}", type,
                     value.TypeName());
  }

  Budget& budget_;
  std::string_view format_;
  const Value& values_;
  size_t at_ = 0;
  size_t next_ = 0;    // of a tuple
  bool used_ = false;  // anything else
};

}  // namespace

Result<Value> PercentFormat(Interpreter& interpreter, const Value& format, const Value& values) {
  if (format.IsMarkup())
    return MakeError(ErrorCode::kUnsupported, "'%' formatting of Markup is not supported");
  MOEBIUS_TRY(interpreter.budget().Bytes(static_cast<int64_t>(format.AsString().size())));
  MOEBIUS_ASSIGN(std::string text, PercentFormatter(interpreter, format.AsString(), values).Run());
  return Value::String(std::move(text));
}

}  // namespace moebius::text::jinja
