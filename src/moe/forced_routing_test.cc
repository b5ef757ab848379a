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
  for (const char* bad : {"", "zipf", "zipf:", "zipf:x", "zipf:-1", "zipf:1x", "even"}) {
    const auto parsed = ParseRouting(bad);
    ASSERT_FALSE(parsed) << bad;
    EXPECT_NE(parsed.error().message().find("expected uniform or zipf:A"), std::string::npos);
  }
}

TEST(ForcedRouting, ProbabilitiesFollowTheLaw) {
  const ForcedRouting routing({1.0}, 3, 8);
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
    const ForcedRouting routing({exponent}, 2, 16);
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

}  // namespace
}  // namespace moebius::moe
