#include "app/this_cpu.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>

#include "kernels/backend.h"
#include "kernels/ops.h"
#include "platform/bandwidth.h"
#include "platform/memory.h"

namespace moebius::app {
namespace {

// Assumed, from what ranks as threads of two cores showed: an exchange whose flags are polled, and
// how much longer it takes for each rank beyond the cores, which must be woken in turn.
constexpr double kPolledUs = 10;
constexpr double kWokenUs = 100;
// An operation's share of the pool: threads that are told, and waited for.
constexpr double kStartUs = 3;
// A copied line is read, its place is read, and it is written.
constexpr double kMovesOfACopy = 3;
// What decoding reaches of streaming reads (bench/results/end-to-end-cpu.md).
constexpr double kDecodeShare = 0.8;

// Operations a second of products of many rows, as prompts have them.
Result<double> MeasureFlops(platform::ThreadPool& pool) {
  constexpr int64_t kRows = 256;
  constexpr int64_t kWidth = 2048;
  constexpr auto kTime = std::chrono::milliseconds(150);
  constexpr uint16_t kOne = 0x3f80;  // in bfloat16
  MOEBIUS_ASSIGN(const kernels::Backend* const backend, kernels::ChooseBackend());
  const size_t packed_bytes =
      kernels::PackedBytes(kernels::WeightFormat::kBF16, kWidth, kWidth, false);
  const size_t workspace_bytes =
      kernels::OpWorkspaceBytes({.num_threads = pool.num_threads()}) + Arena::kAlignment;
  const size_t matrix_bytes = static_cast<size_t>(kWidth * kWidth) * SizeOf(DType::kBF16);
  MOEBIUS_ASSIGN(platform::Region memory,
                 platform::Region::Allocate(3 * matrix_bytes + packed_bytes + workspace_bytes +
                                            5 * Arena::kAlignment));
  Arena arena(memory.data(), memory.size());
  const auto ones = [&](int64_t rows) {
    const Mat mat = arena.AllocMat(DType::kBF16, rows, kWidth);
    std::fill_n(mat.Row<uint16_t>(0), rows * kWidth, kOne);
    return mat;
  };
  kernels::WeightSource source;
  source.data = ones(kWidth).Row<uint16_t>(0);
  source.n = source.k = source.n_stride = kWidth;
  const kernels::PackedWeight weight =
      Pack(kernels::WeightFormat::kBF16, source, arena.Alloc(packed_bytes));
  kernels::GemmArgs product;
  product.a = ones(kRows);
  product.w = &weight;
  product.out = ones(kRows);
  Arena workspace(arena.Alloc(workspace_bytes), workspace_bytes);
  kernels::ExecContext context{backend, &pool, &workspace};
  using Clock = std::chrono::steady_clock;
  std::chrono::duration<double> best{1};
  for (const Clock::time_point end = Clock::now() + kTime; Clock::now() < end;) {
    const Clock::time_point begin = Clock::now();
    kernels::Gemm(context, product);
    best = std::min<std::chrono::duration<double>>(best, Clock::now() - begin);
  }
  return 2.0 * kRows * kWidth * kWidth / best.count();
}

}  // namespace

Result<plan::Device> ThisCpu(int num_ranks) {
  MOEBIUS_ASSIGN(const platform::SystemMemory memory, platform::ReadSystemMemory());
  const uint64_t total = memory.limit > 0 ? std::min(memory.limit, memory.total) : memory.total;
  plan::Device device;
  device.name = "cpu";
  device.title = num_ranks == 1 ? "this machine's memory"
                                : fmt::format("this machine's memory, shared by {}", num_ranks);
  device.hbm_bytes = static_cast<double>(total) / num_ranks;
  device.gpus_per_node = num_ranks;
  return device;
}

Result<plan::Device> MeasureThisCpu(int num_ranks) {
  MOEBIUS_ASSIGN(plan::Device device, ThisCpu(num_ranks));
  const std::unique_ptr<platform::ThreadPool> pool = platform::ThreadPool::Create();
  MOEBIUS_ASSIGN(const platform::Bandwidth bandwidth, platform::MeasureReadBandwidth(*pool));
  MOEBIUS_ASSIGN(const double flops, MeasureFlops(*pool));
  const int num_cores = pool->num_threads();
  device.hbm_bandwidth = bandwidth.all_threads / num_ranks;
  device.bf16_flops = device.fp8_flops = flops / num_ranks;
  device.link_bandwidth = device.node_bandwidth = device.hbm_bandwidth / kMovesOfACopy;
  device.link_latency_us = kPolledUs + kWokenUs * std::max(0, num_ranks - num_cores);
  device.launch_us = kStartUs;
  device.memory_efficiency = kDecodeShare;
  device.gemm_efficiency = device.attention_efficiency = 1;  // measured on the kernels themselves
  device.link_efficiency = device.node_efficiency = 1;
  device.title = fmt::format("1/{} of this machine's {} cpus, measured", num_ranks, num_cores);
  return device;
}

}  // namespace moebius::app
