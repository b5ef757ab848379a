// Sums over the GPUs of this machine: of any size, between gathers and in graphs; and what happens
// when a member does not come.
#include <gtest/gtest.h>

#include "comm/cuda/testing/device_members.h"
#include "platform/cuda/graph.h"

namespace moebius::comm {
namespace {

using platform::cuda::DeviceMemory;
using platform::cuda::DeviceMemorySpace;
using platform::cuda::SelectDevice;
using testing::GatherOnce;
using testing::kSize;
using testing::kStaging;
using testing::Place;
using MembersSums = testing::Members;

// What member `member` brings at element `i` of a call: sums round in bf16, and in float32.
float AddendOf(int member, int64_t i, int call) {
  const auto mixed = static_cast<uint32_t>(i * 2654435761 + member * 40503 + call * 977);
  return static_cast<float>(static_cast<int32_t>(mixed * 747796405U)) * 0x1p-31F;
}

// Rows of a matrix, of which each member has addends for all.
struct SumCase {
  DType dtype = DType::kBF16;
  int64_t rows = 0;
  int64_t cols = 0;
  int call = 0;

  size_t bytes() const { return static_cast<size_t>(rows * cols) * SizeOf(dtype); }
  std::vector<std::byte> Addends(int member) const {
    std::vector<std::byte> bytes_of(bytes());
    for (int64_t i = 0; i < rows * cols; ++i) {
      StoreFloat(bytes_of.data(), dtype, i, AddendOf(member, i, call));
    }
    return bytes_of;
  }
  std::vector<std::byte> Sums() const {
    std::vector<std::byte> sums(bytes());
    std::vector<std::vector<std::byte>> all;
    for (int member = 0; member < kSize; ++member) all.push_back(Addends(member));
    for (int64_t i = 0; i < rows * cols; ++i) {
      float sum = 0;
      for (const std::vector<std::byte>& addends : all) sum += LoadFloat(addends.data(), dtype, i);
      StoreFloat(sums.data(), dtype, i, sum);
    }
    return sums;
  }
};

// In place; then scattered to a place behind.
void ReduceOnce(const Place& place, const SumCase& of) {
  DeviceCommunicator& comm = place.comm;
  const std::vector<std::byte> addends = of.Addends(comm.rank());
  const std::vector<std::byte> sums = of.Sums();
  const Mat data(place.data, of.dtype, of.rows, of.cols);
  std::vector<std::byte> got(of.bytes());
  ASSERT_TRUE(DeviceMemorySpace().Upload(place.data, addends.data(), of.bytes()));
  comm.AllReduce(data);
  ASSERT_TRUE(place.stream.Synchronize());
  ASSERT_TRUE(comm.status()) << comm.status().error().message();
  ASSERT_TRUE(DeviceMemorySpace().Download(got.data(), place.data, of.bytes()));
  ASSERT_TRUE(got == sums) << of.rows << " x " << of.cols << ", call " << of.call;

  const std::vector<int64_t> begin = {0, of.rows / 3, of.rows};
  const int64_t first = begin[static_cast<size_t>(comm.rank())];
  const int64_t count = begin[static_cast<size_t>(comm.rank()) + 1] - first;
  ASSERT_TRUE(DeviceMemorySpace().Upload(place.data, addends.data(), of.bytes()));
  const Mat out(place.data + (of.bytes() + 15) / 16 * 16, of.dtype, count, of.cols);
  comm.ReduceScatter(data, out, begin);
  ASSERT_TRUE(place.stream.Synchronize());
  ASSERT_TRUE(comm.status()) << comm.status().error().message();
  const size_t row_bytes = static_cast<size_t>(of.cols) * SizeOf(of.dtype);
  got.resize(static_cast<size_t>(count) * row_bytes);
  ASSERT_TRUE(DeviceMemorySpace().Download(got.data(), out.data, got.size()));
  ASSERT_TRUE(std::ranges::equal(
      got, std::span(sums).subspan(static_cast<size_t>(first) * row_bytes, got.size())))
      << of.rows << " x " << of.cols << ", call " << of.call << ", scattered";
}

TEST_F(MembersSums, SumsOfAnySizeBetweenGathers) {
  constexpr size_t kRoom = size_t{32} << 20;
  const std::vector<DeviceMemory> matrices = AllocateEach(kRoom);
  ASSERT_EQ(matrices.size(), size_t{kSize});
  RunAll([&](int rank) {
    const auto r = static_cast<size_t>(rank);
    const Place place{*comms_[r], streams_[r], matrices[r].data()};
    SumCase of;
    for (const DType dtype : {DType::kBF16, DType::kF32}) {
      for (const int64_t rows : {0, 1, 3, 301, 2500}) {
        for (const int64_t cols : {1, 24, 129, 1024}) {
          of = {.dtype = dtype, .rows = rows, .cols = cols, .call = of.call + 1};
          ReduceOnce(place, of);
          if (cols == 24) GatherOnce(place, true, 17, 129, {0, 5, 17}, of.call);
        }
      }
    }
  });
  // What is scattered is sent whole.
  const CommBytes bytes = comms_[0]->bytes();
  EXPECT_EQ(bytes.reduce, 2 * (2 + 4) * (1 + 3 + 301 + 2500) * (1 + 24 + 129 + 1024));
}

TEST_F(MembersSums, GraphsHoldSumsAndGathers) {
  constexpr int kRounds = 30;
  const SumCase first{.rows = 40, .cols = 512};
  const SumCase large{.dtype = DType::kF32, .rows = 600, .cols = 1024};
  const size_t bytes = first.bytes() + large.bytes();
  std::vector<DeviceMemory> memories;
  std::vector<DeviceMemory> all;
  std::vector<platform::cuda::PinnedMemory> hosts;
  for (int r = 0; r < kSize; ++r) {
    ASSERT_TRUE(SelectDevice(r % num_devices_));
    auto memory = DeviceMemory::Allocate(bytes);
    auto gathered = DeviceMemory::Allocate(kSize * kStaging);
    auto host = platform::cuda::PinnedMemory::Allocate(2 * bytes + kSize * kStaging);
    ASSERT_TRUE(memory && gathered && host);
    memories.push_back(std::move(*memory));
    all.push_back(std::move(*gathered));
    hosts.push_back(std::move(*host));
    std::ranges::copy(first.Addends(r), hosts.back().data());
    std::ranges::copy(large.Addends(r), hosts.back().data() + first.bytes());
  }
  // Sums, and a gather of the first ones.
  const auto work = [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    std::byte* const data = memories[r].data();
    comms_[r]->AllReduce(Mat(data, first.dtype, first.rows, first.cols));
    comms_[r]->AllGather(std::span(data, kStaging), std::span(all[r].data(), kSize * kStaging));
    comms_[r]->AllReduce(Mat(data + first.bytes(), large.dtype, large.rows, large.cols));
  };
  RunAll(work);  // kernels are loaded when they are first needed, which may not be in a capture
  std::vector<platform::cuda::Graph> graphs;
  for (int r = 0; r < kSize; ++r) {
    ASSERT_TRUE(SelectDevice(r % num_devices_));
    auto graph = platform::cuda::Graph::Capture(streams_[static_cast<size_t>(r)], [&]() -> Status {
      work(r);
      return comms_[static_cast<size_t>(r)]->status();
    });
    ASSERT_TRUE(graph) << graph.error().message();
    graphs.push_back(std::move(*graph));
  }
  RunAll([&](int rank) {
    const auto r = static_cast<size_t>(rank);
    std::byte* const host = hosts[r].data();
    for (int round = 0; round < kRounds; ++round) {
      ASSERT_TRUE(CopyAsync(memories[r].data(), host, bytes, streams_[r]));
      ASSERT_TRUE(graphs[r].Launch(streams_[r]));
    }
    ASSERT_TRUE(CopyAsync(host + bytes, memories[r].data(), bytes, streams_[r]));
    ASSERT_TRUE(CopyAsync(host + 2 * bytes, all[r].data(), kSize * kStaging, streams_[r]));
  });
  const std::vector<std::byte> sums = first.Sums();
  for (size_t r = 0; r < kSize; ++r) {
    ASSERT_TRUE(comms_[r]->status()) << comms_[r]->status().error().message();
    const std::byte* const got = hosts[r].data() + bytes;
    EXPECT_TRUE(std::ranges::equal(std::span(got, first.bytes()), sums));
    EXPECT_TRUE(std::ranges::equal(std::span(got + first.bytes(), large.bytes()), large.Sums()));
    for (size_t member = 0; member < kSize; ++member) {
      EXPECT_TRUE(std::ranges::equal(std::span(got + bytes + member * kStaging, kStaging),
                                     std::span(sums).first(kStaging)));
    }
  }
}

TEST_F(MembersSums, WhoDoesNotComeToASumIsNamed) {
  ASSERT_TRUE(SelectDevice(0));
  auto memory = DeviceMemory::Allocate(size_t{1} << 20);
  ASSERT_TRUE(memory) << memory.error().message();
  const Mat data(memory->data(), DType::kF32, 256, 1024);
  for (int i = 0; i < 3; ++i) comms_[0]->AllReduce(data);
  ASSERT_TRUE(streams_[0].Synchronize());
  ASSERT_FALSE(comms_[0]->status());
  EXPECT_EQ(comms_[0]->status().error().code(), ErrorCode::kDeadline);
  EXPECT_NE(comms_[0]->status().error().message().find("rank 11 did not come in time: the GPU of "
                                                       "rank 10 waited for it in all-reduce"),
            std::string::npos)
      << comms_[0]->status().error().message();
  EXPECT_FALSE(comms_[1]->status());
}

TEST_F(MembersSums, AFailureElsewhereEndsASum) {
  ASSERT_TRUE(SelectDevice(0));
  auto memory = DeviceMemory::Allocate(size_t{1} << 20);
  ASSERT_TRUE(memory) << memory.error().message();
  const auto start = std::chrono::steady_clock::now();
  comms_[0]->AllReduce(Mat(memory->data(), DType::kF32, 256, 1024));
  ASSERT_TRUE(comms_[0]->status());
  abort_.Set(12, 13);
  ASSERT_FALSE(comms_[0]->status());
  EXPECT_EQ(comms_[0]->status().error().code(), ErrorCode::kUnavailable);
  ASSERT_TRUE(streams_[0].Synchronize());
  const std::chrono::duration<double> waited = std::chrono::steady_clock::now() - start;
  EXPECT_LT(waited.count(), 1.0);
}

}  // namespace
}  // namespace moebius::comm
