#include "text/unicode.h"

#include <gtest/gtest.h>

#include "text/byte_level.h"

namespace moebius::text {
namespace {

// The cases of the Unicode standard, section 3.9, tables 3-8 to 3-11.
TEST(UnicodeTest, MalformedSequencesByMaximalSubpart) {
  const std::string r(kReplacementChar);
  EXPECT_EQ(ReplaceMalformed("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ReplaceMalformed("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41"),
            r + r + r + r + r + r + r + r + "A");
  EXPECT_EQ(ReplaceMalformed("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42"),
            r + r + r + r + r + "A" + r + r + "B");
  EXPECT_EQ(ReplaceMalformed("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"), r + r + r + r + "A");
  EXPECT_EQ(ReplaceMalformed("a\xE4\xBD"), "a" + r);
  EXPECT_EQ(ReplaceMalformed("plain 你 \U0001F600"), "plain 你 \U0001F600");
}

TEST(UnicodeTest, EveryCodePointThereAndBack) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string text = Utf8(c);
    ASSERT_EQ(ValidPrefix(text), text.size()) << static_cast<uint32_t>(c);
    ASSERT_EQ(DecodeAt(text, 0).value, c);
    ASSERT_EQ(DecodeBefore("x" + text, text.size() + 1).value, c);
  }
}

TEST(UnicodeTest, NormalForms) {
  EXPECT_EQ(Normalize("e\u0301\u0323x", NormalForm::kNfc), "\u1EB9\u0301x");
  EXPECT_EQ(Normalize("\u1EB9\u0301", NormalForm::kNfd), "e\u0323\u0301");
  EXPECT_EQ(Normalize("\u1100\u1161\u11A8", NormalForm::kNfc), "\uAC01");
  EXPECT_EQ(Normalize("\uBE28\u11A7", NormalForm::kNfc), "\uBE28\u11A7") << "not a final";
  EXPECT_EQ(Normalize("\u0344", NormalForm::kNfc), "\u0308\u0301");
  EXPECT_EQ(Normalize("\uFB01 \u00BD", NormalForm::kNfkc), "fi 1\u20442");
  EXPECT_EQ(Normalize("\uFB01", NormalForm::kNfc), "\uFB01");
  const std::string plain("plain\0你好 \U0001F600", 18);
  EXPECT_EQ(Normalize(plain, NormalForm::kNfc), plain);
}

// Marks in descending order of class: ordering them one swap at a time would be quadratic.
TEST(UnicodeTest, LongRunsOfMarksAreOrderedFast) {
  std::string text = "a";
  for (int i = 0; i < 200'000; ++i) text += i % 2 == 0 ? "\u0345" : "\u0327";
  const std::string sorted = Normalize(text, NormalForm::kNfd);
  EXPECT_EQ(sorted.size(), text.size());
  EXPECT_EQ(sorted.substr(1, 2), "\u0327");
  EXPECT_EQ(sorted.substr(sorted.size() - 2), "\u0345");
}

TEST(UnicodeTest, Lowercase) { EXPECT_EQ(text::Lowercase("ÀBΣ\u0130Ⅷ"), "àbσi\u0307ⅷ"); }

TEST(ByteLevelTest, EveryByteThereAndBack) {
  for (int i = 0; i < 256; ++i) {
    const char byte = static_cast<char>(i);
    std::string chars, bytes;
    AppendByteChars(chars, {&byte, 1});
    AppendCharBytes(bytes, chars);
    EXPECT_EQ(bytes, std::string(1, byte));
  }
  std::string chars, bytes;
  AppendByteChars(chars, " \n");
  EXPECT_EQ(chars, "ĠĊ");
  AppendCharBytes(bytes, "Ġ｜");
  EXPECT_EQ(bytes, "Ġ｜") << "no byte has '｜', so the token stands for itself";
}

}  // namespace
}  // namespace moebius::text
