// Messages from one GPU of this machine to another: their order whoever is ahead, in graphs too;
// and what happens when nobody sends or receives.
#include <gtest/gtest.h>

#include "comm/cuda/testing/device_members.h"
#include "platform/cuda/graph.h"

namespace moebius::comm {
namespace {

using platform::cuda::DeviceMemory;
using platform::cuda::DeviceMemorySpace;
using platform::cuda::SelectDevice;
using testing::kSize;
using testing::kStaging;
using testing::Members;

class MembersMessages : public Members {
 protected:
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
};

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

TEST_F(MembersMessages, MessagesKeepTheirOrderWhoeverIsAhead) {
  const std::vector<size_t> sizes = {16,   4096, 4,    20480, 4099,  4112,
                                     1000, 15,   8192, 333,   12288, 32};
  const std::vector<DeviceMemory> memories = AllocateEach(sizes.size() * kMessageRoom);
  ASSERT_EQ(memories.size(), size_t{kSize});
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
TEST_F(MembersMessages, GraphsHoldMessages) {
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
TEST_F(MembersMessages, WhoDoesNotReceiveIsNamed) {
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

TEST_F(MembersMessages, WhoDoesNotSendIsNamed) {
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
TEST_F(MembersMessages, MessagesThatGoBackAreRefused) {
  comms_[1]->Send(0, std::span<const std::byte>());
  ASSERT_FALSE(comms_[1]->status());
  EXPECT_EQ(comms_[1]->status().error().code(), ErrorCode::kUnsupported);
}

}  // namespace
}  // namespace moebius::comm
