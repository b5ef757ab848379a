#include "text/jinja/number_format.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/jinja/print.h"
#include "text/jinja/string_ops.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

constexpr int kMaxPrecision = 1000;

bool IsOneOf(char c, std::string_view set) { return set.find(c) != std::string_view::npos; }

// The number at the front of `text`, taken off it; absent when there is none.
std::optional<int64_t> TakeNumber(std::string_view& text) {
  std::optional<int64_t> number;
  while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    number = std::min<int64_t>(number.value_or(0) * 10 + (text[0] - '0'), int64_t{1} << 40);
    text.remove_prefix(1);
  }
  return number;
}

char TakeOneOf(std::string_view& text, std::string_view set) {
  if (text.empty() || !IsOneOf(text[0], set)) return '\0';
  const char c = text[0];
  text.remove_prefix(1);
  return c;
}

// "1234567.5" -> "1,234,567.5"; groups of four for the bases that are powers of two.
std::string Group(const std::string& digits, char separator, size_t group_size) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i != 0 && (whole - i) % group_size == 0) out += separator;
    out += digits[i];
  }
  return out + digits.substr(whole);
}

std::string Digits(uint64_t value, int base, bool upper) {
  if (base == 10) return std::to_string(value);
  const std::string_view symbols = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string out;
  do {
    out += symbols[value % static_cast<uint64_t>(base)];
    value /= static_cast<uint64_t>(base);
  } while (value != 0);
  std::reverse(out.begin(), out.end());
  return out;
}

std::string FloatDigits(double magnitude, char type, int precision, bool alternate) {
  const char format[] = {'%',
                         alternate ? '#' : '.',
                         alternate ? '.' : '*',
                         alternate ? '*' : type,
                         alternate ? type : '\0',
                         '\0'};
  const int size = std::snprintf(nullptr, 0, format, precision, magnitude);
  std::string out(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(out.data(), out.size(), format, precision, magnitude);
  out.pop_back();
  return out;
}

// Sign, prefix and digits to the width.
Result<std::string> Pad(std::string_view sign, const std::string& digits, const FormatSpec& spec,
                        Budget& budget) {
  const int64_t padding = std::max<int64_t>(
      spec.width - static_cast<int64_t>(NumChars(sign)) - static_cast<int64_t>(NumChars(digits)),
      0);
  MOEBIUS_TRY(budget.Bytes(padding * 4 + static_cast<int64_t>(digits.size())));
  const char align = spec.align == '\0' ? '>' : spec.align;
  const int64_t before = align == '<' ? 0 : align == '^' ? padding / 2 : padding;
  const std::string text(sign);
  if (align == '=') return text + RepeatText(spec.fill, padding) + digits;
  return RepeatText(spec.fill, before) + text + digits + RepeatText(spec.fill, padding - before);
}

std::string SignOf(bool negative, char sign) {
  return negative ? "-" : sign == '-' ? "" : std::string(1, sign);
}

Result<std::string> FormatFloat(double value, const FormatSpec& spec, Budget& budget) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double magnitude = std::fabs(value);
  char type = spec.type;
  std::string digits;
  if (std::isnan(value) || std::isinf(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
    if (IsOneOf(type, "EFG")) digits = ToUpper(digits);
    if (type == '%') digits += '%';
  } else if (type == '%') {
    digits = FloatDigits(magnitude * 100, 'f', spec.precision.value_or(6), spec.alternate) + "%";
  } else if (type == '\0' && !spec.precision) {
    digits = FloatRepr(magnitude);
  } else if (type == '\0') {
    return MakeError(ErrorCode::kUnsupported,
                     "a float format with precision but without type is not supported");
  } else {
    const int precision = spec.precision.value_or(6);
    digits = FloatDigits(magnitude, type, precision, spec.alternate);
  }
  if (spec.grouping != '\0') {
    if (spec.align == '=' && spec.fill == "0" && spec.width > 0) {
      return MakeError(ErrorCode::kUnsupported,
                       "a format with both grouping and zero padding is not supported");
    }
    digits = Group(digits, spec.grouping, 3);
  }
  return Pad(SignOf(negative, spec.sign), digits, spec, budget);
}

}  // namespace

