#include <algorithm>
#include <cstdlib>
#include <functional>

#include "bench/micro/micro_bench.h"
#include "kernels/backend.h"
#include "kernels/cuda/benches.h"
#include "kernels/cuda/gemm/dense_products.h"
#include "platform/cuda/device.h"
#include "rank/rank_device.h"

namespace moebius::bench {
namespace {

// The most of 2, 4 and 8: experts are dealt evenly.
int MostRanks(int num_devices) {
  int ranks = 2;
  while (ranks < 8 && 2 * ranks <= num_devices) ranks *= 2;
  return ranks;
}

using RunProduct = std::function<void(const kernels::cuda::DenseProduct&, CUstream_st*)>;

// A benchmark that also runs products by the library; an error if it refuses one.
Status WithLibrary(const char* part, const std::function<void(const RunProduct&)>& bench) {
  MOEBIUS_ASSIGN(const auto products, kernels::cuda::DenseProducts::Create());
  const char* refused = nullptr;
  bench([&](const kernels::cuda::DenseProduct& product, CUstream_st* stream) {
    if (const char* text = products->Run(product, stream); text != nullptr) refused = text;
  });
  if (refused != nullptr) return MakeError(ErrorCode::kInternal, "{}: {}", part, refused);
  return {};
}

}  // namespace

Result<bool> BenchDeviceKernels(const KernelBenchOptions& options, std::FILE* json) {
  MOEBIUS_TRY(CheckParts(options.parts, {"gemm", "few", "mla", "mla-prefill", "gqa", "rows",
                                         "gemm-tiles", "mla-all"}));
  if (options.cpu_time) {
    return MakeError(ErrorCode::kInvalidArgument, "--cpu-time is of CPUs, expected --device cpu");
  }
  MOEBIUS_TRY(kernels::CudaBackend());
  const auto is_asked = [&](const char* part) {
    return std::ranges::find(options.parts, part) != options.parts.end();
  };
  const auto wanted = [&](const char* part) { return options.parts.empty() || is_asked(part); };
  kernels::cuda::EachOnce() = options.once;
  bool right = true;
  if (wanted("gemm") || is_asked("gemm-tiles")) {
    right = kernels::cuda::BenchGroupedGemm(is_asked("gemm-tiles"), json) && right;
  }
  if (wanted("few")) {
    MOEBIUS_TRY(WithLibrary("few", [&](const RunProduct& run) {
      right = kernels::cuda::BenchFewRows(run, json) && right;
    }));
  }
  if (wanted("mla") || is_asked("mla-all")) {
    right = kernels::cuda::BenchMlaDecode(is_asked("mla-all"), json) && right;
  }
  if (wanted("mla-prefill")) {
    MOEBIUS_TRY(WithLibrary("mla-prefill", [&](const RunProduct& run) {
      right = kernels::cuda::BenchMlaPrefill(run, json) && right;
    }));
  }
  if (wanted("gqa")) right = kernels::cuda::BenchGqa(json) && right;
  if (wanted("rows")) kernels::cuda::BenchRows(json);
  return right;
}

Result<bool> BenchDeviceExchange(const ExchangeBenchOptions& options, std::FILE* json) {
  // A kernel that is loaded while another one waits for it would wait, too.
  setenv("CUDA_MODULE_LOADING", "EAGER", 1);
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);
  MOEBIUS_TRY(kernels::CudaBackend());
  MOEBIUS_ASSIGN(const int num_devices, rank::NumRankDevices());
  int num_ranks = options.num_ranks;
  if (num_ranks == 0) num_ranks = options.share_gpus ? 2 : MostRanks(num_devices);
  const bool even = num_ranks == 2 || num_ranks == 4 || num_ranks == 8;
  if (!even || (!options.share_gpus && num_ranks > num_devices)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--ranks is {} with --device cuda and {} GPUs, expected 2, 4 or 8, a GPU for "
                     "each (--share-gpus checks ranks on one, without figures that count)",
                     num_ranks, num_devices);
  }
  for (int device = 0; !options.share_gpus && device < num_ranks; ++device) {
    MOEBIUS_TRY(platform::cuda::SelectDevice(device));
    for (int peer = 0; peer < num_ranks; ++peer) {
      if (peer != device) MOEBIUS_TRY(platform::cuda::EnablePeerAccess(peer));
    }
  }
  kernels::cuda::EachOnce() = options.once;
  return kernels::cuda::BenchExchange(num_ranks, options.share_gpus, json);
}

}  // namespace moebius::bench
