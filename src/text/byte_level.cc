#include "text/byte_level.h"

#include <array>
#include <cstdint>

#include "text/unicode.h"

namespace moebius::text {
namespace {

constexpr int kNumChars = 0x144;  // one past the highest character of the alphabet

struct Alphabet {
  struct Utf8Char {
    char bytes[2];
    uint8_t size;
  };
  std::array<Utf8Char, 256> of_byte;
  std::array<int16_t, kNumChars> of_char;  // -1: stands for no byte

  Alphabet() {
    of_char.fill(-1);
    char32_t next_other = 0x100;
    for (int byte = 0; byte < 256; ++byte) {
      const bool printable =
          (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const char32_t c = printable ? static_cast<char32_t>(byte) : next_other++;
      of_char[c] = static_cast<int16_t>(byte);
      const std::string utf8 = Utf8(c);
      Utf8Char& entry = of_byte[static_cast<size_t>(byte)];
      entry.size = static_cast<uint8_t>(utf8.size());
      entry.bytes[0] = utf8[0];
      entry.bytes[1] = utf8.size() > 1 ? utf8[1] : '\0';
    }
  }
};

const Alphabet& GetAlphabet() {
  static const Alphabet alphabet;
  return alphabet;
}

}  // namespace

void AppendByteChars(std::string& out, std::string_view bytes) {
  const Alphabet& alphabet = GetAlphabet();
  const size_t old_size = out.size();
  out.resize(old_size + 2 * bytes.size());
  char* to = out.data() + old_size;
  for (const char byte : bytes) {
    const Alphabet::Utf8Char& c = alphabet.of_byte[static_cast<uint8_t>(byte)];
    to[0] = c.bytes[0];
    to[1] = c.bytes[1];
    to += c.size;
  }
  out.resize(static_cast<size_t>(to - out.data()));
}

void AppendCharBytes(std::string& out, std::string_view token) {
  const Alphabet& alphabet = GetAlphabet();
  const size_t old_size = out.size();
  for (size_t pos = 0; pos < token.size();) {
    const CodePoint c = DecodeAt(token, pos);
    const int byte = c.value < kNumChars ? alphabet.of_char[c.value] : -1;
    if (byte < 0) {
      out.resize(old_size);
      out += token;
      return;
    }
    out += static_cast<char>(byte);
    pos += static_cast<size_t>(c.size);
  }
}

}  // namespace moebius::text
