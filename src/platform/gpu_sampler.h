// What this machine's GPUs do while something is measured: a thread asks the driver's management
// library (NVML, loaded at run time, so that no build needs it) a few times a second.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "base/result.h"

namespace moebius::platform {

// Of one GPU over the time that was sampled. Means, but for what is named otherwise.
struct GpuUse {
  int index = 0;  // as nvidia-smi counts
  int num_samples = 0;
  double sm_percent = 0;      // of the time, a kernel ran at all
  double memory_percent = 0;  // of the time, memory was read or written
  double watts = 0;
  double most_watts = 0;
  double sm_mhz = 0;
  double nvlink_bytes_per_second = 0;  // sent, without headers; 0 where the driver does not say
};

class GpuSampler {
 public:
  virtual ~GpuSampler() = default;

  // kUnavailable: no driver, or it shows no GPU.
  static Result<std::unique_ptr<GpuSampler>> Start(
      std::chrono::milliseconds period = std::chrono::milliseconds(50));

  // Ends it. Without a GPU that ever answered: empty.
  virtual std::vector<GpuUse> Stop() = 0;
};

}  // namespace moebius::platform
