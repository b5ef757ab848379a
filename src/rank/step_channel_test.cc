#include "rank/step_channel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <numeric>
#include <random>
#include <thread>

#include "rank/deadlines_test.h"

namespace moebius::rank {
namespace {

using comm::AbortWord;
using comm::Clock;
using std::chrono::milliseconds;
using testing::Dawdle;
using testing::In;
using testing::kOneMinute;

// A leader and its followers as threads over heap memory; their ranks in the world are 100, ...
class Channel {
 public:
  explicit Channel(StepRingShape shape)
      : shape_(shape), lines_(StepRing::NumBytes(shape) / sizeof(Line)) {}

  void Run(const std::function<void(StepSender&)>& lead,
           const std::function<void(int, StepReceiver&)>& follow) {
    std::vector<std::thread> threads;
    for (int follower = 0; follower < shape_.num_followers; ++follower) {
      threads.emplace_back([&, follower] {
        StepReceiver receiver(InfoOf(follower + 1), shape_, memory());
        follow(follower, receiver);
      });
    }
    StepSender sender(InfoOf(0), shape_, memory());
    lead(sender);
    for (std::thread& thread : threads) thread.join();
  }
  AbortWord& abort() { return abort_; }
  std::span<std::byte> memory() {
    return {reinterpret_cast<std::byte*>(lines_.data()), lines_.size() * sizeof(Line)};
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  comm::GroupInfo InfoOf(int rank) {
    comm::GroupInfo info{.name = "DP rank 1", .rank = rank, .abort = &abort_};
    info.world_ranks.resize(static_cast<size_t>(shape_.num_followers) + 1);
    std::iota(info.world_ranks.begin(), info.world_ranks.end(), 100);
    return info;
  }

  StepRingShape shape_;
  std::vector<Line> lines_;
  AbortWord abort_;
};

// Of any size from nothing to several slots, and of more than the whole ring.
std::vector<std::byte> BlockOf(int64_t index, size_t slot_bytes) {
  std::minstd_rand random(static_cast<uint32_t>(index) + 1);
  random.discard(2);
  size_t size = random() % (slot_bytes * 3 / 2);
  if (random() % 8 == 0) size = slot_bytes * (random() % 4);
  if (random() % 32 == 0) size = slot_bytes * 9 + 5;
  std::vector<std::byte> block(size);
  for (std::byte& b : block) b = static_cast<std::byte>(random());
  return block;
}

TEST(StepChannel, EveryBlockReachesEveryFollowerInOrder) {
  for (const StepRingShape shape : {StepRingShape{1, 64, 1}, StepRingShape{2, 100, 3},
                                    StepRingShape{7, 256, 4}, StepRingShape{0, 64, 2}}) {
    const int64_t num_blocks = 3000;
    Channel channel(shape);
    std::vector<int64_t> num_received(static_cast<size_t>(shape.num_followers));
    channel.Run(
        [&](StepSender& sender) {
          std::minstd_rand random(1);
          for (int64_t i = 0; i < num_blocks; ++i) {
            Dawdle(random);
            const Status pushed = sender.Push(BlockOf(i, shape.slot_bytes), In(kOneMinute));
            ASSERT_TRUE(pushed) << pushed.error().message();
          }
        },
        [&](int follower, StepReceiver& receiver) {
          std::minstd_rand random(static_cast<uint32_t>(follower) + 2);
          for (int64_t i = 0; i < num_blocks; ++i) {
            Dawdle(random);
            const auto block = receiver.Pop(In(kOneMinute));
            ASSERT_TRUE(block) << block.error().message();
            ASSERT_TRUE(std::ranges::equal(*block, BlockOf(i, shape.slot_bytes))) << i;
            ++num_received[static_cast<size_t>(follower)];
          }
          EXPECT_FALSE(receiver.Pop(In(milliseconds(1))));
        });
    for (const int64_t n : num_received) EXPECT_EQ(n, num_blocks);
    EXPECT_FALSE(channel.abort().is_set());
  }
}

TEST(StepChannel, TheLeaderIsNeverMoreThanTheRingAhead) {
  Channel channel({.num_followers = 2, .slot_bytes = 64, .num_slots = 3});
  std::atomic<int> num_pushed = 0;
  std::atomic<int> num_popped = 0;
  channel.Run(
      [&](StepSender& sender) {
        for (int i = 0; i < 500; ++i) {
          ASSERT_TRUE(sender.Push(BlockOf(0, 8), In(kOneMinute)));
          EXPECT_LE(++num_pushed - num_popped, 3);
        }
      },
      [&](int follower, StepReceiver& receiver) {
        for (int i = 0; i < 500; ++i) {
          if (follower == 1) {  // the slowest
            if (i % 50 == 0) std::this_thread::sleep_for(milliseconds(2));
            ++num_popped;
          }
          ASSERT_TRUE(receiver.Pop(In(kOneMinute)));
        }
      });
}

TEST(StepChannel, WhetherABlockIsThereIsKnownWithoutAWait) {
  Channel channel({.num_followers = 1, .slot_bytes = 64, .num_slots = 4});
  std::atomic<int> num_popped = 0;
  channel.Run(
      [&](StepSender& sender) {
        for (int i = 0; i < 20; ++i) {
          while (num_popped < i) std::this_thread::yield();
          ASSERT_TRUE(sender.Push(BlockOf(i, 64), In(kOneMinute)));
        }
      },
      [&](int /*follower*/, StepReceiver& receiver) {
        for (int i = 0; i < 20; ++i) {
          while (!receiver.HasBlock()) std::this_thread::yield();
          ASSERT_TRUE(receiver.Pop(In(kOneMinute)));
          EXPECT_FALSE(receiver.HasBlock());
          ++num_popped;
        }
      });
}

TEST(StepChannel, AFollowerThatDiesIsNamed) {
  Channel channel({.num_followers = 3, .slot_bytes = 64, .num_slots = 4});
  std::atomic<int> num_given_up = 0;
  channel.Run(
      [&](StepSender& sender) {
        const std::vector<std::byte> block(8);
        for (int i = 0; i < 24; ++i) ASSERT_TRUE(sender.Push(block, In(kOneMinute))) << i;
        const Status pushed = sender.Push(block, In(milliseconds(1000)));
        ASSERT_FALSE(pushed);
        EXPECT_EQ(pushed.error().code(), ErrorCode::kDeadline);
        EXPECT_EQ(pushed.error().message(),
                  "rank 102 did not come in time: rank 100 waited for it in step channel of DP "
                  "rank 1, step 24");
        EXPECT_EQ(sender.Push({}, In(kOneMinute)).error().message(), pushed.error().message());
      },
      [&](int follower, StepReceiver& receiver) {
        for (int i = 0; i < (follower == 1 ? 20 : 1000); ++i) {
          const auto block = receiver.Pop(In(kOneMinute));
          if (block) continue;
          EXPECT_EQ(i, 24);
          EXPECT_EQ(block.error().message(),
                    "step channel of DP rank 1, step 24, was given up: rank 100 saw a failure of "
                    "rank 102");
          ++num_given_up;
          return;
        }
      });
  EXPECT_EQ(channel.abort().culprit(), 102);
  EXPECT_EQ(num_given_up, 2);
}

TEST(StepChannel, APopThatCameTooEarlyLosesNothing) {
  Channel channel({.num_followers = 1, .slot_bytes = 64, .num_slots = 2});
  const std::vector<std::byte> whole(700, std::byte{3});
  std::atomic<int> num_early{0};
  channel.Run(
      [&](StepSender& sender) {
        const auto deadline = In(kOneMinute);
        while (num_early == 0 && Clock::now() < deadline) {
          std::this_thread::sleep_for(milliseconds(1));
        }
        ASSERT_TRUE(sender.Push(whole, In(kOneMinute)));
      },
      [&](int, StepReceiver& receiver) {
        while (true) {
          const auto block = receiver.Pop(Clock::now() + std::chrono::microseconds(200));
          if (block) {
            EXPECT_TRUE(std::ranges::equal(*block, whole));
            break;
          }
          ++num_early;
          ASSERT_EQ(block.error().code(), ErrorCode::kDeadline);
          ASSERT_EQ(block.error().message(), "rank 100 has sent rank 101 no plan yet");
        }
        EXPECT_GT(num_early, 0);
      });
  EXPECT_FALSE(channel.abort().is_set());
}

TEST(StepChannel, ASizeThatCannotBeIsRefused) {
  const StepRingShape shape{.num_followers = 1, .slot_bytes = 64, .num_slots = 4};
  for (const bool in_the_middle : {false, true}) {
    Channel channel(shape);
    channel.Run(
        [&](StepSender& sender) {
          ASSERT_TRUE(sender.Push(std::vector<std::byte>(100), In(kOneMinute)));
        },
        [&](int, StepReceiver& receiver) {
          const StepRing ring(shape, channel.memory());
          while (comm::SequenceOf(ring.written().word) != 2) std::this_thread::yield();
          *ring.SlotOf(in_the_middle ? 2 : 1).bytes_left = ~uint64_t{0};
          const auto block = receiver.Pop(In(kOneMinute));
          ASSERT_FALSE(block);
          EXPECT_EQ(block.error().code(), ErrorCode::kCorrupt);
          EXPECT_EQ(block.error().message(),
                    in_the_middle ? "step channel: 18446744073709551615 bytes of a block are said "
                                    "to be left, expected 36"
                                  : "step channel: a block of 18446744073709551615 bytes, expected "
                                    "at most 1073741824");
        });
  }
}

}  // namespace
}  // namespace moebius::rank
