#include "bench/load/answer_reader.h"

#include <gtest/gtest.h>

#include <random>

namespace moebius::load {
namespace {

// A completions chunk with this text; `usage` completion tokens if not negative.
std::string Chunk(const std::string& text, int usage = -1, const std::string& finish = "null") {
  std::string chunk = R"({"object":"text_completion","choices":[{"index":0,"text":")" + text +
                      R"(","finish_reason":)" + finish + "}]";
  if (usage >= 0) {
    chunk += R"(,"usage":{"prompt_tokens":7,"completion_tokens":)" + std::to_string(usage) + "}";
  }
  return "data: " + chunk + "}\n\n";
}

std::string Usage(int completion) {
  return R"(data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":)" +
         std::to_string(completion) + R"(,"prompt_tokens_details":{"cached_tokens":4}}})" + "\n\n";
}

std::string Delta(const std::string& delta, const std::string& finish = "null") {
  return R"(data: {"choices":[{"index":0,"delta":{)" + delta + R"(},"finish_reason":)" + finish +
         "}]}\n\n";
}

constexpr const char* kDone = "data: [DONE]\n\n";

// One piece a second, beginning at 1.
RequestRecord Read(const std::vector<std::string>& pieces, int status = 200, Status end = {}) {
  RequestRecord record;
  AnswerReader reader(&record, true);
  reader.OnHead(status);
  double now = 0;
  for (const std::string& piece : pieces) reader.OnData(piece, ++now);
  reader.OnEnd(end, ++now);
  return record;
}

TEST(AnswerReader, TokensComeFromUsageAndEventsFromChunks) {
  const RequestRecord record =
      Read({Chunk("a"), Chunk("b"), Chunk("c", -1, "\"length\""), Usage(3), kDone});
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.text, "abc");
  EXPECT_EQ(record.events.size(), 3u);
  EXPECT_EQ(record.output_tokens, 3);
  EXPECT_EQ(record.prompt_tokens, 7);
  EXPECT_EQ(record.cached_tokens, 4);
  EXPECT_EQ(record.finish_reason, "length");
  EXPECT_DOUBLE_EQ(record.Ttft(), 1);
  EXPECT_DOUBLE_EQ(record.Tpot(), 1);
  EXPECT_DOUBLE_EQ(record.EndToEnd(), 3);
}

TEST(AnswerReader, TokensOfFewerChunksAreSpread) {
  const RequestRecord record = Read({Chunk("ab"), Chunk("cd"), Usage(6), kDone});
  ASSERT_EQ(record.events.size(), 2u);
  EXPECT_DOUBLE_EQ(record.events[0].tokens, 3);
  EXPECT_DOUBLE_EQ(record.events[1].tokens, 3);
  EXPECT_FALSE(record.exact_events);
  EXPECT_DOUBLE_EQ(record.Tpot(), 1.0 / 5);
}

TEST(AnswerReader, UsageWithEveryChunkSaysWhatEachCarried) {
  const RequestRecord record =
      Read({Chunk("abc", 3), Chunk("", 3), Chunk("d", 4), Usage(4), kDone});
  ASSERT_EQ(record.events.size(), 2u);
  EXPECT_DOUBLE_EQ(record.events[0].tokens, 3);
  EXPECT_DOUBLE_EQ(record.events[1].tokens, 1);
  EXPECT_DOUBLE_EQ(record.events[1].time, 3);
  EXPECT_TRUE(record.exact_events);
}

TEST(AnswerReader, WithoutUsageTheEventsCount) {
  const RequestRecord record = Read({Chunk("a"), Chunk("b"), kDone});
  EXPECT_TRUE(record.ok());
  EXPECT_FALSE(record.has_usage);
  EXPECT_EQ(record.output_tokens, 2);
}

TEST(AnswerReader, ARoleIsNoTokenAndReasoningIs) {
  const RequestRecord record =
      Read({Delta(R"("role":"assistant","content":"")"), Delta(R"("reasoning_content":"hm")"),
            Delta(R"("content":"5")"), Delta("", "\"stop\""), Usage(3), kDone});
  EXPECT_TRUE(record.ok()) << record.error;
  EXPECT_EQ(record.events.size(), 3u);  // the last is the end token's
  EXPECT_DOUBLE_EQ(record.Ttft(), 2);
  EXPECT_EQ(record.text, "hm5");
}

