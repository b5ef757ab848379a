#include "moe/migrate/host_pool.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <fstream>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "moe/migrate/expert_checksum.h"
#include "moe/migrate/host_pool_names.h"

namespace moebius::moe {
namespace {

constexpr int kNumLayers = 3;
constexpr std::array<size_t, kNumLayers> kExpertBytes = {1000, 4096, 77};

// Two test programs that run at once have two bases.
std::string BaseOf(const char* test) { return fmt::format("moebius_pool_{}_{}", getpid(), test); }

HostPoolOptions PoolOptions(const std::string& base, int num_experts, int local_rank,
                            int num_local_ranks) {
  HostPoolOptions options;
  options.base = base;
  options.num_experts = num_experts;
  options.local_rank = local_rank;
  options.num_local_ranks = num_local_ranks;
  options.expert_bytes.assign(kExpertBytes.begin(), kExpertBytes.end());
  return options;
}

std::byte Filling(int layer, int expert) { return static_cast<std::byte>(1 + 50 * layer + expert); }

void FillPool(HostPool& pool) {
  for (int layer = 0; layer < kNumLayers; ++layer) {
    for (int expert = pool.first(); expert < pool.end(); ++expert) {
      const std::vector<std::byte> bytes(kExpertBytes[static_cast<size_t>(layer)],
                                         Filling(layer, expert));
      const auto all = std::span<const std::byte>(bytes);
      pool.Fill(layer, expert, std::array{all.first(70), all.subspan(70)});
    }
  }
}

uint64_t ChecksumOf(std::span<const std::byte> bytes) {
  ExpertChecksum checksum;
  checksum.Add(bytes);
  return checksum.value();
}

std::vector<HostPool> MakePools(const std::string& base, int num_experts, int num_local_ranks) {
  std::vector<HostPool> pools;
  for (int rank = 0; rank < num_local_ranks; ++rank) {
    auto pool = HostPool::Create(PoolOptions(base, num_experts, rank, num_local_ranks));
    EXPECT_TRUE(pool) << pool.error().message();
    if (pool) pools.push_back(std::move(*pool));
  }
  return pools;
}

TEST(HostPool, EveryRankSeesEveryExpertWhateverTheirNumber) {
  for (const int num_experts : {1, 3, 5, 8, 13}) {
    const std::string base = BaseOf("all");
    std::vector<HostPool> pools = MakePools(base, num_experts, 4);
    ASSERT_EQ(pools.size(), size_t{4});
    EXPECT_EQ(pools[0].first(), 0);
    EXPECT_EQ(pools[3].end(), num_experts);
    for (HostPool& pool : pools) FillPool(pool);
    for (HostPool& pool : pools) pool.Seal();
    for (HostPool& pool : pools) {
      for (int layer = 0; layer < kNumLayers; ++layer) {
        for (int expert = 0; expert < num_experts; ++expert) {
          const auto entry = pool.Get(layer, expert);
          ASSERT_TRUE(entry) << entry.error().message();
          EXPECT_EQ(entry->bytes.size(), kExpertBytes[static_cast<size_t>(layer)]);
          EXPECT_EQ(reinterpret_cast<uintptr_t>(entry->bytes.data()) % HostPool::kAlignment, 0U);
          EXPECT_TRUE(std::ranges::all_of(
              entry->bytes, [&](std::byte b) { return b == Filling(layer, expert); }));
          EXPECT_EQ(ChecksumOf(entry->bytes), entry->checksum);
        }
      }
    }
    uint64_t total = 0;
    for (const HostSegment& segment : ListHostSegments(base)) total += segment.info.num_bytes;
    EXPECT_EQ(total, HostPool::TotalBytes(PoolOptions(base, num_experts, 0, 4)));
  }
  EXPECT_TRUE(ListHostSegments(BaseOf("all")).empty()) << "owners remove their segments";
}

TEST(HostPool, AskingTooEarlyIsAnErrorAndLaterItIsThere) {
  const std::string base = BaseOf("early");
  std::vector<HostPool> pools = MakePools(base, 5, 2);
  ASSERT_EQ(pools.size(), size_t{2});
  EXPECT_EQ(pools[0].Get(1, 4).error().code(), ErrorCode::kUnavailable);
  FillPool(pools[1]);
  pools[1].Seal();
  EXPECT_EQ(pools[0].Get(1, 4).value().bytes[0], Filling(1, 4));
}

TEST(HostPool, ARankThatIsNotThereIsAnErrorByItsSegmentsName) {
  const std::string base = BaseOf("missing");
  auto pool = HostPool::Create(PoolOptions(base, 8, 1, 4));
  ASSERT_TRUE(pool) << pool.error().message();
  const auto missing = pool->Get(2, 7);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message().find(base + "_l2_lr3_all"), std::string::npos);
}

TEST(HostPool, ASegmentOfAnotherSizeIsAnError) {
  const std::string base = BaseOf("short");
  auto pool = HostPool::Create(PoolOptions(base, 8, 0, 2));
  ASSERT_TRUE(pool) << pool.error().message();
  auto cut = platform::NamedMemory::Create(HostSegmentName(base, 1, 1), 4096);
  ASSERT_TRUE(cut) << cut.error().message();
  cut->Publish();
  const auto bytes = pool->Get(1, 7);
  ASSERT_FALSE(bytes);
  EXPECT_EQ(bytes.error().code(), ErrorCode::kCorrupt);
  EXPECT_NE(bytes.error().message().find("holds 4096 bytes, expected 20480"), std::string::npos)
      << bytes.error().message();
}

TEST(HostPool, AnEntryThatChangedHasNotItsChecksum) {
  const std::string base = BaseOf("spoiled");
  std::vector<HostPool> pools = MakePools(base, 4, 2);
  ASSERT_EQ(pools.size(), size_t{2});
  for (HostPool& pool : pools) {
    FillPool(pool);
    pool.Seal();
  }
  // As by a faulty memory, or a stray program: whoever has the file may write.
  std::fstream file(std::string(platform::kSharedMemoryFolder) + "/" + HostSegmentName(base, 0, 1));
  file.seekp(999).put('x');
  ASSERT_TRUE(file.flush());
  for (HostPool& pool : pools) {
    const auto entry = pool.Get(0, 2);
    ASSERT_TRUE(entry) << entry.error().message();
    EXPECT_NE(ChecksumOf(entry->bytes), entry->checksum);
    EXPECT_EQ(ChecksumOf(pool.Get(0, 3)->bytes), pool.Get(0, 3)->checksum);
  }
}

TEST(HostPool, WhatOthersTakeLaterCannotHurt) {
  const std::string base = BaseOf("reserved");
  std::vector<HostPool> pools = MakePools(base, 8, 2);
  ASSERT_EQ(pools.size(), size_t{2});
  // Nobody has written, and every page is there: a full /dev/shm is no bus error then.
  for (const HostSegment& segment : ListHostSegments(base)) {
    EXPECT_GE(segment.info.reserved_bytes, segment.info.num_bytes) << segment.info.name;
  }
}

TEST(HostPool, AnotherInstanceIsRefusedAndKeepsItsOwn) {
  const std::string base = BaseOf("twice");
  auto pool = HostPool::Create(PoolOptions(base, 8, 0, 2));
  ASSERT_TRUE(pool) << pool.error().message();
  const auto second = HostPool::Create(PoolOptions(base, 8, 0, 2));
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), ErrorCode::kUnavailable);
  EXPECT_NE(second.error().message().find(fmt::format("pid {}", getpid())), std::string::npos);
  EXPECT_EQ(ListHostSegments(base).size(), size_t{kNumLayers});
}

