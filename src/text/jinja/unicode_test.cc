#include "text/jinja/unicode.h"

#include <gtest/gtest.h>

#include <string>

namespace moebius::text::jinja {
namespace {

// A sum over the first three planes, which changes with every one: compared with Python's, made by
//   sum(pow(31, c, 2**61 - 1) for c in range(0x30000) if PREDICATE(chr(c)) and not 0xd800 <= c <
//   0xe000) % (2**61 - 1)
constexpr uint64_t kPrime = (uint64_t{1} << 61) - 1;
uint64_t Multiply(uint64_t a, uint64_t b) {
  return static_cast<uint64_t>(static_cast<unsigned __int128>(a) * b % kPrime);
}
template <typename Term>
uint64_t Fingerprint(Term term) {
  uint64_t sum = 0;
  uint64_t power = 1;
  for (uint32_t code = 0; code < 0x30000; ++code, power = Multiply(power, 31)) {
    if (code < 0xD800 || code >= 0xE000) sum = (sum + Multiply(power, term(code))) % kPrime;
  }
  return sum;
}

TEST(Unicode, PropertiesAreThoseOfPython) {
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsAlpha(code)}; }),
            858220801818624617u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsDecimal(code)}; }),
            1123336699772442610u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsDigit(code)}; }),
            1957268484854935761u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsNumeric(code)}; }),
            99483064803411249u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsAlnum(code)}; }),
            405242891128938826u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsSpace(code)}; }),
            1251501931003256277u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsLower(code)}; }),
            2168348395260853682u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsUpper(code)}; }),
            489788879522347624u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsTitle(code)}; }),
            463766743882401827u);
  EXPECT_EQ(Fingerprint([](uint32_t code) { return uint64_t{IsPrintable(code)}; }),
            1339429518005603468u);
}

// The term of a character: its mapping's code points, read as digits of base 0x110000.
template <std::string (*kMap)(std::string_view)>
uint64_t MappingFingerprint() {
  return Fingerprint([](uint32_t code) {
    std::string text;
    AppendCode(text, code);
    text = kMap(text);
    uint64_t term = 0;
    for (size_t at = 0; at < text.size(); at += CharSize(text, at)) {
      term = (Multiply(term, 0x110000) + CodeAt(text, at)) % kPrime;
    }
    return term;
  });
}

TEST(Unicode, CasesAreThoseOfPython) {
  EXPECT_EQ(MappingFingerprint<ToUpper>(), 1362314450702470335u);
  EXPECT_EQ(MappingFingerprint<ToLower>(), 699425959149454342u);
  EXPECT_EQ(MappingFingerprint<ToTitle>(), 290267393975777701u);
  EXPECT_EQ(MappingFingerprint<ToCapitalized>(), 290267393975777701u);
  EXPECT_EQ(MappingFingerprint<ToSwappedCase>(), 750538359025206539u);
}

TEST(Unicode, CutsInvalidTextIntoBytes) {
  for (const std::string text : {"\x80", "\xc0\x80", "\xc3", "\xe0\x80\x80", "\xed\xa0\x80",
                                 "\xf4\x90\x80\x80", "\xf0\x9f\x98"}) {
    EXPECT_EQ(NumChars(text), text.size());
  }
  EXPECT_EQ(NumChars("\xf0\x9f\x98\x80"), 1u);
  EXPECT_EQ(CodeAt("\xf0\x9f\x98\x80", 0), 0x1F600u);
}

TEST(Unicode, Strips) {
  EXPECT_EQ(Strip("\xe3\x80\x80 a\xc2\xa0\xe2\x80\x83", Side::kBoth), "a");
  EXPECT_EQ(Strip(" \n", Side::kRight), "");
  EXPECT_EQ(Strip("a\xff ", Side::kRight), "a\xff");
  EXPECT_EQ(StripChars("éaé你é", "é", Side::kRight), "éaé你");
  EXPECT_EQ(StripChars("xyx", "", Side::kBoth), "xyx");
}

}  // namespace
}  // namespace moebius::text::jinja
