// For tests: members of a group on this machine's GPUs, or virtual ones on one, with a small
// staging area, so that most gathers and long messages take several calls; and a matrix that they
// gather. Tests are skipped without a GPU.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/testing/slow.h"
#include "comm/cuda/device_communicator.h"
#include "platform/cuda/device.h"
#include "platform/cuda/device_memory_space.h"
#include "platform/cuda/shareable_memory.h"

namespace moebius::comm::testing {

constexpr int kSize = 2;
inline const std::chrono::milliseconds kWaitLimit = moebius::testing::Slow(std::chrono::seconds(2));
constexpr size_t kStaging = 4096;
constexpr DeviceStaging kAll = {.gather = kStaging, .message = kStaging, .reduces = true};

class Members : public ::testing::Test {
 protected:
  void SetUp() override {
    const Result<int> num_devices = platform::cuda::DeviceCount();
    if (!num_devices || *num_devices == 0) GTEST_SKIP() << "no GPU";
    num_devices_ = std::min(*num_devices, kSize);
    DeviceGroup group;
    group.info.name = "a test";
    group.info.world_ranks.clear();
    group.info.abort = &abort_;
    group.wait_limit = kWaitLimit;
    group.num_sharers = kSize / num_devices_;
    for (int r = 0; r < kSize; ++r) {
      ASSERT_TRUE(platform::cuda::SelectDevice(r % num_devices_));
      auto memory = DeviceCommunicator::Allocate(kAll);
      ASSERT_TRUE(memory) << memory.error().message();
      memories_.push_back(std::make_unique<PeerMemory>(std::move(*memory)));
      auto stream = platform::cuda::Stream::Create();
      ASSERT_TRUE(stream) << stream.error().message();
      streams_.push_back(std::move(*stream));
      group.info.world_ranks.push_back(10 + r);
      group.bases.push_back(memories_.back()->data());
    }
    for (int r = 0; r < kSize; ++r) {
      ASSERT_TRUE(platform::cuda::SelectDevice(r % num_devices_));
      for (const auto& memory : memories_) {
        const auto let = platform::cuda::LetCurrentDevice(memory->data(), memory->memory().size());
        ASSERT_TRUE(let) << let.error().message();
      }
      group.info.rank = r;
      group.stream = streams_[static_cast<size_t>(r)].get();
      comms_.push_back(std::make_unique<DeviceCommunicator>(
          group, memories_[static_cast<size_t>(r)].get(), kAll));
    }
  }

  // work(rank) on a thread a member, on its GPU, until its stream is done.
  template <typename Work>
  void RunAll(const Work& work) {
    std::vector<std::thread> threads;
    for (int r = 0; r < kSize; ++r) {
      threads.emplace_back([&, r] {
        ASSERT_TRUE(platform::cuda::SelectDevice(r % num_devices_));
        work(r);
        EXPECT_TRUE(streams_[static_cast<size_t>(r)].Synchronize());
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  // Memory for each member on its GPU. Taken before members wait for each other: taking and freeing
  // it waits for the GPU.
  std::vector<platform::cuda::DeviceMemory> AllocateEach(size_t bytes) {
    std::vector<platform::cuda::DeviceMemory> memories;
    for (int r = 0; r < kSize; ++r) {
      EXPECT_TRUE(platform::cuda::SelectDevice(r % num_devices_));
      auto memory = platform::cuda::DeviceMemory::Allocate(bytes);
      EXPECT_TRUE(memory) << memory.error().message();
      if (memory) memories.push_back(std::move(*memory));
    }
    return memories;
  }

  int num_devices_ = 1;
  AbortWord abort_;
  std::vector<std::unique_ptr<PeerMemory>> memories_;
  std::vector<platform::cuda::Stream> streams_;
  std::vector<std::unique_ptr<DeviceCommunicator>> comms_;
};

inline BFloat16 ValueOf(int64_t row, int64_t column, int call) {
  return ToBFloat16(static_cast<float>((row * 31 + column * 7 + call * 13) % 251));
}

// Where a member's matrix lies: taken once, as freeing waits for the GPU, and so for kernels that
// wait for this member.
struct Place {
  DeviceCommunicator& comm;
  const platform::cuda::Stream& stream;
  std::byte* data;
};

// Rows where `by_rows`, else columns: each member has its piece, all have all of it in the end.
inline void GatherOnce(const Place& place, bool by_rows, int64_t rows, int64_t cols,
                       const std::vector<int64_t>& begin, int call) {
  DeviceCommunicator& comm = place.comm;
  const auto num = static_cast<size_t>(rows * cols);
  std::vector<BFloat16> expected(num);
  std::vector<BFloat16> host(num, ToBFloat16(-1.0F));
  const int64_t first = begin[static_cast<size_t>(comm.rank())];
  const int64_t end = begin[static_cast<size_t>(comm.rank()) + 1];
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < cols; ++column) {
      const auto at = static_cast<size_t>(row * cols + column);
      expected[at] = ValueOf(row, column, call);
      const int64_t index = by_rows ? row : column;
      if (index >= first && index < end) host[at] = expected[at];
    }
  }
  ASSERT_TRUE(
      platform::cuda::DeviceMemorySpace().Upload(place.data, host.data(), num * sizeof(BFloat16)));
  const Mat all(place.data, DType::kBF16, rows, cols);
  if (by_rows) {
    comm.AllGatherRows(all.Rows(first, end - first), all, begin);
  } else {
    comm.AllGatherColumns(all.Cols(first, end - first), all, begin);
  }
  ASSERT_TRUE(place.stream.Synchronize());
  ASSERT_TRUE(comm.status()) << comm.status().error().message();
  ASSERT_TRUE(platform::cuda::DeviceMemorySpace().Download(host.data(), place.data,
                                                           num * sizeof(BFloat16)));
  for (size_t i = 0; i < num; ++i) {
    ASSERT_EQ(host[i].bits, expected[i].bits) << "element " << i << " of call " << call;
  }
}

}  // namespace moebius::comm::testing
