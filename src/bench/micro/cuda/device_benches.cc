#include <algorithm>
#include <cstdlib>

#include "bench/micro/micro_bench.h"
#include "kernels/backend.h"
#include "kernels/cuda/benches.h"
#include "platform/cuda/device.h"
#include "rank/rank_device.h"

namespace moebius::bench {

Result<bool> BenchDeviceKernels(const KernelBenchOptions& options, std::FILE* json) {
  MOEBIUS_TRY(CheckParts(options.parts, {"gemm", "mla", "gqa", "rows", "gemm-tiles", "mla-all"}));
  if (options.cpu_time) {
    return MakeError(ErrorCode::kInvalidArgument, "--cpu-time is of CPUs, expected --device cpu");
  }
  MOEBIUS_TRY(kernels::CudaBackend());
  const auto is_asked = [&](const char* part) {
    return std::ranges::find(options.parts, part) != options.parts.end();
  };
  const auto wanted = [&](const char* part) { return options.parts.empty() || is_asked(part); };
  bool right = true;
  if (wanted("gemm") || is_asked("gemm-tiles")) {
    right = kernels::cuda::BenchGroupedGemm(is_asked("gemm-tiles"), json) && right;
  }
  if (wanted("mla") || is_asked("mla-all")) {
    right = kernels::cuda::BenchMlaDecode(is_asked("mla-all"), json) && right;
  }
  if (wanted("gqa")) right = kernels::cuda::BenchGqa(json) && right;
  if (wanted("rows")) kernels::cuda::BenchRows(json);
  return right;
}

Result<bool> BenchDeviceExchange(const ExchangeBenchOptions& options, std::FILE* json) {
  if (options.num_ranks != 0 && options.num_ranks != 2) {
    return MakeError(ErrorCode::kInvalidArgument, "--ranks is {}, expected 2 with --device cuda",
                     options.num_ranks);
  }
  // A kernel that is loaded while another one waits for it would wait, too.
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);
  MOEBIUS_TRY(kernels::CudaBackend());
  if (!options.share_gpus) {
    MOEBIUS_ASSIGN(const int num_devices, rank::NumRankDevices());
    if (num_devices < 2) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--device is cuda, but there is one GPU, expected two (--share-gpus checks "
                       "two ranks on one, without figures that count)");
    }
    for (const int device : {0, 1}) {
      MOEBIUS_TRY(platform::cuda::SelectDevice(device));
      MOEBIUS_TRY(platform::cuda::EnablePeerAccess(1 - device));
    }
  }
  return kernels::cuda::BenchExchange(options.share_gpus, json);
}

}  // namespace moebius::bench
