// The printable alphabet of byte-level vocabularies: each byte has a character that stands for it
// in tokenizer.json (GPT-2's table: printable Latin-1 stands for itself, the rest for U+0100 and up
// in order). Free functions without state: any thread.
#pragma once

#include <string>
#include <string_view>

namespace moebius::text {

// Appends the characters that stand for `bytes`.
void AppendByteChars(std::string& out, std::string_view bytes);

// Appends the bytes that the characters of `token` stand for; `token` itself if one of its
// characters stands for no byte (an added token's spelling). Valid text.
void AppendCharBytes(std::string& out, std::string_view token);

}  // namespace moebius::text
