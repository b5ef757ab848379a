// What the segments of the host pool are called, as TensorRT-LLM calls them:
// <base>_l<layer>_lr<local rank>_all, layers being counted among those with balanced experts. Plain
// functions, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "platform/named_segment.h"

namespace moebius::moe {

// MOEBIUS_EPLB_SHM_NAME, else TRTLLM_EPLB_SHM_NAME, else moe_shared: two deployments on one machine
// need two. Reads the environment. kInvalidArgument names the variable.
Result<std::string> HostPoolBase();

// kInvalidArgument: empty, above 200 characters, with a slash, or with a dot in front.
Status CheckHostPoolBase(const std::string& base);

std::string HostSegmentName(const std::string& base, int layer, int local_rank);

struct HostSegmentId {
  std::string base;
  int layer = 0;
  int local_rank = 0;
};
std::optional<HostSegmentId> ParseHostSegment(const std::string& name);

struct HostSegment {
  HostSegmentId id;
  platform::SegmentInfo info;
};

// Those of one base (empty: of any) in the folder, by base, layer and local rank; whoever owns
// them. No folder: none.
std::vector<HostSegment> ListHostSegments(
    const std::string& base, const std::string& folder = platform::kSharedMemoryFolder);

}  // namespace moebius::moe
