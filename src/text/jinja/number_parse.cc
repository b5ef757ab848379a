#include "text/jinja/number_parse.h"

#include <charconv>
#include <limits>
#include <string>

#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

// Removes single underscores between digits; absent when one stands elsewhere.
std::optional<std::string> WithoutUnderscores(std::string_view text) {
  const auto is_word = [&](size_t i) {
    return i < text.size() && text[i] != '_' && IsAlnum(CodeAt(text, i));
  };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
    } else if (i == 0 || !is_word(i - 1) || !is_word(i + 1)) {
      return std::nullopt;
    }
  }
  return out;
}

bool TakeSign(std::string_view& text) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  return negative;
}

}  // namespace

Result<std::optional<int64_t>> ParseInt(std::string_view text, int64_t base) {
  if (base != 0 && (base < 2 || base > 36))
    return MakeError(ErrorCode::kInvalidArgument, "int: base {} is not 2 to 36", base);
  text = Strip(text, Side::kBoth);
  const bool negative = TakeSign(text);
  const char letter = text.size() > 1 && text[0] == '0' ? static_cast<char>(text[1] | 0x20) : '\0';
  const int64_t prefix_base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
  if (prefix_base != 0 && (base == prefix_base || base == 0)) {
    base = prefix_base;
    text.remove_prefix(text.size() > 2 && text[2] == '_' ? 3 : 2);
  } else if (base == 0) {
    base = 10;
    // Python 3 refuses "010" there.
    if (text.size() > 1 && text[0] == '0' &&
        text.find_first_not_of("0_") != std::string_view::npos) {
      return std::optional<int64_t>();
    }
  }
  const std::optional<std::string> digits = WithoutUnderscores(text);
  if (!digits || digits->empty()) return std::optional<int64_t>();
  uint64_t magnitude = 0;
  const auto [stop, error] = std::from_chars(digits->data(), digits->data() + digits->size(),
                                             magnitude, static_cast<int>(base));
  if (stop != digits->data() + digits->size() || error == std::errc::invalid_argument)
    return std::optional<int64_t>();
  const uint64_t limit =
      static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) + (negative ? 1 : 0);
  if (error != std::errc() || magnitude > limit) {
    return MakeError(ErrorCode::kUnsupported, "int: '{}' is beyond 64 bits", *digits);
  }
  return std::optional<int64_t>(static_cast<int64_t>(negative ? 0 - magnitude : magnitude));
}

std::optional<double> ParseFloat(std::string_view text) {
  text = Strip(text, Side::kBoth);
  const bool negative = TakeSign(text);
  const std::optional<std::string> digits = WithoutUnderscores(text);
  if (!digits || digits->empty()) return std::nullopt;
  const double sign = negative ? -1.0 : 1.0;
  const std::string lower = ToLower(*digits);
  if (lower == "inf" || lower == "infinity") return sign * std::numeric_limits<double>::infinity();
  if (lower == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (lower.find_first_not_of("0123456789.e+-") != std::string::npos || lower[0] == '-' ||
      lower[0] == '+')
    return std::nullopt;
  // strtod, not from_chars: it gives inf and 0 where the number is out of range, as Python does.
  char* stop = nullptr;
  const double number = std::strtod(lower.c_str(), &stop);
  if (stop != lower.c_str() + lower.size()) return std::nullopt;
  return sign * number;
}

}  // namespace moebius::text::jinja
