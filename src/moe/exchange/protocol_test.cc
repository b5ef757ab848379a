#include "moe/exchange/protocol.h"

#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "moe/exchange/mode.h"

namespace moebius::moe {
namespace {

TEST(ExchangeProtocol, SlotsLieInBlocksAndTheLastRanksHaveFewer) {
  const ExchangeShape shape{.num_ranks = 4, .num_slots = 9};
  EXPECT_EQ(shape.slots_per_rank(), 3);
  EXPECT_EQ(FirstSlot(shape, 2), 6);
  EXPECT_EQ(NumLocalSlots(shape, 2), 3);
  EXPECT_EQ(FirstSlot(shape, 3), 9);
  EXPECT_EQ(NumLocalSlots(shape, 3), 0);
  EXPECT_EQ(FirstSlot(shape, 4), 9);
}

TEST(ExchangeProtocol, CallsHaveNumbersOfTheirOwn) {
  std::set<uint32_t> numbers = {0};  // of memory before the first call
  for (int64_t step = 0; step < 100; ++step) {
    for (uint32_t call = 0; call < 200; ++call) {
      EXPECT_TRUE(numbers.insert(CallNumber(step, call)).second);
    }
  }
  EXPECT_EQ(CallNumber(65536 + 7, 3), CallNumber(7, 3));
}

TEST(ExchangeProtocol, ATokenGoesOnceToEachRankOfItsSlots) {
  const ExchangeShape shape{.num_ranks = 3, .num_slots = 6, .max_tokens = 10, .top_k = 3};
  // Tokens: ranks 2 and 0 (twice); none; rank 2; ranks 0, 1, 2.
  const std::vector<int32_t> slots = {4, 1, 0, -1, -1, -1, -1, 5, 4, 3, 1, 4};
  std::vector<int32_t> rows(12);
  std::vector<int32_t> ordinals(12, -5);
  std::vector<int32_t> counts(6);
  std::vector<int32_t> rows_to(3);
  AssignRoutes(shape, slots,
               {.rows = rows, .ordinals = ordinals, .counts = counts, .rows_to = rows_to});
  EXPECT_EQ(rows, (std::vector<int32_t>{0, 20, -1, -1, -1, -1, 21, -1, -1, 1, 10, 22}));
  EXPECT_EQ(rows_to, (std::vector<int32_t>{2, 1, 3}));
  EXPECT_EQ(counts, (std::vector<int32_t>{1, 2, 0, 1, 3, 1}));
  EXPECT_EQ(ordinals, (std::vector<int32_t>{0, 0, 0, -5, -5, -5, -5, 0, 1, 0, 1, 2}));
}

TEST(ExchangeProtocol, PlacesGoBySlotThenSource) {
  const ExchangeShape shape{.num_ranks = 2, .num_slots = 5};  // 3 and 2
  const std::vector<int32_t> counts = {2, 1, 77, 0, 4, 77};   // slot 2 is not there
  std::vector<int32_t> offsets(3);
  std::vector<int32_t> first(4);
  AssignPlaces(shape, 2, counts, offsets, first);
  EXPECT_EQ(offsets, (std::vector<int32_t>{0, 2, 7}));
  EXPECT_EQ(first, (std::vector<int32_t>{0, 2, 2, 3}));
}

TEST(ExchangeProtocol, LayoutHasRoomForEverything) {
  ExchangeShape shape{.num_ranks = 3, .num_slots = 7, .max_tokens = 5, .top_k = 2, .hidden = 10};
  const ExchangeLayout layout = LayOutExchange(shape);
  EXPECT_EQ(layout.combine_flags - layout.dispatch_flags, 3U * 64);
  EXPECT_GE(layout.results - layout.rows, 3U * 5 * 40);
  EXPECT_GE(layout.bytes - layout.results, 3U * 5 * 40);
  EXPECT_EQ(layout.bytes % 64, 0U);
  shape.deterministic = true;
  EXPECT_GE(LayOutExchange(shape).bytes - layout.results, 5U * 2 * 40);
}

TEST(ExchangeMode, AutoChoosesByTokens) {
  const int64_t threshold = ThroughputTokens(4096);
  EXPECT_GT(threshold, 1);
  EXPECT_EQ(ChooseMode(ExchangeMode::kAuto, threshold - 1, 4096), ExchangeMode::kLatency);
  EXPECT_EQ(ChooseMode(ExchangeMode::kAuto, threshold, 4096), ExchangeMode::kThroughput);
  EXPECT_EQ(ChooseMode(ExchangeMode::kLatency, threshold, 4096), ExchangeMode::kLatency);
  EXPECT_EQ(ChooseMode(ExchangeMode::kThroughput, 0, 4096), ExchangeMode::kThroughput);
  EXPECT_STREQ(ExchangeModeName(ExchangeMode::kThroughput), "throughput");
}

}  // namespace
}  // namespace moebius::moe
