// Text as Python's str sees it: a sequence of code points, with their properties and cases. Strings
// are UTF-8; a byte that is no part of valid UTF-8 counts as one character and has no property.
// Pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace moebius::text::jinja {

// Bytes of the character at `at` (at < text.size()).
size_t WideCharSize(std::string_view text, size_t at);
inline size_t CharSize(std::string_view text, size_t at) {
  return static_cast<uint8_t>(text[at]) < 0x80 ? 1 : WideCharSize(text, at);
}
// Its code point; 0xFFFFFFFF for a stray byte.
uint32_t WideCodeAt(std::string_view text, size_t at);
inline uint32_t CodeAt(std::string_view text, size_t at) {
  const auto byte = static_cast<uint8_t>(text[at]);
  return byte < 0x80 ? byte : WideCodeAt(text, at);
}
void AppendCode(std::string& out, uint32_t code);

size_t NumChars(std::string_view text);
// The byte where character `idx` begins; text.size() when there are fewer.
size_t ByteOffset(std::string_view text, size_t idx);

bool IsSpace(uint32_t code);
bool IsAlpha(uint32_t code);
bool IsDecimal(uint32_t code);
bool IsDigit(uint32_t code);
bool IsNumeric(uint32_t code);
bool IsAlnum(uint32_t code);
bool IsLower(uint32_t code);
bool IsUpper(uint32_t code);
bool IsTitle(uint32_t code);
bool IsPrintable(uint32_t code);

std::string ToUpper(std::string_view text);
std::string ToLower(std::string_view text);
std::string ToTitle(std::string_view text);        // str.title
std::string ToCapitalized(std::string_view text);  // str.capitalize
std::string ToSwappedCase(std::string_view text);

enum class Side : uint8_t { kBoth, kLeft, kRight };
// str.strip() and str.strip(chars)
std::string_view Strip(std::string_view text, Side side);
std::string_view StripChars(std::string_view text, std::string_view chars, Side side);

}  // namespace moebius::text::jinja
