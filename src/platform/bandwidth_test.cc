#include "platform/bandwidth.h"

#include <gtest/gtest.h>

namespace moebius::platform {
namespace {

TEST(Bandwidth, IsWithinWhatAMachineCanDo) {
  const std::unique_ptr<ThreadPool> pool = ThreadPool::Create();
  BandwidthOptions options;
  options.num_bytes =
      size_t{16} << 20;  // may lie in a cache: this test is about sanity, not about memory
  options.seconds_each = 0.01;
  const Result<Bandwidth> bandwidth = MeasureReadBandwidth(*pool, options);
  ASSERT_TRUE(bandwidth) << bandwidth.error().message();
  EXPECT_EQ(bandwidth->num_bytes, options.num_bytes);
  EXPECT_GT(bandwidth->one_thread, 1e7);  // a sanitizer's build on a busy machine
  EXPECT_LT(bandwidth->one_thread, 1e13);
  EXPECT_GT(bandwidth->all_threads, 1e7);
  EXPECT_LT(bandwidth->all_threads, 1e14);
}

TEST(Bandwidth, ABufferThatDoesNotFitIsAnError) {
  const std::unique_ptr<ThreadPool> pool = ThreadPool::Create({0});
  BandwidthOptions options;
  options.num_bytes = size_t{1} << 50;
  const Result<Bandwidth> bandwidth = MeasureReadBandwidth(*pool, options);
  ASSERT_FALSE(bandwidth);
  EXPECT_EQ(bandwidth.error().code(), ErrorCode::kOutOfMemory);
}

}  // namespace
}  // namespace moebius::platform
