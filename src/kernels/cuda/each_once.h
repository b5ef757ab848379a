// Whether benchmarks launch each thing they time one time, alone, so that a profiler that runs a
// launch again and again sees it as it is. Set before a benchmark runs, by the main thread.
#pragma once

namespace moebius::kernels::cuda {

inline bool& EachOnce() {
  static bool once = false;
  return once;
}

}  // namespace moebius::kernels::cuda
