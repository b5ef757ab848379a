// `moebius eplb clean`: which segments of host pools lie in shared memory, whose they are, and the
// removal of those whose owner is dead. A live one is never touched, nor one of another program.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "base/result.h"
#include "moe/migrate/host_pool_names.h"

namespace moebius::app {

struct EplbCleanOptions {
  std::string name;      // --name BASE; empty: what a server would take (HostPoolBase)
  bool all = false;      // --all: of every base
  bool dry_run = false;  // --dry-run: only list them
  std::string folder = platform::kSharedMemoryFolder;
};

struct CleanedSegment {
  moe::HostSegment segment;
  bool removed = false;
};

// By name, layer and local rank. kInvalidArgument: the name; kUnavailable: one that is left over
// cannot be removed.
Result<std::vector<CleanedSegment>> CleanHostPools(const EplbCleanOptions& options);

// A line a segment and a closing count.
void PrintCleaned(const std::vector<CleanedSegment>& segments, const EplbCleanOptions& options,
                  std::FILE* out);

// Both; what `moebius eplb clean` does.
Status RunEplbClean(std::FILE* out, const EplbCleanOptions& options);

}  // namespace moebius::app
