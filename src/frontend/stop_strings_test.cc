#include "frontend/stop_strings.h"

#include <gtest/gtest.h>

#include <random>

namespace moebius::frontend {
namespace {

struct Expected {
  std::string text;
  std::string match;  // empty: none
};

// The definition, spelt out: the shortest prefix that ends in a stop string, the longest stop
// string at that end.
Expected Oracle(const std::string& text, const std::vector<std::string>& stops, bool include) {
  for (size_t end = 1; end <= text.size(); ++end) {
    std::string best;
    for (const std::string& stop : stops) {
      if (stop.size() <= end && text.compare(end - stop.size(), stop.size(), stop) == 0 &&
          stop.size() > best.size()) {
        best = stop;
      }
    }
    if (!best.empty()) return {text.substr(0, include ? end : end - best.size()), best};
  }
  return {text, ""};
}

// Text seen so far may be shown up to its longest suffix that is a proper prefix of a stop string.
size_t ShowableBytes(const std::string& text, const std::vector<std::string>& stops) {
  size_t keep = 0;
  for (const std::string& stop : stops) {
    for (size_t n = std::min(stop.size() - 1, text.size()); n > keep; --n) {
      if (text.compare(text.size() - n, n, stop, 0, n) == 0) keep = n;
    }
  }
  return text.size() - keep;
}

std::string RandomText(std::mt19937& random, size_t max_length) {
  // Few letters, one of two bytes: borders and overlaps are frequent.
  static const std::vector<std::string> kLetters = {"a", "b", "ab", "é"};
  std::string text;
  const size_t length = random() % (max_length + 1);
  for (size_t i = 0; i < length; ++i) text += kLetters[random() % kLetters.size()];
  return text;
}

TEST(StopStrings, AgreesWithTheOracleForEveryCut) {
  std::mt19937 random(7);
  int num_matches = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (size_t i = random() % 4; i > 0; --i) {
      std::string stop = RandomText(random, 5);
      if (!stop.empty()) stops.push_back(stop);
    }
    const std::string text = RandomText(random, 24);
    const bool include = random() % 2 == 0;
    const Expected expected = Oracle(text, stops, include);
    num_matches += expected.match.empty() ? 0 : 1;

    StopStrings checker(stops, include);
    std::string shown;
    for (size_t begin = 0; begin < text.size() && !checker.matched();) {
      const size_t count = std::min(text.size() - begin, random() % 4);
      shown += checker.Push(std::string_view(text).substr(begin, count));
      begin += count;
      if (!checker.matched()) {
        ASSERT_EQ(shown.size(), ShowableBytes(text.substr(0, begin), stops))
            << "text '" << text.substr(0, begin) << "'";
      }
    }
    shown += checker.Flush();
    ASSERT_EQ(shown, expected.text) << "text '" << text << "'";
    ASSERT_EQ(checker.matched(), !expected.match.empty());
    if (checker.matched()) {
      ASSERT_EQ(checker.match(), expected.match);
    }
  }
  EXPECT_GT(num_matches, 2000);
}

TEST(StopStrings, HoldsBackWhatMayBeginOne) {
  StopStrings checker({"\n\nQ:"}, false);
  EXPECT_EQ(checker.Push("Answer"), "Answer");
  EXPECT_EQ(checker.Push(" 4\n"), " 4");
  EXPECT_EQ(checker.Push("\n"), "");
  EXPECT_EQ(checker.Push("\n"), "\n");  // the last two line ends may still begin it
  EXPECT_EQ(checker.Push("Q"), "");
  EXPECT_EQ(checker.Push(":more"), "");
  EXPECT_TRUE(checker.matched());
  EXPECT_EQ(checker.Push("later"), "");
  EXPECT_EQ(checker.Flush(), "");
}

TEST(StopStrings, IncludesTheStopStringOnRequest) {
  StopStrings checker({"END"}, true);
  EXPECT_EQ(checker.Push("xE"), "x");
  EXPECT_EQ(checker.Push("NDy"), "END");
}

TEST(StopStrings, BypassedTextNeitherStopsNorBeginsAStop) {
  StopStrings checker({"ab"}, false);
  EXPECT_EQ(checker.Bypass("ab a"), "ab a");
  EXPECT_EQ(checker.Push("b"), "b");
  EXPECT_EQ(checker.Push("a"), "");
  EXPECT_EQ(checker.Push("b"), "");
  EXPECT_TRUE(checker.matched());
}

TEST(StopStrings, EmptyAndBrokenOnesAreErrors) {
  EXPECT_TRUE(CheckStopStrings({"a", "终"}));
  const Status empty = CheckStopStrings({"a", ""});
  ASSERT_FALSE(empty);
  EXPECT_NE(empty.error().message().find("stop[1]"), std::string::npos);
  EXPECT_FALSE(CheckStopStrings({"\xff"}));
  EXPECT_FALSE(CheckStopStrings({"\xe7\xbb"}));
}

}  // namespace
}  // namespace moebius::frontend
