// Why a flag or a variable of vLLM's changes nothing here, where both lists say it.
#pragma once

namespace moebius::app {

inline constexpr const char* kByCpu = "kernels are chosen by the CPU; see moebius doctor";
inline constexpr const char* kSharedMemory = "ranks of one machine talk through shared memory";
inline constexpr const char* kNoGraphs = "there are no CUDA graphs or compiled graphs here";

}  // namespace moebius::app
