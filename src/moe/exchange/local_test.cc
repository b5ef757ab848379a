#include "moe/exchange/local.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/backend.h"

namespace moebius::moe {
namespace {

// Experts that multiply by their slot + 1: what comes home is the weighted sum of the choices.
TEST(LocalExchange, BringsEveryRowHome) {
  const auto pool = platform::ThreadPool::Create({0});
  std::vector<std::byte> memory(1 << 20);
  Arena arena(memory.data(), memory.size());
  kernels::ExecContext ctx;
  ctx.backend = &kernels::RefBackend();
  ctx.pool = pool.get();
  ctx.workspace = &arena;

  std::vector<float> rows = {1, 10, 2, 20, 3, 30};  // three tokens, H = 2
  const std::vector<int32_t> slots = {3, 0, 0, 3, -1, 2};
  const std::vector<float> weights = {0.5f, 2, 1, 4, 8, 0.25f};
  LocalExchange exchange;
  const size_t before = arena.used();
  const DispatchedRows work = exchange.Dispatch(ctx,
                                                {.rows = Mat(rows.data(), DType::kF32, 3, 2),
                                                 .slots = slots,
                                                 .weights = weights,
                                                 .k = 2,
                                                 .num_slots = 4},
                                                arena);
  EXPECT_LE(arena.used() - before, exchange.ArenaBytes(3, 2, 4));
  EXPECT_EQ(exchange.num_expert_rows(), 5);
  EXPECT_EQ(exchange.num_home_rows(), 5);
  EXPECT_EQ(std::vector<int32_t>(work.offsets.begin(), work.offsets.end()),
            (std::vector<int32_t>{0, 2, 2, 3, 5}));
  std::vector<float> expert_rows(6 * 2, -1000);
  for (int s = 0; s < 4; ++s) {
    for (int32_t place = work.offsets[static_cast<size_t>(s)];
         place < work.offsets[static_cast<size_t>(s) + 1]; ++place) {
      const int64_t row = work.pairs[static_cast<size_t>(place)] / work.rows_per_pair;
      for (int64_t c = 0; c < 2; ++c) {
        expert_rows[static_cast<size_t>(place * 2 + c)] =
            work.rows.Row<float>(row)[c] * static_cast<float>(s + 1);
      }
    }
  }
  std::vector<float> out(6, -1);
  CombineArgs combine;
  combine.expert_rows = Mat(expert_rows.data(), DType::kF32, 6, 2);
  combine.out = Mat(out.data(), DType::kF32, 3, 2);
  exchange.Combine(ctx, combine);
  EXPECT_EQ(
      out, (std::vector<float>{1 * (0.5f * 4 + 2 * 1), 10 * (0.5f * 4 + 2 * 1), 2 * (1 * 1 + 4 * 4),
                               20 * (1 * 1 + 4 * 4), 3 * (0.25f * 3), 30 * (0.25f * 3)}));

  // With what follows: added to a stream of ones, and normed.
  std::vector<float> stream(6, 1);
  std::vector<float> normed(6, -1);
  combine.norm = {.x = combine.out,
                  .residual = Mat(stream.data(), DType::kF32, 3, 2),
                  .weight = {},
                  .out = Mat(normed.data(), DType::kF32, 3, 2)};
  const std::vector<float> sums = out;
  exchange.Combine(ctx, combine);
  for (size_t row = 0; row < 3; ++row) {
    const float a = sums[2 * row] + 1;
    const float b = sums[2 * row + 1] + 1;
    EXPECT_EQ(stream[2 * row], a);
    EXPECT_EQ(stream[2 * row + 1], b);
    const float scale = 1 / std::sqrt((a * a + b * b) / 2 + combine.norm.eps);
    EXPECT_NEAR(normed[2 * row], a * scale, 1e-6);
    EXPECT_NEAR(normed[2 * row + 1], b * scale, 1e-6);
  }
}

}  // namespace
}  // namespace moebius::moe
