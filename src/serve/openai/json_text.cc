#include "serve/openai/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/unicode.h"

namespace moebius::serve {
namespace {

constexpr float kLowestLogprob = -9999.0f;

bool IsPlain(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return byte >= 0x20 && byte < 0x80 && c != '"' && c != '\\';
}

void AppendControl(std::string& out, char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      break;
    case '\\':
      out += "\\\\";
      break;
    case '\n':
      out += "\\n";
      break;
    case '\r':
      out += "\\r";
      break;
    case '\t':
      out += "\\t";
      break;
    default:
      fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned>(c));
  }
}

// The character beyond ASCII at the start of `rest`; returns its bytes.
size_t AppendWide(std::string& out, std::string_view rest) {
  const text::Utf8Unit unit = text::ScanUtf8(rest);
  const std::string_view bytes = rest.substr(0, static_cast<size_t>(unit.size));
  if (unit.kind != text::Utf8Unit::kCharacter) {
    out += text::kReplacementChar;
  } else if (bytes == "\xC2\x85") {
    out += "\\u0085";
  } else if (bytes == "\xE2\x80\xA8") {
    out += "\\u2028";
  } else if (bytes == "\xE2\x80\xA9") {
    out += "\\u2029";
  } else {
    out += bytes;
  }
  return bytes.size();
}

template <typename T>
void AppendList(std::string& out, std::span<const T> values) {
  out += '[';
  for (size_t i = 0; i < values.size(); ++i) {
    if (i > 0) out += ',';
    AppendInt(out, static_cast<int64_t>(values[i]));
  }
  out += ']';
}

}  // namespace

void AppendJsonEscaped(std::string& out, std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto special =
        std::find_if_not(text.begin() + static_cast<ptrdiff_t>(i), text.end(), IsPlain);
    const size_t end = static_cast<size_t>(special - text.begin());
    out.append(text, i, end - i);
    i = end;
    if (i == text.size()) break;
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      AppendControl(out, text[i++]);
    } else {
      i += AppendWide(out, text.substr(i));
    }
  }
}

void AppendJsonString(std::string& out, std::string_view text) {
  out += '"';
  AppendJsonEscaped(out, text);
  out += '"';
}

void AppendInt(std::string& out, int64_t value) {
  char digits[24];
  const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), value);
  out.append(digits, end);
}

void AppendIds(std::string& out, std::span<const TokenId> ids) { AppendList(out, ids); }

void AppendBytes(std::string& out, std::string_view bytes) {
  AppendList(out, std::span(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}

void AppendLogprob(std::string& out, float logprob) {
  if (!(logprob >= kLowestLogprob) || std::isinf(logprob)) {
    out += "-9999.0";
    return;
  }
  const size_t begin = out.size();
  fmt::format_to(std::back_inserter(out), "{}", logprob);
  // A log probability is a float for clients that tell types apart.
  if (out.find_first_of(".e", begin) == std::string::npos) out += ".0";
}

}  // namespace moebius::serve
