#include "serve/counts_json.h"

#include <gtest/gtest.h>

#include <vector>

namespace moebius::serve {
namespace {

TEST(CountsJson, HasEveryRankLayerAndPhase) {
  moe::ExpertStats stats(2, 3);
  stats.Count(0, std::vector<int32_t>{0, 0, 2});
  stats.Count(1, std::vector<int32_t>{1});
  stats.counts()[6] = 1;  // of expert 0's tokens in layer 0 one was a prompt's
  ModelFacts model;
  model.num_experts = 3;
  model.experts_per_token = 2;
  model.moe_layers = {4, 6};
  const moe::PlacementState placement{
      .epoch = 5, .slots = {.num_slots = 4, .layers = {{0, 1, 2, 0}, {2, 1, 0, 2}}}, .moves = {}};
  EXPECT_EQ(CountsJson(model, placement, std::vector<moe::ExpertStats>{stats, {}}),
            R"({"num_experts":3,"num_experts_per_token":2,"layers":[4,6],"epoch":5,)"
            R"("slots":[[0,1,2,0],[2,1,0,2]],"ranks":[)"
            R"({"decode":[[1,0,1],[0,1,0]],"prefill":[[1,0,0],[0,0,0]]},)"
            R"({"decode":[[0,0,0],[0,0,0]],"prefill":[[0,0,0],[0,0,0]]}]})");
  EXPECT_EQ(
      CountsJson({}, {}, std::vector<moe::ExpertStats>(1)),
      R"({"num_experts":0,"num_experts_per_token":0,"layers":[],"epoch":0,"slots":[],"ranks":[)"
      R"({"decode":[],"prefill":[]}]})");
}

}  // namespace
}  // namespace moebius::serve
