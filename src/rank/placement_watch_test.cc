#include "rank/placement_watch.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace moebius::rank {
namespace {

TEST(PlacementWatch, WithoutABoardExpertsStay) {
  PlacementWatch watch({.num_slots = 2, .layers = {{1, 0}}}, std::nullopt);
  EXPECT_FALSE(watch.Read().is_moving);
  EXPECT_EQ(watch.Now()->epoch, 0);
  EXPECT_EQ(watch.Now()->slots.layers, (std::vector<moe::SlotList>{{1, 0}}));
}

TEST(PlacementWatch, SaysWhatWasCommittedLast) {
  const BalanceShape shape{
      .num_ranks = 2, .num_layers = 2, .num_places = 4, .max_updates = 1, .chunk_bytes = 64};
  struct alignas(64) WatchedLine {
    std::byte bytes[64] = {};
  };
  std::vector<WatchedLine> lines(BalanceBoard::NumBytes(shape) / sizeof(WatchedLine) + 1);
  const BalanceBoard board(shape, std::as_writable_bytes(std::span(lines)));
  const moe::SlotList in_order = {0, 1, 2, 3};
  PlacementWatch watch({.num_slots = 4, .layers = {}}, board);
  EXPECT_TRUE(watch.Now()->slots.layers.empty()) << "in order";
  board.Show(std::vector<LayerUpdate>{{0, in_order}, {1, in_order}});

  const moe::SlotList turned = {1, 2, 3, 0};
  for (uint64_t epoch = 1; epoch <= 3; ++epoch) {
    const auto before = watch.Now();
    EXPECT_EQ(watch.Now(), before) << "made once an epoch";
    ++board.counters().num_committed;
    board.Show(std::vector<LayerUpdate>{{1, epoch % 2 == 1 ? turned : in_order}});
    board.Commit(epoch);
    const auto now = watch.Now();
    EXPECT_EQ(now->epoch, static_cast<int64_t>(epoch));
    EXPECT_EQ(now->slots.num_slots, 4);
    EXPECT_EQ(now->slots.layers,
              (std::vector<moe::SlotList>{in_order, epoch % 2 == 1 ? turned : in_order}));
    EXPECT_EQ(before->epoch, static_cast<int64_t>(epoch) - 1) << "who has it keeps it";
  }
  // What was moved changes without an epoch: Read has it, of the moment.
  ++board.counters().num_dropped;
  board.counters().last_drop.Set("no source");
  const moe::PlacementState state = watch.Read();
  EXPECT_TRUE(state.is_moving);
  EXPECT_EQ(state.epoch, 3);
  EXPECT_EQ(state.moves.num_committed, 3);
  EXPECT_EQ(state.moves.num_dropped, 1);
  EXPECT_EQ(state.moves.last_drop, "no source");
}

}  // namespace
}  // namespace moebius::rank
