#include "rank/links.h"

#include <gtest/gtest.h>

#include "rank/rank_start.h"
#include "rank/testing/golden_ranks.h"

namespace moebius::rank {
namespace {

TEST(LinksShape, ALetterHoldsAStepOfAGpuWithItsPadding) {
  RankOptions options = testing::GoldenOptions(testing::Parallel(1, 1, 2, false));
  options.engine.max_num_batched_tokens = 250;
  options.engine.max_num_seqs = 250;
  const auto on_cpu = ShapeOf(options);
  ASSERT_TRUE(on_cpu) << on_cpu.error().message();
  kernels::Backend backend = *options.load.backend;
  backend.on_host = false;
  options.load.backend = &backend;
  EXPECT_EQ(ShapeOf(options)->stage_bytes, on_cpu->stage_bytes / 250 * 256);
}

TEST(LinksShape, OnlyGpusSumAndOnlyWhereBitsMayDiffer) {
  RankOptions options = testing::GoldenOptions(testing::Parallel(2, 1, 1, false));
  kernels::Backend backend = *options.load.backend;
  options.load.backend = &backend;
  for (const bool on_host : {false, true}) {
    for (const bool deterministic : {false, true}) {
      backend.on_host = on_host;
      options.deterministic = deterministic;
      const DeploymentShape shape = *ShapeOf(options);
      EXPECT_EQ(shape.sums, !on_host && !deterministic);
      EXPECT_EQ(Links::ShardOf(shape, RankId(1)).sums, shape.sums);
    }
  }
}

}  // namespace
}  // namespace moebius::rank
