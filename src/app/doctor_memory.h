// The part of `moebius doctor` about memory that processes share and devices reach: /dev/shm, huge
// pages in it, limits, binding to NUMA nodes, and what crashed servers left there. Reads and tries;
// changes nothing.
#pragma once

#include <string>
#include <vector>

#include "app/doctor.h"
#include "moe/migrate/host_pool_names.h"
#include "platform/shared_memory_room.h"

namespace moebius::app {

// Below, `root` is as in DoctorOptions.
std::vector<Finding> CheckMemories(const DoctorOptions& options,
                                   const Result<platform::Topology>& topology);

// The parts.

Finding CheckSharedMemory(const Result<platform::SharedMemoryRoom>& room);  // of /dev/shm
// word: platform::SharedHugePages.
Finding CheckSharedHugePages(const std::string& word);
Finding CheckMemoryLimit(const Result<platform::SystemMemory>& memory);
// In bytes; the largest number: no limit.
Finding CheckLockedMemory(uint64_t limit);
// probe: of binding to the first node.
Finding CheckMemoryBinding(const Result<platform::Topology>& topology, const Status& probe);
Finding CheckHostPools(const std::vector<moe::HostSegment>& segments);

}  // namespace moebius::app
