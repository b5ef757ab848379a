#include "rank/expert_counts.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace moebius::rank {
namespace {

TEST(ExpertCounts, AddUpRanks) {
  std::vector<int64_t> memory(ExpertCounts::NumBytes(3, 3, 4) / sizeof(int64_t));
  const ExpertCounts counts(std::as_writable_bytes(std::span(memory)), 3, 3, 4);
  EXPECT_EQ(counts.Sum().num_layers(), 0);
  moe::ExpertStats stats(2, 4);
  stats.Count(1, std::vector<int32_t>{0, 3, 3});
  counts.Publish(0, stats);
  counts.Publish(2, stats);
  stats.Count(0, std::vector<int32_t>{2});
  counts.Publish(2, stats);  // its new counts, in place of the old ones
  const moe::ExpertStats sum = counts.Sum();
  EXPECT_EQ(sum.num_layers(), 2) << "one fewer than there is room for";
  EXPECT_EQ(std::vector<int64_t>(sum.Layer(0).begin(), sum.Layer(0).end()),
            (std::vector<int64_t>{0, 0, 1, 0}));
  EXPECT_EQ(std::vector<int64_t>(sum.Layer(1).begin(), sum.Layer(1).end()),
            (std::vector<int64_t>{2, 0, 0, 4}));
  const std::vector<moe::ExpertStats> each = counts.OfEach();
  ASSERT_EQ(each.size(), 3u);
  EXPECT_EQ(each[0].Layer(1)[3], 2);
  EXPECT_EQ(each[1].num_layers(), 0);
  EXPECT_EQ(each[2].Layer(0)[2], 1);
}

TEST(ExpertCounts, ADenseModelHasNone) {
  std::vector<int64_t> memory(8);
  const ExpertCounts counts(std::as_writable_bytes(std::span(memory)), 8, 0, 0);
  counts.Publish(3, moe::ExpertStats());
  EXPECT_EQ(counts.Sum().num_layers(), 0);
}

TEST(ExpertCounts, AreReadWhileTheyAreWritten) {
  std::vector<int64_t> memory(ExpertCounts::NumBytes(2, 1, 8) / sizeof(int64_t));
  const ExpertCounts counts(std::as_writable_bytes(std::span(memory)), 2, 1, 8);
  std::atomic<bool> ends = false;
  std::thread reader([&] {
    int64_t last = 0;
    while (!ends) {
      const moe::ExpertStats sum = counts.Sum();
      const int64_t now = sum.num_layers() > 0 ? sum.Layer(0)[5] : 0;
      EXPECT_GE(now, last);
      last = now;
    }
  });
  moe::ExpertStats stats(1, 8);
  for (int i = 0; i < 5000; ++i) {
    stats.Count(0, std::vector<int32_t>{5});
    counts.Publish(1, stats);
  }
  ends = true;
  reader.join();
  EXPECT_EQ(counts.Sum().Layer(0)[5], 5000);
}

}  // namespace
}  // namespace moebius::rank
