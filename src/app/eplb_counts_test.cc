#include "app/eplb_counts.h"

#include <gtest/gtest.h>

namespace moebius::app {
namespace {

// Two ranks, layers 1 and 3 of two experts.
std::string CountsBody(const std::string& first_rank) {
  return R"({"num_experts": 2, "num_experts_per_token": 1, "layers": [1, 3], "epoch": 0, "ranks": [)" +
         first_rank + R"(, {"decode": [[0, 0], [0, 1]], "prefill": [[10, 20], [30, 40]]}]})";
}

ServerCounts CountsOf(const std::string& first_rank, CountedPhase phase = CountedPhase::kAll) {
  auto counts = ParseServerCounts(CountsBody(first_rank), phase);
  EXPECT_TRUE(counts) << counts.error().message();
  return counts ? std::move(*counts) : ServerCounts();
}

std::string CountsError(const std::string& body) {
  const auto counts = ParseServerCounts(body, CountedPhase::kAll);
  EXPECT_FALSE(counts) << body;
  return counts ? "" : counts.error().message();
}

constexpr const char* kRank = R"({"decode": [[1, 2], [3, 4]], "prefill": [[5, 6], [7, 8]]})";
constexpr const char* kLater = R"({"decode": [[1, 2], [3, 9]], "prefill": [[6, 6], [7, 8]]})";

TEST(ServerCounts, Phases) {
  EXPECT_EQ(CountsOf(kRank).layers, (std::vector<int>{1, 3}));
  EXPECT_EQ(CountsOf(kRank).ranks[0], (plan::LayerCounts{{6, 8}, {10, 12}}));
  EXPECT_EQ(CountsOf(kRank).ranks[1], (plan::LayerCounts{{10, 20}, {30, 41}}));
  EXPECT_EQ(CountsOf(kRank, CountedPhase::kDecode).ranks[0], (plan::LayerCounts{{1, 2}, {3, 4}}));
  EXPECT_EQ(CountsOf(kRank, CountedPhase::kPrefill).ranks[0], (plan::LayerCounts{{5, 6}, {7, 8}}));
}

TEST(ServerCounts, Errors) {
  EXPECT_TRUE(CountsError("not JSON").starts_with("the counts: no JSON object"));
  EXPECT_EQ(CountsError(R"({"num_experts": 2, "num_experts_per_token": 1})"),
            "layers: expected the indices of one layer or more");
  EXPECT_EQ(CountsError(R"({"num_experts": 2, "num_experts_per_token": 1, "layers": [3, 1]})"),
            "layers: entry 1 is 1, expected ascending indices");
  EXPECT_EQ(CountsError(R"({"num_experts": 2, "num_experts_per_token": 1, "layers": [1]})"),
            "the counts: ranks: expected one or more");
  EXPECT_EQ(CountsError(CountsBody("7")),
            "the counts: rank 0: decode: expected a list for each of 2 layers");
  EXPECT_EQ(CountsError(CountsBody(R"({"decode": [[1, 2], [3, 4]]})")),
            "the counts: rank 0: prefill: expected a list for each of 2 layers");
  EXPECT_EQ(CountsError(CountsBody(R"({"decode": [[1, 2], [3]]})")),
            "the counts: rank 0: decode: entry 1: expected 2 counts, one an expert");
  EXPECT_EQ(CountsError(CountsBody(R"({"decode": [[1, 2], [3, -4]]})")),
            "the counts: rank 0: decode: entry 1: expert 1 has -4, expected tokens");
}

TEST(CountRecorder, DifferencesOfTotals) {
  CountRecorder recorder(CountsOf(kRank));
  ASSERT_TRUE(recorder.Add(CountsOf(kRank)));  // nothing came: no iteration
  EXPECT_EQ(recorder.num_iterations(), 0u);
  ASSERT_TRUE(recorder.Add(CountsOf(kLater)));
  ASSERT_EQ(recorder.num_iterations(), 1u);
  EXPECT_EQ(recorder.ranks()[0].iterations[0], (plan::LayerCounts{{1, 0}, {0, 5}}));
  EXPECT_EQ(recorder.ranks()[1].iterations[0], (plan::LayerCounts{{0, 0}, {0, 0}}));
  EXPECT_EQ(recorder.num_tokens(), 6);
  EXPECT_EQ(recorder.num_bytes(), 2u * 2 * 2 * 8);

  EXPECT_EQ(recorder.Add(CountsOf(kRank)).error().message(),
            "rank 0, layer 1: expert 0 has 6 tokens, 7 before: the server was started anew");
  ServerCounts fewer = CountsOf(kLater);
  fewer.ranks.pop_back();
  EXPECT_EQ(recorder.Add(fewer).error().message(),
            "1 ranks, 2 layers of 2 experts are counted now, expected 2, 2 of 2 as before: it is "
            "another server");
}

}  // namespace
}  // namespace moebius::app
