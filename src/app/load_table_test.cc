#include "app/load_table.h"

#include <gtest/gtest.h>

namespace moebius::app {
namespace {

TEST(LoadTable, ARankALineWithItsExperts) {
  const LoadTable table = {.num_moe_layers = 2,
                           .top_k = 1,
                           .expert_tokens = {10, 20, 30, 0, 40},
                           .experts = {{0, 2}, {2, 4}, {4, 5}, {5, 5}},
                           .rows = {20, 30, 0, 50},
                           .slots = {},
                           .slot_tokens = {},
                           .before = {},
                           .after = {},
                           .moves = {}};
  EXPECT_EQ(FormatLoad(table),
            "100 tokens came to experts: 1 of 5 take each token, in each of 2 layers.\n"
            "rank     own    experts    tokens   share  tokens of each expert\n"
            "   0      20     0 to 1        30  30.0 %        10      20\n"
            "   1      30     2 to 3        30  30.0 %        30       0\n"
            "   2       0     4 to 4        40  40.0 %        40\n"
            "   3      50       none         0   0.0 %  none\n");
}

TEST(LoadTable, SlotsBeforeAndAfterAMove) {
  LoadTable table = {.num_moe_layers = 1,
                     .top_k = 1,
                     .expert_tokens = {60, 20, 20},
                     .experts = {},
                     .rows = {40, 60},
                     .slots = {2, 2},
                     .slot_tokens = {55, 45},
                     .before = {},
                     .after = {},
                     .moves = {}};
  EXPECT_EQ(FormatLoad(table),
            "100 tokens came to experts: 1 of 3 take each token, in each of 1 layers.\n"
            "rank     own      slots    tokens   share\n"
            "   0      40          2        55  55.0 %\n"
            "   1      60          2        45  45.0 %\n");
  table.before = {.tokens = {80, 20}, .imbalance = 0.6};
  table.after = {.tokens = {50, 50}, .imbalance = 0};
  EXPECT_EQ(FormatLoad(table),
            "100 tokens came to experts: 1 of 3 take each token, in each of 1 layers.\n"
            "rank     own      slots    tokens   share   before     after\n"
            "   0      40          2        55  55.0 %       80        50\n"
            "   1      60          2        45  45.0 %       20        50\n"
            "before, after: these tokens as the first and the last placement share them out; a "
            "layer's busiest rank has 60 % and 0 % more than the mean.\n");
}

TEST(LoadTable, CutExpertsAndMany) {
  LoadTable table = {.num_moe_layers = 1,
                     .top_k = 2,
                     .expert_tokens = {},
                     .experts = {},
                     .rows = {},
                     .slots = {},
                     .slot_tokens = {},
                     .before = {},
                     .after = {},
                     .moves = {}};
  EXPECT_EQ(FormatLoad(table), "There are no experts.\n");
  for (int expert = 0; expert < 12; ++expert) table.expert_tokens.push_back(expert);
  EXPECT_NE(FormatLoad(table).find(" all            0 to 11        66  100.0 %  0 to 11 each\n"),
            std::string::npos)
      << FormatLoad(table);
  table.expert_tokens.assign(12, 0);  // nothing has been computed yet
  EXPECT_NE(FormatLoad(table).find("0.0 %"), std::string::npos);
}

TEST(LoadTable, SlotsAndWhatMoved) {
  LoadTable table = {.num_moe_layers = 2,
                     .top_k = 2,
                     .expert_tokens = {30, 30, 40},
                     .experts = {},
                     .rows = {20, 30},
                     .slots = {2, 2},
                     .slot_tokens = {40, 60},
                     .before = {},
                     .after = {},
                     .moves = {}};
  const std::string stays =
      "100 tokens came to experts: 2 of 3 take each token, in each of 2 layers.\n"
      "rank     own      slots    tokens   share\n"
      "   0      20          2        40  40.0 %\n"
      "   1      30          2        60  60.0 %\n";
  EXPECT_EQ(FormatLoad(table), stays);
  table.moves.emplace();
  EXPECT_EQ(FormatLoad(table), stays + "placement changed 0 times: 0 slots, 0.0 MB\n");
  table.moves->num_committed = 1;
  table.moves->num_slots = 3;
  table.moves->num_bytes = 1'260'000;
  EXPECT_EQ(FormatLoad(table), stays + "placement changed 1 time: 3 slots, 1.3 MB\n");
}

}  // namespace
}  // namespace moebius::app
