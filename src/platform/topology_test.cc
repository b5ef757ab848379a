#include "platform/topology.h"

#include <gtest/gtest.h>

#include "platform/thread_pool.h"

namespace moebius::platform {
namespace {

TEST(Topology, CountsAMadeUpMachine) {
  // Per package: one node, one L3 of 32 MiB, 4 cores with 1 MiB of L2 and 32 KiB of L1 each, 2
  // threads a core.
  const Result<Topology> topology = TopologyFromSynthetic(
      "package:2 [numa(memory=1073741824)] l3:1(size=33554432) l2:4(size=1048576) "
      "l1d:1(size=32768) "
      "core:1 pu:2");
  ASSERT_TRUE(topology) << topology.error().message();
  EXPECT_EQ(topology->num_sockets, 2);
  EXPECT_EQ(topology->num_cores, 8);
  EXPECT_EQ(topology->num_cpus, 16);
  EXPECT_EQ(topology->num_l3, 2);
  EXPECT_EQ(topology->l3_bytes, 32u << 20);
  EXPECT_EQ(topology->num_l2, 8);
  EXPECT_EQ(topology->l2_bytes, 1u << 20);
  EXPECT_EQ(topology->num_l1d, 8);
  EXPECT_EQ(topology->l1d_bytes, 32u << 10);
  ASSERT_EQ(topology->numa_nodes.size(), 2u);
  EXPECT_EQ(topology->numa_nodes[1].id, 1);
  EXPECT_EQ(topology->numa_nodes[1].num_bytes, 1u << 30);
  EXPECT_EQ(CpuListText(topology->numa_nodes[1].cpus), "8-15");
  EXPECT_EQ(topology->cpu_of_core, (std::vector<int>{0, 2, 4, 6, 8, 10, 12, 14}));
}

TEST(Topology, WithoutCachesTheirSizesAreUnknown) {
  const Result<Topology> topology = TopologyFromSynthetic("core:3 pu:1");
  ASSERT_TRUE(topology);
  EXPECT_EQ(topology->num_l3, 0);
  EXPECT_EQ(topology->l3_bytes, 0u);
  EXPECT_EQ(topology->num_cores, 3);
  ASSERT_EQ(topology->numa_nodes.size(), 1u);
}

TEST(Topology, AMalformedDescriptionIsQuoted) {
  const Result<Topology> topology = TopologyFromSynthetic("socket of four");
  ASSERT_FALSE(topology);
  EXPECT_EQ(topology.error().code(), ErrorCode::kInvalidArgument);
  EXPECT_NE(topology.error().message().find("socket of four"), std::string::npos);
}

TEST(Topology, ThisMachineHasTheCpusThatThisProcessMayUse) {
  const Result<Topology> topology = DetectTopology();
  ASSERT_TRUE(topology) << topology.error().message();
  EXPECT_EQ(static_cast<size_t>(topology->num_cpus), AllowedCpus().size());
  EXPECT_GE(topology->num_cores, 1);
  EXPECT_LE(topology->num_cores, topology->num_cpus);
  EXPECT_EQ(topology->cpu_of_core.size(), static_cast<size_t>(topology->num_cores));
  EXPECT_FALSE(topology->numa_nodes.empty());
}

TEST(Topology, CpuListsAreRanges) {
  EXPECT_EQ(CpuListText({}), "");
  EXPECT_EQ(CpuListText({4}), "4");
  EXPECT_EQ(CpuListText({0, 1, 2, 3, 8, 10, 11}), "0-3,8,10-11");
}

}  // namespace
}  // namespace moebius::platform
