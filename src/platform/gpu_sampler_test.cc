#include "platform/gpu_sampler.h"

#include <gtest/gtest.h>

#include <thread>

namespace moebius::platform {
namespace {

// With a driver its GPUs answer; without one there is an error, and nothing else.
TEST(GpuSampler, SamplesTheGpusThereAre) {
  auto sampler = GpuSampler::Start(std::chrono::milliseconds(1));
  if (!sampler) {
    EXPECT_EQ(sampler.error().code(), ErrorCode::kUnavailable);
    return;
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const std::vector<GpuUse> uses = (*sampler)->Stop();
  ASSERT_FALSE(uses.empty());
  for (const GpuUse& use : uses) {
    EXPECT_GT(use.num_samples, 1);
    EXPECT_GT(use.watts, 0);
    EXPECT_GE(use.most_watts, use.watts);
    EXPECT_LE(use.sm_percent, 100);
  }
}

}  // namespace
}  // namespace moebius::platform
