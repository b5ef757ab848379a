// What a deployment takes of a machine's memory before its ranks have room for KV: each rank's
// weights, and the memory that all ranks share. Known before any rank is started; no weight is
// read. Pure but for the look at the model's folder and at the memory that is available.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "rank/thread_ranks.h"

namespace moebius::rank {

struct DeploymentMemory {
  std::vector<uint64_t> weight_bytes;  // by rank, packed
  uint64_t shared_bytes = 0;           // Links::NumBytes: control, collectives, exchange, plans
  uint64_t exchange_bytes = 0;         // of those, the exchange's regions
  uint64_t available_bytes = 0;        // before the start

  uint64_t total_weights() const;
  uint64_t total() const { return total_weights() + shared_bytes; }
  std::string Describe() const;  // one line
};

// Ranks on CPUs; on GPUs weights lie elsewhere and are not counted. Errors are those of a start.
Result<DeploymentMemory> PlanDeployment(const RankOptions& options);

// kOutOfMemory: it does not fit; the message has the figures and says what to change.
Status CheckFits(const DeploymentMemory& memory, const RankOptions& options);

}  // namespace moebius::rank