Result<FormatSpec> ParseFormatSpec(std::string_view text) {
  const std::string_view whole = text;
  FormatSpec spec;
  constexpr std::string_view kAligns = "<>^=";
  const size_t first = text.empty() ? 0 : CharSize(text, 0);
  if (text.size() > first && IsOneOf(text[first], kAligns)) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    text.remove_prefix(first + 1);
  } else {
    spec.align = TakeOneOf(text, kAligns);
  }
  if (const char sign = TakeOneOf(text, "+- "); sign != '\0') spec.sign = sign;
  spec.alternate = TakeOneOf(text, "#") != '\0';
  if (!text.empty() && text[0] == '0' && spec.align == '\0') {
    spec.PadWithZeros();
  }
  spec.width = TakeNumber(text).value_or(0);
  spec.grouping = TakeOneOf(text, ",_");
  if (TakeOneOf(text, ".") != '\0') {
    const std::optional<int64_t> precision = TakeNumber(text);
    if (!precision)
      return MakeError(ErrorCode::kInvalidArgument, "format '{}' lacks its precision", whole);
    if (*precision > kMaxPrecision) {
      return MakeError(ErrorCode::kUnsupported, "format '{}': a precision above {}", whole,
                       kMaxPrecision);
    }
    spec.precision = static_cast<int>(*precision);
  }
  spec.type = TakeOneOf(text, "bcdeEfFgGosxX%");
  if (!text.empty())
    return MakeError(ErrorCode::kUnsupported, "format '{}' is not supported", whole);
  return spec;
}

Result<std::string> FormatNumber(const Value& value, const FormatSpec& spec, Budget& budget) {
  if (spec.type == 's') {
    return MakeError(ErrorCode::kInvalidArgument, "format type 's' does not fit a {}",
                     value.TypeName());
  }
  const bool wants_float = IsOneOf(spec.type, "eEfFgG%") && spec.type != '\0';
  if (value.IsFloat() || wants_float) {
    if (!wants_float && spec.type != '\0') {
      return MakeError(ErrorCode::kInvalidArgument, "format type '{}' does not fit a float",
                       spec.type);
    }
    return FormatFloat(value.AsFloat(), spec, budget);
  }
  if (spec.precision)
    return MakeError(ErrorCode::kInvalidArgument, "a format of integers has no precision");
  const int64_t number = value.AsInt();
  if (spec.type == 'c') {
    if (number < 0 || number > 0x10FFFF || (number >= 0xD800 && number < 0xE000)) {
      return MakeError(ErrorCode::kInvalidArgument, "%c: {} is no character", number);
    }
    std::string text;
    AppendCode(text, static_cast<uint32_t>(number));
    return Pad("", text, spec, budget);
  }
  const int base = spec.type == 'b'                       ? 2
                   : spec.type == 'o'                     ? 8
                   : spec.type == 'x' || spec.type == 'X' ? 16
                                                          : 10;
  const uint64_t magnitude =
      number < 0 ? 0 - static_cast<uint64_t>(number) : static_cast<uint64_t>(number);
  std::string digits = Digits(magnitude, base, spec.type == 'X');
  if (spec.grouping != '\0') {
    if (spec.align == '=' && spec.fill == "0" && spec.width > 0) {
      return MakeError(ErrorCode::kUnsupported,
                       "a format with both grouping and zero padding is not supported");
    }
    digits = Group(digits, spec.grouping, base == 10 ? 3 : 4);
  }
  std::string sign = SignOf(number < 0, spec.sign);
  if (spec.alternate && base != 10) sign += std::string("0") + spec.type;
  return Pad(sign, digits, spec, budget);
}

Result<std::string> FormatText(std::string_view text, const FormatSpec& spec, Budget& budget) {
  if (spec.type != '\0' && spec.type != 's') {
    return MakeError(ErrorCode::kInvalidArgument, "format type '{}' does not fit a str", spec.type);
  }
  if (spec.sign != '-' || spec.alternate || spec.grouping != '\0' ||
      (spec.align == '=' && spec.fill != "0")) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "a format of text has no sign, '#', grouping or '='");
  }
  if (spec.precision) text = text.substr(0, ByteOffset(text, static_cast<size_t>(*spec.precision)));
  FormatSpec padded = spec;
  if (padded.align == '\0' || padded.align == '=') padded.align = '<';
  return Pad("", std::string(text), padded, budget);
}

}  // namespace moebius::text::jinja
