#include "rank/links.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "rank/rank_start.h"
#include "rank/testing/golden_ranks.h"

namespace moebius::rank {
namespace {

using comm::Clock;

// Well below what a rank that does not come is waited for.
constexpr auto kNoWait = std::chrono::milliseconds(1500);

// The links of all ranks, and those that leave, each on a thread of its own.
class LeavingRanks {
 public:
  explicit LeavingRanks(const DeploymentShape& shape)
      : lines_(Links::NumBytes(shape) / sizeof(Line) + 1) {
    const std::span bytes(reinterpret_cast<std::byte*>(lines_.data()),
                          lines_.size() * sizeof(Line));
    Control::Create(bytes, shape.num_ranks(), Links::HashOf(shape));
    for (int rank = 0; rank < shape.num_ranks(); ++rank) {
      links_.push_back(std::move(*Links::Open(shape, RankId(rank), bytes)));
    }
  }
  ~LeavingRanks() { Join(); }

  const Control& control() const { return links_[0]->control(); }
  int num_left() const { return num_left_; }
  void Leave(int rank) {
    threads_.emplace_back([this, rank] {
      links_[static_cast<size_t>(rank)]->Leave();
      ++num_left_;
    });
  }
  void Join() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  std::vector<Line> lines_;
  std::vector<std::unique_ptr<Links>> links_;
  std::vector<std::thread> threads_;
  std::atomic<int> num_left_ = 0;
};

DeploymentShape TwoGroupsOfTwo() {
  return *ShapeOf(testing::GoldenOptions(testing::Parallel(2, 2, 1, true)));
}

TEST(LinksLeave, NobodyGoesBeforeTheLastOneHasCome) {
  LeavingRanks ranks(TwoGroupsOfTwo());
  for (const int rank : {0, 1, 3}) ranks.Leave(rank);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(ranks.num_left(), 0);
  const auto begin = Clock::now();
  ranks.Leave(2);
  ranks.Join();
  EXPECT_LT(Clock::now() - begin, kNoWait);
}

TEST(LinksLeave, RanksThatShareNothingAreNotWaitedFor) {
  DeploymentShape shape = TwoGroupsOfTwo();
  shape.has_experts = false;
  LeavingRanks ranks(shape);
  const auto begin = Clock::now();
  for (const int rank : {2, 3}) ranks.Leave(rank);
  ranks.Join();
  EXPECT_LT(Clock::now() - begin, kNoWait);
}

TEST(LinksLeave, OneThatDoesNotComeHoldsUpTheEndForAWhile) {
  LeavingRanks ranks(TwoGroupsOfTwo());
  const auto begin = Clock::now();
  for (const int rank : {0, 1, 2}) ranks.Leave(rank);
  ranks.Join();
  EXPECT_GT(Clock::now() - begin, std::chrono::seconds(1));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(30));
}

TEST(LinksLeave, AFailureEndsTheWait) {
  LeavingRanks ranks(TwoGroupsOfTwo());
  ranks.Leave(0);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(ranks.num_left(), 0);
  const auto begin = Clock::now();
  ranks.control().abort().Set(-1, 3);
  ranks.Join();
  ranks.Leave(1);
  ranks.Join();
  EXPECT_LT(Clock::now() - begin, kNoWait);
  EXPECT_NE(ranks.control().Read(1).state, RankState::kEnding);
}

TEST(LinksShape, ALetterHoldsAStepOfAGpuWithItsPadding) {
  RankOptions options = testing::GoldenOptions(testing::Parallel(1, 1, 2, false));
  options.engine.max_num_batched_tokens = 250;
  options.engine.max_num_seqs = 250;
  const auto on_cpu = ShapeOf(options);
  ASSERT_TRUE(on_cpu) << on_cpu.error().message();
  kernels::Backend backend = *options.load.backend;
  backend.on_host = false;
  options.load.backend = &backend;
  EXPECT_EQ(ShapeOf(options)->stage_bytes, on_cpu->stage_bytes / 250 * 256);
}

}  // namespace
}  // namespace moebius::rank
