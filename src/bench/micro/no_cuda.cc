// The twin of cuda/device_benches.cc in a build without CUDA.
#include "bench/micro/micro_bench.h"
#include "kernels/backend.h"

namespace moebius::bench {

Result<bool> BenchDeviceKernels(const KernelBenchOptions& /*options*/, std::FILE* /*json*/) {
  return tl::unexpected(kernels::CudaBackend().error());
}

Result<bool> BenchDeviceExchange(const ExchangeBenchOptions& /*options*/, std::FILE* /*json*/) {
  return tl::unexpected(kernels::CudaBackend().error());
}

}  // namespace moebius::bench
