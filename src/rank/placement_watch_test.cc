#include "rank/placement_watch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace moebius::rank {
namespace {

struct alignas(64) WatchedLine {
  std::byte bytes[64] = {};
};

// A board of its own: 2 layers of 4 places.
class WatchedBoard {
 public:
  const BalanceBoard& operator*() const { return board_; }
  const BalanceBoard* operator->() const { return &board_; }

 private:
  static constexpr BalanceShape kShape{
      .num_ranks = 2, .num_layers = 2, .num_places = 4, .max_updates = 1, .chunk_bytes = 64};
  std::vector<WatchedLine> lines_{BalanceBoard::NumBytes(kShape) / sizeof(WatchedLine) + 1};
  BalanceBoard board_{kShape, std::as_writable_bytes(std::span(lines_))};
};

const moe::SlotList kInOrder = {0, 1, 2, 3};

// What layer 1 holds with a placement.
moe::SlotList ListOf(uint64_t epoch) {
  moe::SlotList list = kInOrder;
  std::ranges::rotate(list, list.begin() + static_cast<int64_t>(epoch % 4));
  return list;
}

void ShowAll(const BalanceBoard& board) {
  board.Show(0, std::vector<LayerUpdate>{{0, kInOrder}, {1, kInOrder}});
}

TEST(PlacementWatch, WithoutABoardExpertsStay) {
  PlacementWatch watch({.num_slots = 2, .layers = {{1, 0}}}, std::nullopt);
  EXPECT_FALSE(watch.Read().is_moving);
  EXPECT_EQ(watch.Of(0)->epoch, 0);
  EXPECT_EQ(watch.Of(0)->slots.layers, (std::vector<moe::SlotList>{{1, 0}}));
}

TEST(PlacementWatch, SaysWhatWasCommittedLast) {
  const WatchedBoard board;
  PlacementWatch watch({.num_slots = 4, .layers = {}}, *board);
  EXPECT_TRUE(watch.Read().slots.layers.empty()) << "in order";
  ShowAll(*board);
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    ++board->counters().num_committed;
    board->Show(epoch, std::vector<LayerUpdate>{{1, ListOf(epoch)}});
    EXPECT_EQ(watch.Read().epoch, static_cast<int64_t>(epoch) - 1);
    EXPECT_EQ(watch.Read().slots.layers[1], ListOf(epoch - 1)) << "no step may use it yet";
    board->Commit(epoch);
    const moe::PlacementState now = watch.Read();
    EXPECT_EQ(now.epoch, static_cast<int64_t>(epoch));
    EXPECT_EQ(now.slots.num_slots, 4);
    EXPECT_EQ(now.slots.layers, (std::vector<moe::SlotList>{kInOrder, ListOf(epoch)}));
  }
  // What was moved changes without an epoch.
  ++board->counters().num_dropped;
  board->counters().last_drop.Set("no source");
  const moe::PlacementState state = watch.Read();
  EXPECT_TRUE(state.is_moving);
  EXPECT_EQ(state.epoch, 3);
  EXPECT_EQ(state.moves.num_committed, 3);
  EXPECT_EQ(state.moves.num_dropped, 1);
  EXPECT_EQ(state.moves.last_drop, "no source");
}

// A step is heard of when the placement after its own, or a few, may be there.
TEST(PlacementWatch, KnowsThePlacementsOfStepsThatAreHeardOfLate) {
  const WatchedBoard board;
  PlacementWatch early({.num_slots = 4, .layers = {}}, *board);
  ShowAll(*board);
  const auto first = early.Of(0);
  constexpr int64_t kLast = 21;
  for (int64_t number = 3; number <= kLast; number += 2) {  // those between were dropped
    const auto epoch = static_cast<uint64_t>(number);
    board->Show(epoch, std::vector<LayerUpdate>{{1, ListOf(epoch)}});
    board->Commit(epoch);
  }
  EXPECT_EQ(early.Of(0), first) << "who has been asked remembers";
  PlacementWatch late({.num_slots = 4, .layers = {}}, *board);
  for (int i = 0; i < kKeptPlacements; ++i) {
    const int64_t epoch = kLast - 2 * i;
    const auto state = late.Of(epoch);
    ASSERT_NE(state, nullptr) << epoch;
    EXPECT_EQ(state->epoch, epoch);
    EXPECT_EQ(state->slots.layers,
              (std::vector<moe::SlotList>{kInOrder, ListOf(static_cast<uint64_t>(epoch))}));
    EXPECT_EQ(late.Of(epoch), state) << "made once";
  }
  EXPECT_EQ(late.Of(kLast - 2 * kKeptPlacements), nullptr);
  EXPECT_EQ(late.Of(kLast - 1), nullptr) << "it was dropped";
  EXPECT_NE(late.Of(0), nullptr) << "the start is known by itself";
}

}  // namespace
}  // namespace moebius::rank
