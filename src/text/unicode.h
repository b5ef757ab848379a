// UTF-8 and the few Unicode notions that tokenisers need; the tables are utf8proc's. Free
// functions without state: any thread. "Valid text" means well-formed UTF-8.
#pragma once

#include <string>
#include <string_view>

namespace moebius::text {

inline constexpr std::string_view kReplacementChar = "\xEF\xBF\xBD";  // U+FFFD

// What stands at the start of some bytes: a whole character, the beginning of one that the bytes
// end before completing, or a malformed sequence (its length is that of the maximal subpart, which
// one U+FFFD replaces: Unicode standard, section 3.9).
struct Utf8Unit {
  enum Kind { kCharacter, kTruncated, kMalformed } kind;
  int size;  // bytes, at least 1
};
Utf8Unit ScanUtf8(std::string_view bytes);  // `bytes` is not empty

// `bytes` with every malformed sequence, a truncated last one included, replaced by U+FFFD.
std::string ReplaceMalformed(std::string_view bytes);

// How many leading bytes are valid text.
size_t ValidPrefix(std::string_view bytes);

struct CodePoint {
  char32_t value;
  int size;  // bytes
};
CodePoint DecodeAt(std::string_view text, size_t pos);      // valid text, `pos` at a character
CodePoint DecodeBefore(std::string_view text, size_t end);  // the character that ends at `end` > 0
void AppendUtf8(std::string& out, char32_t code_point);
std::string Utf8(char32_t code_point);

// The property White_Space.
bool IsWhitespace(char32_t c);

// The simple lower-case mapping, and the two characters of U+0130.
std::string Lowercase(std::string_view text);

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// `text` in a normal form (Unicode standard annex 15). Valid text. The tables are Unicode 15's; the
// `tokenizers` library still has Unicode 11's, so that marks which came in between can be ordered
// otherwise there, and compatibility forms of characters that did stay as they are.
std::string Normalize(std::string_view text, NormalForm form);

}  // namespace moebius::text
