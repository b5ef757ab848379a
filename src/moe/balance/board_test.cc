#include "moe/balance/board.h"

#include <gtest/gtest.h>

#include <random>

namespace moebius::moe {
namespace {

// Whatever is swapped and replaced, the board knows the same as one that is made anew.
TEST(Board, KnowsWhatItHoldsAfterAnyMoves) {
  const SlotShape shape{
      .num_experts = 48, .num_slots = 66, .num_ranks = 4};  // two places are empty
  std::mt19937 random(3);
  std::vector<double> load;
  for (int e = 0; e < shape.num_experts; ++e)
    load.push_back(1 + static_cast<double>(random() % 99));
  SlotList list;
  for (int r = 0, slot = 0; r < shape.num_ranks; ++r) {
    for (int i = 0; i < shape.places_per_rank(); ++i) {
      list.push_back(i < shape.SlotsOf(r) ? slot++ % shape.num_experts : -1);
    }
  }
  Board board(shape, load, list, {});
  const auto any_place = [&] {
    const int rank = static_cast<int>(random() % 4);
    return board.FirstPlace(rank) + static_cast<int>(random() % 16);  // each rank has that many
  };
  for (int move = 0; move < 200; ++move) {
    const int place = any_place();
    const int other = any_place();
    if (place == other) continue;
    if (move % 2 == 0) {
      board.Swap(place, other);
    } else if (board.copies(board.expert(place)) > 1) {
      board.Replace(place, board.expert(other));
    }
    const Board anew(shape, load, board.experts(), {});
    int next_shared = board.NextShared(0);
    for (int p = 0; p < shape.num_places(); ++p) {
      EXPECT_EQ(board.weight(p), anew.weight(p));
      const int32_t expert = board.expert(p);
      if (expert < 0 || anew.copies(expert) < 2) continue;
      ASSERT_EQ(next_shared, p);
      next_shared = board.NextShared(p + 1);
    }
    EXPECT_EQ(next_shared, shape.num_places());
    for (int r = 0; r < shape.num_ranks; ++r) EXPECT_EQ(board.load(r), anew.load(r));
    EXPECT_EQ(board.total(), anew.total());
  }
}

}  // namespace
}  // namespace moebius::moe
