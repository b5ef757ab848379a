// The shape of this machine: sockets, NUMA nodes, cores, caches. Plain data, read once at start by
// whoever places threads and memory. hwloc stays inside topology.cc.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::platform {

struct NumaNode {
  int id = 0;              // the system's number, as numactl takes it
  uint64_t num_bytes = 0;  // memory of the node; 0: unknown
  std::vector<int> cpus;   // ascending
};

struct Topology {
  int num_sockets = 0;
  int num_cores = 0;                 // physical
  int num_cpus = 0;                  // hardware threads
  std::vector<NumaNode> numa_nodes;  // ascending by id; at least one
  // Bytes of one cache (0: unknown) and how many there are.
  uint64_t l1d_bytes = 0, l2_bytes = 0, l3_bytes = 0;
  int num_l1d = 0, num_l2 = 0, num_l3 = 0;
  // One cpu of each core in `cpu_of_core`, node by node: where to pin one thread a core.
  std::vector<int> cpu_of_core;
};

// This machine, restricted to what this process may use (cgroup and affinity). kUnavailable if
// hwloc cannot tell.
Result<Topology> DetectTopology();

// A made-up machine in hwloc's synthetic notation: "package:2 numanode:1 core:4 pu:2".
// kInvalidArgument if malformed.
Result<Topology> TopologyFromSynthetic(const std::string& description);

// "0-3,8,10-11", as numactl and taskset take it; `cpus` ascending.
std::string CpuListText(const std::vector<int>& cpus);

}  // namespace moebius::platform
