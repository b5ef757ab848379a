#include "moe/forced_routing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "kernels/ops.h"
#include "kernels/test_util.h"

namespace moebius::moe {
namespace {

TEST(ForcedRouting, ParsesItsFlag) {
  EXPECT_EQ(ParseRouting("uniform")->zipf_exponent, 0);
  EXPECT_EQ(ParseRouting("zipf:1.25")->zipf_exponent, 1.25);
  EXPECT_EQ(ParseRouting("hot:1.8")->hot_factor, 1.8);
  for (const char* bad : {"", "zipf", "zipf:", "zipf:x", "zipf:-1", "zipf:1x", "even", "hot:0.9",
                          "hot", "zipf:nan"}) {
    const auto parsed = ParseRouting(bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_NE(parsed.error().message().find("expected uniform, zipf:A"), std::string::npos);
  }
}

TEST(ForcedRouting, ProbabilitiesFollowTheLaw) {
  const ForcedRouting routing({.zipf_exponent = 1}, {.num_layers = 3, .num_experts = 8});
  double harmonic = 0;
  for (int r = 1; r <= 8; ++r) harmonic += 1.0 / r;
  std::vector<double> first;
  for (int layer = 0; layer < 3; ++layer) {
    std::vector<double> p = routing.Probabilities(layer);
    EXPECT_NEAR(std::accumulate(p.begin(), p.end(), 0.0), 1, 1e-5);
    if (layer == 0) {
      first = p;
    } else {
      EXPECT_NE(p, first);  // another expert is popular
    }
    std::sort(p.rbegin(), p.rend());
    for (int r = 0; r < 8; ++r) {
      EXPECT_NEAR(p[static_cast<size_t>(r)], 1 / (harmonic * (r + 1)), 1e-5);
    }
  }
}

// The best of each row is a draw from the probabilities.
TEST(ForcedRouting, DrawsFollowTheProbabilities) {
  kernels::TestContext context(&kernels::RefBackend());
  for (const double exponent : {0.0, 1.2}) {
    const ForcedRouting routing({.zipf_exponent = exponent}, {.num_layers = 2, .num_experts = 16});
    const int rows = 20000;
    std::vector<TokenId> tokens(rows);
    std::vector<Position> positions(rows);
    for (int t = 0; t < rows; ++t) {
      tokens[static_cast<size_t>(t)] = t * 7 % 1000;
      positions[static_cast<size_t>(t)] = t / 5;
    }
    std::vector<float> values(rows * 16);
    const Mat logits(values.data(), DType::kF32, rows, 16);
    const auto draw = [&](size_t first, size_t count, const Mat& out) {
      kernels::DrawLogits(context.ctx(),
                          {.tokens = std::span(tokens).subspan(first, count),
                           .positions = std::span(positions).subspan(first, count),
                           .log_probabilities = routing.log_probabilities().subspan(16, 16),
                           .layer = 1,
                           .logits = out});
    };
    draw(0, tokens.size(), logits);
    std::vector<double> share(16);
    for (int t = 0; t < rows; ++t) {
      const float* row = logits.Row<float>(t);
      share[static_cast<size_t>(std::max_element(row, row + 16) - row)] += 1.0 / rows;
    }
    const std::vector<double> wished = routing.Probabilities(1);
    for (size_t e = 0; e < 16; ++e) EXPECT_NEAR(share[e], wished[e], 0.01) << exponent;
    // The same token at the same place chooses alike in any batch.
    std::vector<float> alone(16);
    draw(77, 1, Mat(alone.data(), DType::kF32, 1, 16));
    EXPECT_TRUE(std::equal(alone.begin(), alone.end(), logits.Row<float>(77)));
  }
}

// The experts of the first rank have the wished share of all tokens' k choices.
TEST(ForcedRouting, AHotRankHasItsShare) {
  kernels::TestContext context(&kernels::RefBackend());
  const struct {
    double factor;
    int num_experts, top_k, num_ranks;
  } cases[] = {{1.8, 16, 8, 2}, {1.5, 64, 8, 2}, {2.5, 64, 4, 8}};
  for (const auto& c : cases) {
    const RoutedExperts experts = {
        .num_layers = 1, .num_experts = c.num_experts, .top_k = c.top_k, .num_ranks = c.num_ranks};
    const RoutingSpec spec = {.hot_factor = c.factor};
    ASSERT_TRUE(CheckRouting(spec, experts));
    const ForcedRouting routing(spec, experts);
    const int rows = 4000;
    std::vector<TokenId> tokens(rows);
    std::vector<Position> positions(rows);
    std::iota(tokens.begin(), tokens.end(), 0);
    std::iota(positions.begin(), positions.end(), 0);
    std::vector<float> values(static_cast<size_t>(rows * c.num_experts));
    const Mat logits(values.data(), DType::kF32, rows, c.num_experts);
    kernels::DrawLogits(context.ctx(), {.tokens = tokens,
                                        .positions = positions,
                                        .log_probabilities = routing.log_probabilities(),
                                        .layer = 0,
                                        .logits = logits});
    std::vector<int> order(static_cast<size_t>(c.num_experts));
    int64_t num_hot = 0;
    for (int t = 0; t < rows; ++t) {
      const float* row = logits.Row<float>(t);
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + c.top_k, order.end(),
                        [&](int a, int b) { return row[a] > row[b]; });
      num_hot += std::count_if(order.begin(), order.begin() + c.top_k,
                               [&](int e) { return e < c.num_experts / c.num_ranks; });
    }
    const double even = static_cast<double>(rows) * c.top_k / c.num_ranks;
    EXPECT_NEAR(static_cast<double>(num_hot) / even, c.factor, 0.03 * c.factor);
  }
}

TEST(ForcedRouting, NoRankIsHotterThanItsExpertsAllow) {
  const RoutedExperts experts = {.num_layers = 1, .num_experts = 16, .top_k = 8, .num_ranks = 2};
  EXPECT_TRUE(CheckRouting({.hot_factor = 1.9}, experts));
  const Status status = CheckRouting({.hot_factor = 2}, experts);
  ASSERT_FALSE(status);
  EXPECT_NE(status.error().message().find("2 with 8 experts"), std::string::npos);
  EXPECT_FALSE(CheckRouting({.hot_factor = 1.5}, {.num_layers = 1, .num_experts = 16}));
  EXPECT_FALSE(
      CheckRouting({.hot_factor = 1.5}, {.num_layers = 1, .num_experts = 16, .num_ranks = 3}));
  EXPECT_TRUE(CheckRouting({.zipf_exponent = 2}, {.num_layers = 1, .num_experts = 16}));
}

}  // namespace
}  // namespace moebius::moe
