#include "bench/load/sse.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace moebius::load {
namespace {

using Events = std::vector<std::string>;

Events Parse(const std::vector<std::string>& pieces) {
  SseParser parser;
  Events events;
  for (const std::string& piece : pieces) {
    EXPECT_TRUE(parser.Push(piece, [&](std::string_view data) { events.emplace_back(data); }));
  }
  return events;
}

TEST(Sse, EventsEndAtABlankLine) {
  EXPECT_EQ(Parse({"data: a\n\ndata: b\n\n"}), (Events{"a", "b"}));
  EXPECT_EQ(Parse({"data: a\n"}), Events{});
  EXPECT_EQ(Parse({"\n\n\ndata:a\n\n\n"}), Events{"a"});
}

TEST(Sse, EveryLineEndingCounts) {
  EXPECT_EQ(Parse({"data: a\r\n\r\ndata: b\r\rdata: c\n\n"}), (Events{"a", "b", "c"}));
}

TEST(Sse, CommentsAndOtherFieldsAreLeftOut) {
  EXPECT_EQ(Parse({": ping\n\nevent: x\nid: 3\ndata: a\nretry: 5\n\n"}), Events{"a"});
}

TEST(Sse, DataLinesAreJoinedAndOneSpaceIsDropped) {
  EXPECT_EQ(Parse({"data:  a\ndata\ndata: b\n\n"}), Events{" a\n\nb"});
  EXPECT_EQ(Parse({"data:\n\n"}), Events{""});
  EXPECT_EQ(Parse({"database: a\n\n"}), Events{});
}

TEST(Sse, AByteOrderMarkMayComeFirst) {
  EXPECT_EQ(Parse({"\xEF\xBB", "\xBF", "data: a\n\n"}), Events{"a"});
}

TEST(Sse, WhereTheBytesAreCutDoesNotMatter) {
  const std::string stream =
      "\xEF\xBB\xBF: c\r\ndata: {\"a\": 1}\r\n\r\ndata: x\rdata: \xC3\xA9\r\rdata: z\n\nid: 1\n\n"
      "data: [DONE]\n\n";
  const Events whole = Parse({stream});
  ASSERT_EQ(whole.size(), 4u);
  std::mt19937_64 random(3);
  for (int trial = 0; trial < 500; ++trial) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < stream.size();) {
      const size_t size = random() % 6;
      pieces.push_back(stream.substr(at, size));
      at += size;
    }
    EXPECT_EQ(Parse(pieces), whole);
  }
}

TEST(Sse, AnEndlessEventIsRefused) {
  SseParser parser;
  const std::string piece(1 << 20, 'x');
  bool taken = true;
  for (int i = 0; i < 20 && taken; ++i) taken = parser.Push(piece, [](std::string_view) {});
  EXPECT_FALSE(taken);
  EXPECT_FALSE(parser.Push("\n\n", [](std::string_view) {}));
}

}  // namespace
}  // namespace moebius::load
