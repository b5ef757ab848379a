#include "text/regex.h"

#include <gtest/gtest.h>

#include "text/regex_syntax.h"

namespace moebius::text {
namespace {

std::vector<std::string> Matches(std::string_view pattern, std::string_view text) {
  const Result<Regex> regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.has_value()) << regex.error().message();
  if (!regex) return {};
  RegexScratch scratch;
  std::vector<Span> spans;
  regex->FindAll(text, scratch, spans);
  std::vector<std::string> found;
  for (const Span& span : spans) found.emplace_back(text.substr(span.begin, span.size()));
  return found;
}

using Found = std::vector<std::string>;

// Where Oniguruma and PCRE2 differ, Oniguruma's meaning counts.
TEST(RegexTest, OnigurumaMeanings) {
  EXPECT_EQ(Matches(R"(\s)", "a\u180E\u0085\u3000"), (Found{"\u0085", "\u3000"}));
  EXPECT_EQ(Matches(R"([^\s]+)", "a\u180Eb\u0085c"), (Found{"a\u180Eb", "c"}));
  EXPECT_EQ(Matches(R"(\h+)", "xbeef \t"), (Found{"beef"}));
  EXPECT_EQ(Matches(R"(\w+)", "e\u0301_9\u203F-"), (Found{"e\u0301_9\u203F"}));
  EXPECT_EQ(Matches(R"(^a$)", "a\nb\na"), (Found{"a", "a"}));
  EXPECT_EQ(Matches(R"(a{2}?)", "aaaaa"), (Found{"aa", "aa", ""})) << "an optional pair";
  EXPECT_EQ(Matches(R"((ab){1,2}+c)", "abababc"), (Found{"abababc"})) << "not possessive";
  EXPECT_EQ(Matches(R"(a{,2}b)", "aab"), (Found{"aab"}));
  EXPECT_EQ(Matches(R"(a{x)", "a{x"), (Found{"a{x"}));
  EXPECT_EQ(Matches(R"(\p{Han}+)", "漢字。かな"), (Found{"漢字"})) << "the script, no extensions";
  EXPECT_EQ(Matches(R"([\p{L}&&[^\p{Han}]]+)", "ab漢c"), (Found{"ab", "c"}));
  EXPECT_EQ(Matches(R"(\v|\u00e9)", "\x0B\n\u0085é"), (Found{"\x0B", "é"}));
}

TEST(RegexTest, EmptyMatchesAdvance) {
  EXPECT_EQ(Matches("x*", "axé"), (Found{"", "x", ""}));
  EXPECT_EQ(Matches("(?=b)", "abb"), (Found{"", ""}));
}

// Characters that came after PCRE2's tables.
TEST(RegexTest, YoungCharactersHaveTheirCategory) {
  EXPECT_EQ(Matches(R"(\p{S}+)", "a\U0001FAE8b"), (Found{"\U0001FAE8"}));
  EXPECT_EQ(Matches(R"(\p{Han})", "\U00031350"), (Found{"\U00031350"}));
  EXPECT_EQ(Matches(R"(\p{Nd})", "\U00010D40"), (Found{"\U00010D40"}));
}

TEST(RegexTest, UnsupportedIsQuoted) {
  for (const char* pattern : {R"(\bword)", R"((?<name>a))", R"((?m:a))", R"([[:alpha:]])",
                              R"([a[bc]])", R"(a\1)", "(a", "a)", "[a", "*a", R"(\p{Nonsense})",
                              R"(\K)", "(*FAIL)", "[]", "(?i)a", "a(?", "\\", "[\\"}) {
    const Result<Regex> regex = Regex::Compile(pattern);
    ASSERT_FALSE(regex.has_value()) << pattern;
    EXPECT_NE(regex.error().message().find(pattern), std::string::npos);
  }
  const std::string deep(100'000, '(');
  EXPECT_FALSE(Regex::Compile(deep).has_value());
  const std::string classes(100'000, '[');
  EXPECT_FALSE(Regex::Compile(classes).has_value());
}

TEST(RegexTest, LongMatchesNeedNoDeepStack) {
  const std::string text(300'000, 'a');
  EXPECT_EQ(Matches(R"((?:a|b)+)", text).size(), 1u);
}

TEST(RegexTest, LiteralsAreNoPatterns) {
  const Regex literal = Regex::Literal("a.");
  RegexScratch scratch;
  std::vector<Span> spans;
  literal.FindAll("aba.a.", scratch, spans);
  ASSERT_EQ(spans.size(), 2u);
  EXPECT_EQ(spans[0].begin, 2u);
}

}  // namespace
}  // namespace moebius::text
