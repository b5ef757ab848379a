// Gathers between the GPUs of this machine: every byte, any width, more than fits at once; and what
// happens when a member does not come.
#include "comm/cuda/device_communicator.h"

#include <gtest/gtest.h>

#include "comm/cuda/testing/device_members.h"

namespace moebius::comm {
namespace {

using platform::cuda::DeviceMemory;
using platform::cuda::DeviceMemorySpace;
using platform::cuda::SelectDevice;
using testing::GatherOnce;
using testing::kSize;
using testing::kWaitLimit;
using testing::Members;
using testing::Place;

TEST_F(Members, GatherRowsAndColumnsOfAnyWidth) {
  const std::vector<DeviceMemory> matrices = AllocateEach(size_t{1} << 20);
  ASSERT_EQ(matrices.size(), size_t{kSize});
  RunAll([&](int rank) {
    const auto r = static_cast<size_t>(rank);
    const Place place{*comms_[r], streams_[r], matrices[r].data()};
    int call = 0;
    for (const int64_t rows : {1, 3, 17, 300}) {
      for (const int64_t cols : {2, 24, 129, 1000}) {
        GatherOnce(place, true, rows, cols, {0, rows / 3, rows}, ++call);
        GatherOnce(place, true, rows, cols, {0, rows, rows}, ++call);
        GatherOnce(place, false, rows, cols, {0, cols / 2, cols}, ++call);
        GatherOnce(place, false, rows, cols, {0, 0, cols}, ++call);
      }
    }
  });
}

TEST_F(Members, ALateMemberIsNamed) {
  ASSERT_TRUE(SelectDevice(0));
  auto memory = DeviceMemory::Allocate(4096);
  ASSERT_TRUE(memory) << memory.error().message();
  const std::vector<int64_t> begin = {0, 1, 2};
  const Mat all(memory->data(), DType::kI32, 2, 8);
  const auto start = std::chrono::steady_clock::now();
  comms_[0]->AllGatherRows(all.Rows(0, 1), all, begin);
  ASSERT_TRUE(streams_[0].Synchronize());
  const auto waited = std::chrono::steady_clock::now() - start;
  EXPECT_GT(waited, kWaitLimit * 3 / 4);
  EXPECT_LT(waited, kWaitLimit * 2);
  ASSERT_FALSE(comms_[0]->status());
  EXPECT_EQ(comms_[0]->status().error().code(), ErrorCode::kDeadline);
  EXPECT_NE(comms_[0]->status().error().message().find("rank 11 did not come in time"),
            std::string::npos)
      << comms_[0]->status().error().message();
  EXPECT_EQ(abort_.culprit(), 11);
  // An index that nobody sent is none.
  std::vector<int32_t> host(16);
  ASSERT_TRUE(DeviceMemorySpace().Download(host.data(), all.data, 16 * sizeof(int32_t)));
  for (size_t i = 8; i < 16; ++i) EXPECT_EQ(host[i], -1);
  // The other member hears of it, and its call returns at once.
  EXPECT_FALSE(comms_[1]->status());
}

TEST_F(Members, AFailureElsewhereEndsTheWait) {
  ASSERT_TRUE(SelectDevice(0));
  auto memory = DeviceMemory::Allocate(4096);
  ASSERT_TRUE(memory) << memory.error().message();
  const Mat all(memory->data(), DType::kI32, 2, 8);
  const auto start = std::chrono::steady_clock::now();
  comms_[0]->AllGatherRows(all.Rows(0, 1), all, std::vector<int64_t>{0, 1, 2});
  ASSERT_TRUE(comms_[0]->status());
  abort_.Set(12, 13);
  ASSERT_FALSE(comms_[0]->status());
  EXPECT_EQ(comms_[0]->status().error().code(), ErrorCode::kUnavailable);
  ASSERT_TRUE(streams_[0].Synchronize());
  EXPECT_LT(std::chrono::steady_clock::now() - start, kWaitLimit / 2);
}

}  // namespace
}  // namespace moebius::comm
