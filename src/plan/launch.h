// The command lines that start a layout: Moebius and vLLM. Pure, any thread.
#pragma once

#include <string>
#include <vector>

#include "plan/search.h"

namespace moebius::plan {

// One command for each kind of node: the first, and where there are others, what runs on node 1
// (others count on). Without ours where the layout is one that only vLLM has, without
// vLLM's where ranks have uneven slots.
struct Launch {
  std::vector<std::string> moebius;
  std::vector<std::string> vllm;
};

// Which ranks `moebius serve` runs, for whoever planned others.
inline constexpr const char* kWhatRuns =
    "moebius serve runs ranks on one machine: on its CPUs, or each on a Hopper GPU (--device "
    "cuda).";

Launch LaunchCommands(const PlanInput& input, const Estimate& estimate);

// "--tensor-parallel-size 4 --data-parallel-size 2 --enable-expert-parallel".
std::string LayoutFlags(const layout::ParallelConfig& config);

}  // namespace moebius::plan
