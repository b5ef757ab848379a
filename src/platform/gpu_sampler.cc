#include "platform/gpu_sampler.h"

#include <dlfcn.h>

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>
#include <thread>
#include <utility>

namespace moebius::platform {
namespace {

using Clock = std::chrono::steady_clock;

// The parts of NVML's interface that are asked for (its header comes with the CUDA toolkit, which
// most machines lack). 0 is success everywhere.
using Device = void*;
struct Utilization {
  unsigned gpu = 0;
  unsigned memory = 0;
};
struct FieldValue {
  unsigned field = 0;
  unsigned scope = 0;
  int64_t timestamp = 0;
  int64_t latency_us = 0;
  int value_type = 0;
  int result = 0;
  uint64_t value = 0;
};
constexpr unsigned kNvlinkDataSent = 138;  // KiB, of all links with the scope below
constexpr unsigned kAllLinks = std::numeric_limits<unsigned>::max();
constexpr int kSmClock = 1;

struct Nvml {
  int (*init)() = nullptr;
  int (*device_count)(unsigned*) = nullptr;
  int (*device_at)(unsigned, Device*) = nullptr;
  int (*utilization)(Device, Utilization*) = nullptr;
  int (*power)(Device, unsigned*) = nullptr;
  int (*clock)(Device, int, unsigned*) = nullptr;
  int (*fields)(Device, int, FieldValue*) = nullptr;

  bool is_complete() const {
    return init != nullptr && device_count != nullptr && device_at != nullptr &&
           utilization != nullptr && power != nullptr && clock != nullptr && fields != nullptr;
  }
};

template <typename Function>
void Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
}

// The library stays loaded.
Result<Nvml> LoadNvml() {
  void* const library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return MakeError(ErrorCode::kUnavailable, "no libnvidia-ml.so.1");
  Nvml nvml;
  Find(library, "nvmlInit_v2", &nvml.init);
  Find(library, "nvmlDeviceGetCount_v2", &nvml.device_count);
  Find(library, "nvmlDeviceGetHandleByIndex_v2", &nvml.device_at);
  Find(library, "nvmlDeviceGetUtilizationRates", &nvml.utilization);
  Find(library, "nvmlDeviceGetPowerUsage", &nvml.power);
  Find(library, "nvmlDeviceGetClockInfo", &nvml.clock);
  Find(library, "nvmlDeviceGetFieldValues", &nvml.fields);
  if (nvml.is_complete() && nvml.init() == 0) return nvml;
  return MakeError(ErrorCode::kUnavailable, "libnvidia-ml.so.1 does not start");
}

// One GPU's samples so far.
struct Watched {
  Device device = nullptr;
  GpuUse sums;
  uint64_t first_sent = 0;
  uint64_t last_sent = 0;
  Clock::time_point first;
  Clock::time_point last;
};

class NvmlSampler final : public GpuSampler {
 public:
  NvmlSampler(const Nvml& nvml, std::vector<Watched> gpus, std::chrono::milliseconds period)
      : nvml_(nvml), gpus_(std::move(gpus)), thread_([this, period] { Run(period); }) {}
  ~NvmlSampler() override { Join(); }

  std::vector<GpuUse> Stop() override {
    Join();
    std::vector<GpuUse> uses;
    for (const Watched& gpu : gpus_) {
      GpuUse use = gpu.sums;
      if (use.num_samples == 0) continue;
      for (double* sum : {&use.sm_percent, &use.memory_percent, &use.watts, &use.sm_mhz}) {
        *sum /= use.num_samples;
      }
      const double seconds = std::chrono::duration<double>(gpu.last - gpu.first).count();
      if (seconds > 0) {
        const auto kib = static_cast<double>(gpu.last_sent - gpu.first_sent);
        use.nvlink_bytes_per_second = kib * 1024 / seconds;
      }
      uses.push_back(use);
    }
    return uses;
  }

 private:
  void Join() {
    {
      const std::lock_guard lock(mutex_);
      is_stopping_ = true;
    }
    stop_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  void Run(std::chrono::milliseconds period) {
    std::unique_lock lock(mutex_);
    do {
      for (Watched& gpu : gpus_) Sample(gpu);
    } while (!stop_.wait_for(lock, period, [this] { return is_stopping_; }));
  }

  void Sample(Watched& gpu) const {
    Utilization utilization;
    unsigned milliwatts = 0;
    unsigned mhz = 0;
    if (nvml_.utilization(gpu.device, &utilization) != 0) return;
    if (nvml_.power(gpu.device, &milliwatts) != 0) return;
    if (nvml_.clock(gpu.device, kSmClock, &mhz) != 0) return;
    GpuUse& sums = gpu.sums;
    sums.sm_percent += utilization.gpu;
    sums.memory_percent += utilization.memory;
    sums.watts += milliwatts * 1e-3;
    sums.most_watts = std::max(sums.most_watts, milliwatts * 1e-3);
    sums.sm_mhz += mhz;
    FieldValue sent = {.field = kNvlinkDataSent, .scope = kAllLinks};
    if (nvml_.fields(gpu.device, 1, &sent) == 0 && sent.result == 0) {
      gpu.last = Clock::now();
      gpu.last_sent = sent.value;
      if (gpu.first_sent == 0) {
        gpu.first = gpu.last;
        gpu.first_sent = gpu.last_sent;
      }
    }
    ++sums.num_samples;
  }

  const Nvml nvml_;
  std::vector<Watched> gpus_;  // the thread's until it is joined
  std::mutex mutex_;
  std::condition_variable stop_;
  bool is_stopping_ = false;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<GpuSampler>> GpuSampler::Start(std::chrono::milliseconds period) {
  MOEBIUS_ASSIGN(const Nvml nvml, LoadNvml());
  unsigned count = 0;
  if (nvml.device_count(&count) != 0 || count == 0) {
    return MakeError(ErrorCode::kUnavailable, "the driver shows no GPU");
  }
  std::vector<Watched> gpus;
  for (unsigned i = 0; i < count; ++i) {
    Watched gpu;
    gpu.sums.index = static_cast<int>(i);
    if (nvml.device_at(i, &gpu.device) == 0) gpus.push_back(gpu);
  }
  return std::make_unique<NvmlSampler>(nvml, std::move(gpus), period);
}

}  // namespace moebius::platform
