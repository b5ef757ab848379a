// This machine's CPUs as a device of the planner: each rank gets an equal share of memory, cores
// and bandwidth. Called from the main thread.
#pragma once

#include "base/result.h"
#include "plan/device.h"

namespace moebius::app {

// With the name "cpu" and what is known without measuring: its memory.
Result<plan::Device> ThisCpu(int num_ranks);

// The same with its speeds, measured by all cores together in about half a second: streaming reads,
// as moebius doctor reads them, and a bf16 product of the kernels that would run. What ranks send
// is a copy through memory; what waiting and starting cost are assumed (this_cpu.cc).
Result<plan::Device> MeasureThisCpu(int num_ranks);

}  // namespace moebius::app
