// Two processes, each with a part of the other's device memory: what one writes the other reads,
// and goes on reading when its owner has freed it. Skipped without a GPU. Each process is this
// program anew, as a driver that is in use does not survive a fork.
#include "comm/cuda/peer_directory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "base/testing/slow.h"
#include "comm/shared_communicator.h"
#include "comm/testing/processes.h"
#include "platform/cuda/device.h"
#include "platform/cuda/memory.h"
#include "platform/shared_memory.h"

namespace moebius::comm {
namespace {

using platform::cuda::ShareableMemory;

constexpr int kPeers = 2;
constexpr size_t kWorldChunk = 4096;
constexpr char kRankVariable[] = "MOEBIUS_TEST_PEER_RANK";
constexpr char kMemoryVariable[] = "MOEBIUS_TEST_PEER_MEMORY";

int ByteAt(const std::byte* data) {
  const platform::cuda::Stream stream = *platform::cuda::Stream::Create();
  const auto host = *platform::cuda::PinnedMemory::Allocate(1);
  EXPECT_TRUE(platform::cuda::CopyAsync(host.data(), data, 1, stream));
  EXPECT_TRUE(stream.Synchronize());
  return static_cast<int>(host.data()[0]);
}

void Fill(std::byte* data, int value, size_t size) {
  const platform::cuda::Stream stream = *platform::cuda::Stream::Create();
  EXPECT_TRUE(platform::cuda::FillAsync(data, value, size, stream));
  EXPECT_TRUE(stream.Synchronize());
}

// The first part is of another size on each rank; the last one rank 1 alone has.
void RunPeer(int rank, SharedCommunicator& world) {
  const int num_devices = *platform::cuda::DeviceCount();
  const int device = rank % num_devices;
  ASSERT_TRUE(platform::cuda::SelectDevice(device));
  const size_t sizes[kPeers] = {size_t{2} << 20, size_t{6} << 20};
  auto first = ShareableMemory::Allocate(sizes[rank]);
  auto last = ShareableMemory::Allocate(rank == 1 ? 16 : 0);
  ASSERT_TRUE(first && last);
  const AbortWord abort;
  const ShareableMemory empty;
  const ShareableMemory* const parts[] = {&*first, &empty, &*last};
  auto directory = PeerDirectory::Meet(world, {}, device, parts, abort);
  ASSERT_TRUE(directory) << directory.error().message();
  EXPECT_FALSE(directory->shares_process());

  std::vector<ShareableMemory> mappings;
  EXPECT_EQ(*directory->Map(rank, 0, &mappings), first->data());
  EXPECT_EQ(*directory->Map(1 - rank, 1, &mappings), nullptr);
  const auto peers = directory->Map(1 - rank, 0, &mappings);
  ASSERT_TRUE(peers) << peers.error().message();
  ASSERT_TRUE(directory->Map(1 - rank, 2, &mappings));
  EXPECT_EQ(mappings.size(), rank == 0 ? 2U : 1U);

  Fill(*peers, 10 + rank, sizes[1 - rank]);
  world.Barrier();
  EXPECT_EQ(ByteAt(first->data() + sizes[rank] - 1), 10 + 1 - rank);
  world.Barrier();
  if (rank == 1) *first = ShareableMemory();
  world.Barrier();
  if (rank == 0) {
    EXPECT_EQ(ByteAt(*peers + sizes[1] - 1), 10);
    Fill(*peers, 77, sizes[1]);
    EXPECT_EQ(ByteAt(*peers), 77);
  }
  EXPECT_TRUE(world.status());
}

// One of the processes of the next test.
TEST(PeerDirectory, IsOnePeer) {
  const char* const rank = std::getenv(kRankVariable);
  if (rank == nullptr) GTEST_SKIP() << "the next test starts it";
  auto memory = platform::SharedMemory::Open(std::atoi(std::getenv(kMemoryVariable)));
  ASSERT_TRUE(memory) << memory.error().message();
  SharedCommunicator world({.name = "peers", .rank = std::atoi(rank), .world_ranks = {0, 1}},
                           memory->bytes(), kWorldChunk);
  world.BeginStep(0, Clock::now() + moebius::testing::Slow(std::chrono::seconds(60)));
  RunPeer(std::atoi(rank), world);
}

TEST(PeerDirectory, MemoryOutlivesItsOwner) {
  const auto num_devices = platform::cuda::DeviceCount();
  if (!num_devices || *num_devices == 0) GTEST_SKIP() << "no GPU";
  const auto memory =
      platform::SharedMemory::Create("a test", SharedCommunicator::NumBytes(kPeers, kWorldChunk));
  ASSERT_TRUE(memory) << memory.error().message();
  std::vector<pid_t> pids;
  for (int rank = 0; rank < kPeers; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      const std::string descriptor = std::to_string(dup(memory->descriptor()));
      setenv(kMemoryVariable, descriptor.c_str(), 1);
      setenv(kRankVariable, std::to_string(rank).c_str(), 1);
      execl("/proc/self/exe", "comm_test", "--gtest_filter=PeerDirectory.IsOnePeer", nullptr);
      _exit(127);
    }
    pids.push_back(pid);
  }
  testing::ExpectAllEndWell(pids);
}

}  // namespace
}  // namespace moebius::comm