TEST(HostPool, APoolThatCannotFitIsRefusedBeforeAnythingIsMade) {
  HostPoolOptions options = PoolOptions(BaseOf("large"), 64, 0, 8);
  const auto room = platform::ReadSharedMemoryRoom();
  ASSERT_TRUE(room) << room.error().message();
  // This rank's share alone would fit; the node's does not.
  options.expert_bytes = {4096, room->free / 64 + 4096};
  const auto pool = HostPool::Create(options);
  ASSERT_FALSE(pool);
  EXPECT_EQ(pool.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_NE(pool.error().message().find("mount -o remount,size="), std::string::npos);
  EXPECT_TRUE(ListHostSegments(options.base).empty());
}

TEST(HostPool, ManyThreadsMayAskAtOnce) {
  std::vector<HostPool> pools = MakePools(BaseOf("threads"), 8, 2);
  ASSERT_EQ(pools.size(), size_t{2});
  for (HostPool& pool : pools) {
    FillPool(pool);
    pool.Seal();
  }
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int expert = 0; expert < 8; ++expert) {
        EXPECT_EQ(pools[0].Get(0, expert).value().bytes[999], Filling(0, expert));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(HostPool, NumbersThatMakeNoSenseAreErrors) {
  for (const auto& [num_experts, rank, num_ranks] :
       {std::array{0, 0, 1}, {8, 2, 2}, {8, -1, 2}, {8, 0, 0}}) {
    const auto pool = HostPool::Create(PoolOptions(BaseOf("bad"), num_experts, rank, num_ranks));
    EXPECT_EQ(pool.error().code(), ErrorCode::kInvalidArgument);
  }
  EXPECT_EQ(HostPool::Create(PoolOptions("a/b", 8, 0, 2)).error().code(),
            ErrorCode::kInvalidArgument);
}

TEST(HostPoolNames, AreReadAsTheyAreWritten) {
  EXPECT_EQ(HostSegmentName("moe_shared", 12, 3), "moe_shared_l12_lr3_all");
  const auto id = ParseHostSegment("my_l1_pool_l12_lr3_all");
  ASSERT_TRUE(id);
  EXPECT_EQ(id->base, "my_l1_pool");
  EXPECT_EQ(id->layer, 12);
  EXPECT_EQ(id->local_rank, 3);
  for (const char* other : {"", "_all", "moe_l1_lr2", "moe_l1_all", "moe_lr1_all", "_l1_lr2_all",
                            "moe_l_lr2_all", "moe_l1_lr2x_all", "moe_l-1_lr2_all"}) {
    EXPECT_FALSE(ParseHostSegment(other)) << other;
  }
}

TEST(HostPoolNames, TheBaseComesFromTheEnvironment) {
  unsetenv("MOEBIUS_EPLB_SHM_NAME");
  unsetenv("TRTLLM_EPLB_SHM_NAME");
  EXPECT_EQ(HostPoolBase().value(), "moe_shared");
  setenv("TRTLLM_EPLB_SHM_NAME", "theirs", 1);
  EXPECT_EQ(HostPoolBase().value(), "theirs");
  setenv("MOEBIUS_EPLB_SHM_NAME", "ours", 1);
  EXPECT_EQ(HostPoolBase().value(), "ours");
  setenv("MOEBIUS_EPLB_SHM_NAME", "a/b", 1);
  const auto wrong = HostPoolBase();
  ASSERT_FALSE(wrong);
  EXPECT_TRUE(wrong.error().message().starts_with("MOEBIUS_EPLB_SHM_NAME: 'a/b'"));
  unsetenv("MOEBIUS_EPLB_SHM_NAME");
  unsetenv("TRTLLM_EPLB_SHM_NAME");
}

}  // namespace
}  // namespace moebius::moe
