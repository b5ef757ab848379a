// Which cpus and which memory each rank of a deployment on this machine gets. Pure but for
// PlanRankCpus, which looks at the machine; any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "platform/thread_pool.h"
#include "platform/topology.h"

namespace moebius::rank {

struct RankCpus {
  // Of the threads that compute: each its own cpu where there are enough; else the rank shares its
  // part of the machine as a group.
  platform::PoolCpus compute;
  // Of the rank's other threads (engine, frames): the cpus that no rank computes on, where there
  // are any, else the rank's own.
  std::vector<int> control;
  std::vector<int> numa_nodes;  // of the cpus that compute

  std::string Describe() const;  // "computes on cpus 0-3, the rest on 8-9, memory of node 0"
};

// By rank. allowed: of the machine's cpus. Ranks are spread evenly over the NUMA nodes that have
// any, and a rank lies on one node where that is possible; hardware threads of a core are shared
// only where there are not enough cores.
std::vector<RankCpus> PlanRankCpus(const platform::Topology& machine,
                                   const std::vector<int>& allowed, int num_ranks,
                                   int threads_per_rank);

// A line for each run of ranks that are described alike: "ranks 0-7: 1 thread computes ...".
std::vector<std::string> DescribeRankCpus(const std::vector<RankCpus>& ranks);

// Of this machine, and the cpus that the calling thread may run on.
Result<RankCpus> PlanRankCpus(int rank, int num_ranks, int threads_per_rank);

}  // namespace moebius::rank