TEST(AnswerReader, ARoleThatComesWithTextIsAToken) {
  const RequestRecord record = Read({Delta(R"("role":"assistant","content":"5")"), kDone});
  EXPECT_EQ(record.events.size(), 1u);
}

TEST(AnswerReader, AnErrorInsideHttp200Fails) {
  const RequestRecord record = Read(
      {Chunk("a"), "data: {\"error\": {\"message\": \"engine died\", \"code\": 500}}\n\n", kDone});
  EXPECT_EQ(record.outcome, Outcome::kStreamError);
  EXPECT_EQ(record.error, "engine died");
}

TEST(AnswerReader, StatusesHaveTheirClasses) {
  const std::string body = R"({"error": {"message": "no place", "type": "x"}})";
  EXPECT_EQ(Read({body}, 429).outcome, Outcome::kRateLimited);
  EXPECT_EQ(Read({body}, 503).outcome, Outcome::kServerError);
  EXPECT_EQ(Read({body}, 400).outcome, Outcome::kClientError);
  EXPECT_EQ(Read({body}, 504).outcome, Outcome::kTimeout);
  EXPECT_EQ(Read({body}, 429).error, "HTTP 429: no place");
}

TEST(AnswerReader, ACutStreamIsBroken) {
  EXPECT_EQ(Read({Chunk("a")}).outcome, Outcome::kBroken);
  EXPECT_EQ(Read({Chunk("a"), "data: {\"cho"}).outcome, Outcome::kBroken);
  const Status reset = MakeError(ErrorCode::kUnavailable, "connection reset");
  EXPECT_EQ(Read({Chunk("a")}, 200, reset).outcome, Outcome::kBroken);
  const Status late = MakeError(ErrorCode::kDeadline, "too late");
  EXPECT_EQ(Read({Chunk("a")}, 200, late).outcome, Outcome::kTimeout);
}

TEST(AnswerReader, AnAnswerWithoutATokenIsEmpty) {
  EXPECT_EQ(Read({kDone}).outcome, Outcome::kEmpty);
  EXPECT_EQ(Read({}).outcome, Outcome::kEmpty);
  EXPECT_EQ(Read({"{\"choices\": [{\"text\": \"not a stream\"}]}"}).ok(), false);
}

TEST(AnswerReader, WhatAServerClaimsIsBounded) {
  const RequestRecord record =
      Read({Chunk("a"),
            "data: {\"choices\": [], \"usage\": {\"completion_tokens\": -5, \"prompt_tokens\": "
            "99999999999999}}\n\n",
            kDone});
  EXPECT_EQ(record.output_tokens, 0);
  EXPECT_LE(record.prompt_tokens, int64_t{1} << 31);
}

// Whatever bytes come, however they are cut: one outcome, no crash, events in order.
TEST(AnswerReader, AnyBytesHaveAnOutcome) {
  const std::string good = Chunk("a", 1) + Delta(R"("content":"b")") + ": c\r\n\r\n" +
                           Chunk("", 2, "\"stop\"") + Usage(2) + kDone;
  std::mt19937_64 random(9);
  for (int trial = 0; trial < 2000; ++trial) {
    std::string stream = good;
    for (uint64_t i = 0; i < random() % 6; ++i) {
      const size_t at = random() % stream.size();
      switch (random() % 3) {
        case 0:
          stream[at] = static_cast<char>(random());
          break;
        case 1:
          stream.erase(at, random() % 20);
          break;
        default:
          stream.insert(at, stream.substr(random() % stream.size(), random() % 40));
      }
      if (stream.empty()) stream = "x";
    }
    std::vector<std::string> pieces;
    for (size_t at = 0; at < stream.size(); at += pieces.back().size()) {
      pieces.push_back(stream.substr(at, 1 + random() % 50));
    }
    const RequestRecord record = Read(pieces);
    EXPECT_EQ(record.ok(), record.error.empty());
    EXPECT_GE(record.output_tokens, 0);
    for (size_t i = 1; i < record.events.size(); ++i) {
      EXPECT_GE(record.events[i].time, record.events[i - 1].time);
    }
  }
}

TEST(AnswerReader, GarbageIsNamed) {
  const RequestRecord record = Read({"data: <html>\n\n", kDone});
  EXPECT_EQ(record.outcome, Outcome::kStreamError);
  EXPECT_NE(record.error.find("<html>"), std::string::npos);
}

}  // namespace
}  // namespace moebius::load
