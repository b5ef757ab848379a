// Gathers, messages and sums between the GPUs of this machine, or between virtual members on one:
// every byte, any width, more than fits at once; and what happens when a member does not come.
// Skipped without a GPU.
#include "comm/cuda/device_communicator.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>

#include "base/testing/slow.h"
#include "platform/cuda/device.h"
#include "platform/cuda/device_memory_space.h"
#include "platform/cuda/graph.h"

namespace moebius::comm {
namespace {

using platform::cuda::DeviceMemory;
using platform::cuda::DeviceMemorySpace;
using platform::cuda::SelectDevice;

constexpr int kSize = 2;
const std::chrono::milliseconds kWaitLimit = moebius::testing::Slow(std::chrono::seconds(2));
constexpr size_t kStaging = 4096;  // so that most gathers, and long messages, take several calls
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
      ASSERT_TRUE(SelectDevice(r % num_devices_));
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
      ASSERT_TRUE(SelectDevice(r % num_devices_));
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
        ASSERT_TRUE(SelectDevice(r % num_devices_));
        work(r);
        EXPECT_TRUE(streams_[static_cast<size_t>(r)].Synchronize());
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  // One message from member 0 to member 1, each step after the other: a kernel is loaded when it is
  // first needed, which may not be in a capture or behind one that waits for it.
  void PassOne(std::byte* from, std::byte* to) {
    ASSERT_TRUE(SelectDevice(0));
    comms_[0]->Send(1, std::span(from, 16));
    ASSERT_TRUE(streams_[0].Synchronize());
    ASSERT_TRUE(SelectDevice(1 % num_devices_));
    comms_[1]->Receive(0, std::span(to, 16));
    ASSERT_TRUE(streams_[1].Synchronize());
  }

  int num_devices_ = 1;
  AbortWord abort_;
  std::vector<std::unique_ptr<PeerMemory>> memories_;
  std::vector<platform::cuda::Stream> streams_;
  std::vector<std::unique_ptr<DeviceCommunicator>> comms_;
};

BFloat16 ValueOf(int64_t row, int64_t column, int call) {
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
void GatherOnce(const Place& place, bool by_rows, int64_t rows, int64_t cols,
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
  ASSERT_TRUE(DeviceMemorySpace().Upload(place.data, host.data(), num * sizeof(BFloat16)));
  const Mat all(place.data, DType::kBF16, rows, cols);
  if (by_rows) {
    comm.AllGatherRows(all.Rows(first, end - first), all, begin);
  } else {
    comm.AllGatherColumns(all.Cols(first, end - first), all, begin);
  }
  ASSERT_TRUE(place.stream.Synchronize());
  ASSERT_TRUE(comm.status()) << comm.status().error().message();
  ASSERT_TRUE(DeviceMemorySpace().Download(host.data(), place.data, num * sizeof(BFloat16)));
  for (size_t i = 0; i < num; ++i) {
    ASSERT_EQ(host[i].bits, expected[i].bits) << "element " << i << " of call " << call;
  }
}

TEST_F(Members, GatherRowsAndColumnsOfAnyWidth) {
  std::vector<DeviceMemory> matrices;
  for (int r = 0; r < kSize; ++r) {
    ASSERT_TRUE(SelectDevice(r % num_devices_));
    auto memory = DeviceMemory::Allocate(size_t{1} << 20);
    ASSERT_TRUE(memory) << memory.error().message();
    matrices.push_back(std::move(*memory));
  }
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

// Messages from member 0 to member 1, one behind the other on both sides. Memory is taken before
// they begin: a copy that waits for the GPU may wait for a member.
constexpr size_t kMessageRoom = 20480;

std::vector<std::byte> BytesOf(int message, size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) {
    bytes[i] = static_cast<std::byte>((i * 7 + i / 251 + static_cast<size_t>(message) * 29) % 256);
  }
  return bytes;
}

TEST_F(Members, MessagesKeepTheirOrderWhoeverIsAhead) {
  const std::vector<size_t> sizes = {16,   4096, 4,    20480, 4099,  4112,
                                     1000, 15,   8192, 333,   12288, 32};
  std::vector<DeviceMemory> memories;
  for (int r = 0; r < kSize; ++r) {
    ASSERT_TRUE(SelectDevice(r % num_devices_));
    auto memory = DeviceMemory::Allocate(sizes.size() * kMessageRoom);
    ASSERT_TRUE(memory) << memory.error().message();
    memories.push_back(std::move(*memory));
  }
  const auto message = [&](int r, size_t i) {
    return std::span(memories[static_cast<size_t>(r)].data() + i * kMessageRoom, sizes[i]);
  };
  PassOne(memories[0].data(), memories[1].data());
  for (const int late : {1, 0, -1}) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const std::vector<std::byte> bytes = BytesOf(static_cast<int>(i) + late, sizes[i]);
      ASSERT_TRUE(DeviceMemorySpace().Upload(message(0, i).data(), bytes.data(), sizes[i]));
    }
    RunAll([&](int rank) {
      if (rank == late) std::this_thread::sleep_for(std::chrono::milliseconds(100));
      for (size_t i = 0; i < sizes.size(); ++i) {
        if (rank == 0) comms_[0]->Send(1, message(0, i));
        if (rank == 1) comms_[1]->Receive(0, message(1, i));
      }
    });
    for (const auto& comm : comms_) {
      ASSERT_TRUE(comm->status()) << comm->status().error().message();
    }
    for (size_t i = 0; i < sizes.size(); ++i) {
      std::vector<std::byte> got(sizes[i]);
      ASSERT_TRUE(DeviceMemorySpace().Download(got.data(), message(1, i).data(), sizes[i]));
      ASSERT_EQ(got, BytesOf(static_cast<int>(i) + late, sizes[i])) << "message " << i;
    }
  }
}

