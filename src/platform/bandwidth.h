// How fast this machine streams memory: the ceiling of decoding, where every step reads the weights
// once.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "platform/thread_pool.h"

namespace moebius::platform {

struct BandwidthOptions {
  size_t num_bytes =
      0;  // read in one pass; 0: twice the last cache, 256 to 512 MiB, or what memory allows
  double seconds_each = 0.15;  // at least this long with one thread and again with all
};

struct Bandwidth {
  double one_thread = 0;   // bytes/s
  double all_threads = 0;  // bytes/s, by pool.num_threads() threads together
  size_t num_bytes = 0;    // that were read in one pass
};

// Reads one buffer again and again, with one thread and with all of the pool, and takes the best
// pass of each. Takes a few hundred milliseconds; called from the pool's owner thread. kOutOfMemory
// if there is no room for the buffer.
Result<Bandwidth> MeasureReadBandwidth(ThreadPool& pool, const BandwidthOptions& options = {});

}  // namespace moebius::platform
