#include "text/jinja/string_literal.h"

#include <fmt/core.h>

#include <algorithm>

#include <charconv>

#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

// The code of `num_digits` hex digits at `at`, appended.
Status AppendHex(std::string& out, std::string_view literal, size_t at, size_t num_digits) {
  const std::string_view digits = literal.substr(at, num_digits);
  uint32_t code = 0;
  const auto [stop, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
  if (digits.size() != num_digits || error != std::errc() ||
      stop != digits.data() + digits.size() || code > 0x10FFFF) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "escape '\\{}{}' in a string is incomplete or out of range", literal[at - 1],
                     digits);
  }
  if (code >= 0xD800 && code < 0xE000) {
    return MakeError(ErrorCode::kUnsupported, "surrogate '\\{}{}' in a string is not supported",
                     literal[at - 1], digits);
  }
  AppendCode(out, code);
  return {};
}

// jinja2 decodes escapes from an ASCII form in which é is \xe9: behind a backslash that form shows.
void AppendEscapedNonAscii(std::string& out, uint32_t code) {
  out += code < 0x100     ? fmt::format("\\x{:02x}", code)
         : code < 0x10000 ? fmt::format("\\u{:04x}", code)
                          : fmt::format("\\U{:08x}", code);
}

}  // namespace

std::string NormalizeNewlines(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      out += '\n';
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

Result<std::string> DecodeStringLiteral(std::string_view literal) {
  constexpr std::string_view kNames = "abfnrtv\\'\"";
  constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
  std::string out;
  for (size_t at = 0; at < literal.size();) {
    if (literal[at] != '\\') {
      out += literal[at++];
      continue;
    }
    if (++at == literal.size())
      return MakeError(ErrorCode::kInvalidArgument, "a string ends in a lone backslash");
    const char c = literal[at];
    if (c == '\n') {
      ++at;
    } else if (const size_t name = kNames.find(c); name != std::string_view::npos) {
      out += kMeanings[name];
      ++at;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t num_digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      MOEBIUS_TRY(AppendHex(out, literal, at + 1, num_digits));
      at += 1 + num_digits;
    } else if (c >= '0' && c <= '7') {
      uint32_t code = 0;
      for (size_t end = at + 3;
           at < std::min(end, literal.size()) && literal[at] >= '0' && literal[at] <= '7'; ++at) {
        code = code * 8 + static_cast<uint32_t>(literal[at] - '0');
      }
      AppendCode(out, code);
    } else if (c == 'N') {
      return MakeError(ErrorCode::kUnsupported, "escape '\\N' in a string is not supported");
    } else if (static_cast<uint8_t>(c) >= 0x80) {
      AppendEscapedNonAscii(out, CodeAt(literal, at));
      at += CharSize(literal, at);
    } else {
      out += '\\';
      out += c;
      ++at;
    }
  }
  return out;
}

}  // namespace moebius::text::jinja
