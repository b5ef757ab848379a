#include "platform/topology.h"

#include <hwloc.h>

#include <memory>

namespace moebius::platform {
namespace {

struct Destroy {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Handle = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, Destroy>;

int Count(hwloc_topology_t topology, hwloc_obj_type_t type) {
  const int count = hwloc_get_nbobjs_by_type(topology, type);
  return count > 0 ? count : 0;
}

void ReadCache(hwloc_topology_t topology, hwloc_obj_type_t type, uint64_t* num_bytes, int* count) {
  *count = Count(topology, type);
  if (*count == 0) return;
  *num_bytes = hwloc_get_obj_by_type(topology, type, 0)->attr->cache.size;
}

std::vector<int> CpusOf(hwloc_const_cpuset_t set) {
  std::vector<int> cpus;
  for (int cpu = hwloc_bitmap_first(set); cpu >= 0; cpu = hwloc_bitmap_next(set, cpu)) {
    cpus.push_back(cpu);
  }
  return cpus;
}

Topology Read(hwloc_topology_t handle) {
  Topology topology;
  topology.num_sockets = Count(handle, HWLOC_OBJ_PACKAGE);
  topology.num_cores = Count(handle, HWLOC_OBJ_CORE);
  topology.num_cpus = Count(handle, HWLOC_OBJ_PU);
  for (hwloc_obj_t node = hwloc_get_next_obj_by_type(handle, HWLOC_OBJ_NUMANODE, nullptr);
       node != nullptr; node = hwloc_get_next_obj_by_type(handle, HWLOC_OBJ_NUMANODE, node)) {
    topology.numa_nodes.push_back({static_cast<int>(node->os_index),
                                   node->attr->numanode.local_memory, CpusOf(node->cpuset)});
  }
  ReadCache(handle, HWLOC_OBJ_L1CACHE, &topology.l1d_bytes, &topology.num_l1d);
  ReadCache(handle, HWLOC_OBJ_L2CACHE, &topology.l2_bytes, &topology.num_l2);
  ReadCache(handle, HWLOC_OBJ_L3CACHE, &topology.l3_bytes, &topology.num_l3);
  // hwloc numbers cores logically: neighbours share caches and nodes.
  for (int core = 0; core < topology.num_cores; ++core) {
    const hwloc_obj_t object =
        hwloc_get_obj_by_type(handle, HWLOC_OBJ_CORE, static_cast<unsigned>(core));
    topology.cpu_of_core.push_back(hwloc_bitmap_first(object->cpuset));
  }
  return topology;
}

Result<Handle> NewHandle() {
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) != 0) {
    return MakeError(ErrorCode::kUnavailable, "hwloc cannot start");
  }
  return Handle(topology);
}

}  // namespace

Result<Topology> DetectTopology() {
  MOEBIUS_ASSIGN(const Handle handle, NewHandle());
  if (hwloc_topology_load(handle.get()) != 0) {
    return MakeError(ErrorCode::kUnavailable, "hwloc cannot read this machine's topology");
  }
  // What cgroups forbid is left out by hwloc; what the affinity mask forbids (taskset) is not.
  hwloc_bitmap_t mine = hwloc_bitmap_alloc();
  if (hwloc_get_cpubind(handle.get(), mine, HWLOC_CPUBIND_PROCESS) == 0 &&
      !hwloc_bitmap_iszero(mine)) {
    hwloc_topology_restrict(handle.get(), mine, 0);
  }
  hwloc_bitmap_free(mine);
  return Read(handle.get());
}

Result<Topology> TopologyFromSynthetic(const std::string& description) {
  MOEBIUS_ASSIGN(const Handle handle, NewHandle());
  if (hwloc_topology_set_synthetic(handle.get(), description.c_str()) != 0 ||
      hwloc_topology_load(handle.get()) != 0) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "'{}' is no hwloc topology; expected something like \"package:2 core:4 pu:2\"",
                     description);
  }
  return Read(handle.get());
}

std::string CpuListText(const std::vector<int>& cpus) {
  std::string text;
  for (size_t begin = 0; begin < cpus.size();) {
    size_t end = begin + 1;
    while (end < cpus.size() && cpus[end] == cpus[end - 1] + 1) ++end;
    if (!text.empty()) text += ',';
    text += std::to_string(cpus[begin]);
    if (end - begin > 1) text += '-' + std::to_string(cpus[end - 1]);
    begin = end;
  }
  return text;
}

}  // namespace moebius::platform
