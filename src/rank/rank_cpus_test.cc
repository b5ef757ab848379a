#include "rank/rank_cpus.h"

#include <gtest/gtest.h>

namespace moebius::rank {
namespace {

std::vector<RankCpus> Plan(const char* machine, int num_ranks, int threads,
                           std::vector<int> allowed = {}) {
  const auto topology = platform::TopologyFromSynthetic(machine);
  EXPECT_TRUE(topology) << topology.error().message();
  if (allowed.empty()) {
    for (const platform::NumaNode& node : topology->numa_nodes) {
      allowed.insert(allowed.end(), node.cpus.begin(), node.cpus.end());
    }
  }
  return PlanRankCpus(*topology, allowed, num_ranks, threads);
}

using Cpus = std::vector<int>;

TEST(RankCpus, EachRankItsOwnOnItsNode) {
  const auto ranks = Plan("package:2 [numa] core:4 pu:1", 4, 2);
  ASSERT_EQ(ranks.size(), 4u);
  EXPECT_EQ(ranks[0].compute.cpus, (Cpus{0, 1}));
  EXPECT_EQ(ranks[1].compute.cpus, (Cpus{2, 3}));
  EXPECT_EQ(ranks[2].compute.cpus, (Cpus{4, 5}));
  EXPECT_EQ(ranks[3].compute.cpus, (Cpus{6, 7}));
  EXPECT_EQ(ranks[0].numa_nodes, Cpus{0});
  EXPECT_EQ(ranks[3].numa_nodes, Cpus{1});
  EXPECT_FALSE(ranks[0].compute.is_group);
  EXPECT_EQ(ranks[2].control, (Cpus{4, 5}));  // nothing is idle
  EXPECT_EQ(ranks[3].Describe(), "2 threads compute on cpus 6-7, memory of node 1");
}

TEST(RankCpus, RanksThatAreAlikeShareALine) {
  EXPECT_EQ(DescribeRankCpus(Plan("package:2 [numa] core:1 pu:1", 5, 1)),
            (std::vector<std::string>{
                "ranks 0-2: each 1 thread computes on cpus 0, shared with others, memory of node 0",
                "ranks 3-4: each 1 thread computes on cpus 1, shared with others, memory of node "
                "1"}));
  EXPECT_EQ(DescribeRankCpus(Plan("package:1 [numa] core:2 pu:1", 2, 1)),
            (std::vector<std::string>{"rank 0: 1 thread computes on cpus 0, memory of node 0",
                                      "rank 1: 1 thread computes on cpus 1, memory of node 0"}));
}

TEST(RankCpus, FewRanksAreSpreadAndTheRestGoesElsewhere) {
  const auto ranks = Plan("package:2 [numa] core:4 pu:1", 2, 2);
  EXPECT_EQ(ranks[0].compute.cpus, (Cpus{0, 1}));
  EXPECT_EQ(ranks[1].compute.cpus, (Cpus{4, 5}));
  EXPECT_EQ(ranks[0].control, (Cpus{2, 3, 6, 7}));
  EXPECT_EQ(ranks[0].Describe(),
            "2 threads compute on cpus 0-1, the rest on 2-3,6-7, memory of node 0");
}

TEST(RankCpus, ACoreIsSharedOnlyWhereCoresAreFew) {
  // Hardware threads 0 and 1 are one core.
  const auto cores = Plan("package:1 [numa] core:4 pu:2", 2, 2);
  EXPECT_EQ(cores[0].compute.cpus, (Cpus{0, 2}));
  EXPECT_EQ(cores[1].compute.cpus, (Cpus{4, 6}));
  EXPECT_EQ(cores[0].control, (Cpus{1, 3, 5, 7}));
  const auto threads = Plan("package:1 [numa] core:4 pu:2", 3, 2);
  EXPECT_EQ(threads[0].compute.cpus, (Cpus{0, 2}));
  EXPECT_EQ(threads[2].compute.cpus, (Cpus{1, 3}));
}

TEST(RankCpus, MoreRanksThanCpusShareGroups) {
  const auto ranks = Plan("package:2 [numa] core:2 pu:1", 8, 1);
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    EXPECT_TRUE(ranks[rank].compute.is_group);
    EXPECT_EQ(ranks[rank].compute.num_threads, 1);
    EXPECT_EQ(ranks[rank].compute.cpus, rank < 4 ? (Cpus{0, 1}) : (Cpus{2, 3}));
    EXPECT_EQ(ranks[rank].control, ranks[rank].compute.cpus);
    EXPECT_EQ(ranks[rank].numa_nodes, Cpus{rank < 4 ? 0 : 1});
  }
  EXPECT_EQ(ranks[0].Describe(),
            "1 thread computes on cpus 0-1, shared with others, memory of node 0");
  const auto one = Plan("package:2 [numa] core:2 pu:1", 1, 8);
  EXPECT_EQ(one[0].compute.cpus, (Cpus{0, 1, 2, 3}));
  EXPECT_EQ(one[0].numa_nodes, (Cpus{0, 1}));
}

TEST(RankCpus, ARankMayLieOnTwoNodesWhereNothingElseFits) {
  const auto ranks = Plan("package:2 [numa] core:3 pu:1", 3, 2);
  EXPECT_EQ(ranks[1].compute.cpus, (Cpus{2, 3}));
  EXPECT_EQ(ranks[1].numa_nodes, (Cpus{0, 1}));
}

TEST(RankCpus, OnlyAllowedCpus) {
  const auto ranks = Plan("package:2 [numa] core:4 pu:1", 2, 1, {1, 2, 6});
  EXPECT_EQ(ranks[0].compute.cpus, Cpus{1});
  EXPECT_EQ(ranks[1].compute.cpus, Cpus{6});
  EXPECT_EQ(ranks[1].control, Cpus{2});
  const auto one_node = Plan("package:2 [numa] core:4 pu:1", 2, 1, {1, 2});
  EXPECT_EQ(one_node[1].compute.cpus, Cpus{2});
  EXPECT_EQ(one_node[1].numa_nodes, Cpus{0});
}

TEST(RankCpus, OfThisMachine) {
  const int num_cpus = static_cast<int>(platform::AllowedCpus().size());
  for (int rank = 0; rank < num_cpus; ++rank) {
    const auto cpus = PlanRankCpus(rank, num_cpus, 1);
    ASSERT_TRUE(cpus) << cpus.error().message();
    EXPECT_EQ(cpus->compute.cpus.size(), 1u);
  }
  const auto many = PlanRankCpus(7, 1000, 2);
  ASSERT_TRUE(many);
  EXPECT_TRUE(many->compute.is_group);
}

}  // namespace
}  // namespace moebius::rank