// Graphs are made before any of them waits.
TEST_F(Members, GraphsHoldMessages) {
  constexpr int kRounds = 30;
  constexpr size_t kBytes = 6000;  // two messages
  std::vector<DeviceMemory> memories;
  std::vector<platform::cuda::PinnedMemory> hosts;
  for (int r = 0; r < kSize; ++r) {
    ASSERT_TRUE(SelectDevice(r % num_devices_));
    auto memory = DeviceMemory::Allocate(kBytes);
    auto host = platform::cuda::PinnedMemory::Allocate(kRounds * kBytes);
    ASSERT_TRUE(memory && host);
    memories.push_back(std::move(*memory));
    hosts.push_back(std::move(*host));
  }
  PassOne(memories[0].data(), memories[1].data());
  std::vector<platform::cuda::Graph> graphs;
  for (int r = 0; r < kSize; ++r) {
    const auto at = static_cast<size_t>(r);
    ASSERT_TRUE(SelectDevice(r % num_devices_));
    const std::span data(memories[at].data(), kBytes);
    auto graph = platform::cuda::Graph::Capture(streams_[at], [&]() -> Status {
      if (r == 0) comms_[0]->Send(1, data);
      if (r == 1) comms_[1]->Receive(0, data);
      return comms_[at]->status();
    });
    ASSERT_TRUE(graph) << graph.error().message();
    graphs.push_back(std::move(*graph));
  }
  for (int round = 0; round < kRounds; ++round) {
    const std::vector<std::byte> bytes = BytesOf(round, kBytes);
    std::ranges::copy(bytes, hosts[0].data() + static_cast<size_t>(round) * kBytes);
  }
  RunAll([&](int rank) {
    const auto r = static_cast<size_t>(rank);
    for (size_t round = 0; round < kRounds; ++round) {
      std::byte* const host = hosts[r].data() + round * kBytes;
      if (rank == 0) {
        ASSERT_TRUE(CopyAsync(memories[r].data(), host, kBytes, streams_[r]));
        ASSERT_TRUE(graphs[r].Launch(streams_[r]));
      } else {
        ASSERT_TRUE(graphs[r].Launch(streams_[r]));
        ASSERT_TRUE(CopyAsync(host, memories[r].data(), kBytes, streams_[r]));
      }
    }
  });
  for (const auto& comm : comms_) {
    ASSERT_TRUE(comm->status()) << comm->status().error().message();
  }
  for (int round = 0; round < kRounds; ++round) {
    const std::byte* const got = hosts[1].data() + static_cast<size_t>(round) * kBytes;
    ASSERT_TRUE(std::ranges::equal(std::span(got, kBytes), BytesOf(round, kBytes)))
        << "round " << round;
  }
}

// Two messages are on their way at most.
TEST_F(Members, WhoDoesNotReceiveIsNamed) {
  ASSERT_TRUE(SelectDevice(0));
  auto memory = DeviceMemory::Allocate(kStaging);
  ASSERT_TRUE(memory) << memory.error().message();
  const std::span data(memory->data(), kStaging);
  comms_[0]->Send(1, data);
  comms_[0]->Send(1, data);
  ASSERT_TRUE(streams_[0].Synchronize());
  ASSERT_TRUE(comms_[0]->status());
  comms_[0]->Send(1, data);
  ASSERT_TRUE(streams_[0].Synchronize());
  ASSERT_FALSE(comms_[0]->status());
  EXPECT_NE(comms_[0]->status().error().message().find("rank 11 did not come in time: the GPU of "
                                                       "rank 10 waited for it in send"),
            std::string::npos)
      << comms_[0]->status().error().message();
  EXPECT_EQ(abort_.culprit(), 11);
  EXPECT_FALSE(comms_[1]->status());
}

TEST_F(Members, WhoDoesNotSendIsNamed) {
  ASSERT_TRUE(SelectDevice(1 % num_devices_));
  auto memory = DeviceMemory::Allocate(kStaging);
  ASSERT_TRUE(memory) << memory.error().message();
  comms_[1]->Receive(0, std::span(memory->data(), kStaging));
  ASSERT_TRUE(streams_[1].Synchronize());
  ASSERT_FALSE(comms_[1]->status());
  EXPECT_NE(comms_[1]->status().error().message().find("rank 10 did not come in time: the GPU of "
                                                       "rank 11 waited for it in receive"),
            std::string::npos)
      << comms_[1]->status().error().message();
}

// To another one than the next.
TEST_F(Members, MessagesThatGoBackAreRefused) {
  comms_[1]->Send(0, std::span<const std::byte>());
  ASSERT_FALSE(comms_[1]->status());
  EXPECT_EQ(comms_[1]->status().error().code(), ErrorCode::kUnsupported);
}

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

TEST_F(Members, SumsOfAnySizeBetweenGathers) {
  constexpr size_t kRoom = size_t{32} << 20;
  std::vector<DeviceMemory> matrices;
  for (int r = 0; r < kSize; ++r) {
    ASSERT_TRUE(SelectDevice(r % num_devices_));
    auto memory = DeviceMemory::Allocate(kRoom);
    ASSERT_TRUE(memory) << memory.error().message();
    matrices.push_back(std::move(*memory));
  }
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

TEST_F(Members, GraphsHoldSumsAndGathers) {
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

TEST_F(Members, WhoDoesNotComeToASumIsNamed) {
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

TEST_F(Members, AFailureElsewhereEndsASum) {
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
