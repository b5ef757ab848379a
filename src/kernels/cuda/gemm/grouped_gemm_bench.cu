// Times the grouped GEMM by graph replay on rotating inputs larger than the L2, checks sampled
// outputs in the same run, and prints each row beside the card's own limit and the peer's figure.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/benches.h"
#include "kernels/cuda/gemm/bench_rows.h"
#include "kernels/cuda/gemm/quantize.h"
#include "kernels/cuda/gemm/test_support.cuh"

namespace moebius::cuda::testing {
namespace {

using moebius::kernels::cuda::EachOnce;
using tuning::GemmFormat;

constexpr double kFp8Tflops =
    1400;  // cuBLASLt on the same kind of card: 1393 to 1438 (fp8), 782 (bf16)
constexpr double kBf16Tflops = 782;
constexpr int kSms = 132;
constexpr size_t kRotateBytes = 400u << 20;  // several times the L2

// Median, lowest and highest microseconds of one of the launches that `body(i)` records, i counting
// up.
struct Timing {
  double median_us;
  double low_us;
  double high_us;
};

template <class Body>
Timing TimeLaunches(int launches, int replays, cudaStream_t stream, const Body& body) {
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  Check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  for (int i = 0; i < launches; ++i) {
    body(i);
  }
  Check(cudaStreamEndCapture(stream, &graph), "capture");
  Check(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  cudaEvent_t begin;
  cudaEvent_t end;
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int i = 0; i < replays + 1; ++i) {
    Check(cudaEventRecord(begin, stream), "record");
    Check(cudaGraphLaunch(exec, stream), "replay");
    Check(cudaEventRecord(end, stream), "record");
    Check(cudaEventSynchronize(end), "replay");
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    if (i > 0) {  // the first replay warms up
      times.push_back(ms * 1000.0 / launches);
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

// Single launches between two events, each after a rest (matrix units at full rate meet the card's
// power limit within milliseconds) and after writing 1 GiB, which empties the L2. Contains the
// launch's own latency.
template <class Body>
Timing TimeSingles(int repeats, cudaStream_t stream, const Body& body) {
  constexpr size_t kFlush = size_t{1} << 30;
  constexpr auto kRest = std::chrono::milliseconds(15);
  static const DeviceArray<uint8_t> flush(kFlush);
  cudaEvent_t begin;
  cudaEvent_t end;
  Check(cudaEventCreate(&begin), "event");
  Check(cudaEventCreate(&end), "event");
  std::vector<double> times;
  for (int i = 0; i < repeats + 1; ++i) {
    std::this_thread::sleep_for(kRest);
    Check(cudaMemsetAsync(flush.get(), 0, kFlush, stream), "flush");
    Check(cudaEventRecord(begin, stream), "record");
    body(i);
    Check(cudaEventRecord(end, stream), "record");
    Check(cudaEventSynchronize(end), "single");
    float ms = 0;
    Check(cudaEventElapsedTime(&ms, begin, end), "elapsed");
    if (i > 0) {
      times.push_back(ms * 1000.0);
    }
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front(), times.back()};
}

// Several input sets of one row, so that no launch finds its weights or rows in the L2.
class Problem {
 public:
  Problem(const BenchRow& row, uint64_t seed) : row_(row) {
    const int element = row.format == GemmFormat::kFp8Block ? 1 : 2;
    const size_t slot_bytes = static_cast<size_t>(row.n) * row.k * element;
    std::vector<int32_t> offsets = {0};
    for (int g = 0; g < row.groups; ++g) {
      const double factor = row.ragged ? 0.7 + 0.6 * Uniform(seed * 1000 + g) : 1.0;
      offsets.push_back(offsets.back() + std::max(1, static_cast<int>(row.rows * factor)));
    }
    total_ = offsets.back();
    capacity_ = (total_ + 3) / 4 * 4;
    sets_ = static_cast<int>(std::max<size_t>(2, kRotateBytes / (slot_bytes * row.groups) + 1));
    offsets_ = DeviceArray<int32_t>(offsets);
    weights_ = DeviceArray<uint8_t>(slot_bytes * row.groups * sets_);
    FillOperand(weights_.get(), row.format, weights_.size() / element, seed);
    weight_scales_ =
        DeviceArray<float>(static_cast<size_t>(row.groups) * sets_ * (row.n / 128) * (row.k / 128));
    FillScales(weight_scales_.get(), weight_scales_.size(), seed + 1);
    for (int s = 0; s < sets_; ++s) {
      std::vector<int32_t> slots(row.groups);
      for (int g = 0; g < row.groups; ++g) {
        slots[g] = g * sets_ + s;
      }
      slots_.emplace_back(slots);
      rows_.emplace_back(static_cast<size_t>(capacity_) * row.k * element);
      FillOperand(rows_.back().get(), row.format, static_cast<size_t>(capacity_) * row.k,
                  seed + 2 + s);
      scales_.emplace_back(static_cast<size_t>(capacity_) * (row.k / 128));
      FillScales(scales_.back().get(), scales_.back().size(), seed + 40 + s);
      out_.emplace_back(static_cast<size_t>(capacity_) * row.n);
    }
    Check(cudaDeviceSynchronize(), "fill");
  }

  GroupedGemmArgs Args(int set) const {
    return {row_.format,     rows_[set].get(), scales_[set].get(),
            capacity_,       weights_.get(),   weight_scales_.get(),
            out_[set].get(), offsets_.get(),   slots_[set].get(),
            capacity_,       row_.groups,      row_.groups * sets_,
            row_.n,          row_.k,           next_.get()};
  }
  // As it is launched: a lone group has all rows, and its tiles may come in parts.
  const char* Launch(int i, const tuning::GroupedGemmConfig& config, cudaStream_t stream) const {
    GroupedGemmArgs args = Args(i);
    args.partials = partials_.get();
    args.arrivals = arrivals_.get();
    if (IsLone()) args.offsets = nullptr;
    return LaunchGroupedGemm(args, config, stream);
  }
  bool IsLone() const { return row_.groups == 1; }
  int sets() const { return sets_; }
  int total() const { return total_; }
  double Flops() const { return 2.0 * total_ * row_.n * row_.k; }
  // Weights, rows, scales and outputs, each once.
  double Bytes() const {
    const bool fp8 = row_.format == GemmFormat::kFp8Block;
    const double weights = static_cast<double>(row_.groups) * row_.n * row_.k;
    const double rows = static_cast<double>(total_) * row_.k;
    return (weights + rows) * (fp8 ? 1 : 2) + 2.0 * total_ * row_.n +
           (fp8 ? 4 * (weights / 16384 + rows / 128) : 0);
  }

 private:
  BenchRow row_;
  int total_ = 0;
  int64_t capacity_ = 0;
  int sets_ = 0;
  DeviceArray<uint8_t> weights_;
  DeviceArray<float> weight_scales_;
  DeviceArray<int32_t> offsets_;
  DeviceArray<int32_t> next_ = DeviceArray<int32_t>(std::vector<int32_t>{0});
  DeviceArray<float> partials_ = DeviceArray<float>(tuning::PartialFloats(kSms));
  DeviceArray<int32_t> arrivals_ =
      DeviceArray<int32_t>(std::vector<int32_t>(tuning::PartCounters(kSms)));
  std::vector<DeviceArray<int32_t>> slots_;
  std::vector<DeviceArray<uint8_t>> rows_;
  std::vector<DeviceArray<float>> scales_;
  std::vector<DeviceArray<__nv_bfloat16>> out_;
};

struct Result {
  Timing timing;  // back to back, replayed from a graph
  Timing single;
  Verdict verdict;
};

// One launch, judged, for a profiler.
bool LaunchOnce(const Problem& problem, const tuning::GroupedGemmConfig& config,
                cudaStream_t stream) {
  Poison(problem.Args(0));
  Check(problem.Launch(0, config, stream));
  return Judge(problem.Args(0), 50000, 77).Passes();
}

Result Measure(const Problem& problem, const tuning::GroupedGemmConfig& config, double expected_us,
               cudaStream_t stream, bool judge) {
  // A replay of about 3 ms, every set at least once.
  const int launches = std::max(problem.sets(), std::min(64, static_cast<int>(3000 / expected_us)));
  if (judge) {
    Poison(problem.Args(0));
  }
  Result result;
  result.timing = TimeLaunches(launches, judge ? 15 : 5, stream, [&](int i) {
    Check(problem.Launch(i % problem.sets(), config, stream));
  });
  result.single = TimeSingles(judge ? 15 : 5, stream, [&](int i) {
    Check(problem.Launch(i % problem.sets(), config, stream));
  });
  if (judge) {
    result.verdict = Judge(problem.Args(0), 50000, 77);
  }
  return result;
}

struct Limits {
  double copy_tbs;
  double read_tbs;
  int num_sms;
};

__global__ void ReadKernel(const uint4* from, size_t size, uint32_t* sink) {
  uint32_t sum = 0;
  const size_t step = size_t{gridDim.x} * blockDim.x;
  size_t i = blockIdx.x * size_t{blockDim.x} + threadIdx.x;
  for (; i + 7 * step < size; i += 8 * step) {
    uint4 v[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      v[j] = __ldcs(from + i + j * step);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      sum ^= v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
  }
  if (sum == 0x12345678u) {
    *sink = sum;
  }
}

__global__ void CopyKernel(const uint4* from, uint4* to, size_t size) {
  const size_t i = blockIdx.x * size_t{1024} + threadIdx.x;
  uint4 v[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    v[j] = __ldcs(from + i + j * 256);
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    __stcs(to + i + j * 256, v[j]);
  }
}

Limits MeasureLimits(cudaStream_t stream) {
  constexpr size_t kBytes = size_t{2} << 30;
  DeviceArray<uint8_t> from(kBytes);
  DeviceArray<uint8_t> to(kBytes);
  FillOperand(from.get(), GemmFormat::kFp8Block, kBytes, 5);
  Limits limits;
  const Timing copy = TimeLaunches(4, 9, stream, [&](int) {
    CopyKernel<<<kBytes / 16 / 1024, 256, 0, stream>>>(reinterpret_cast<const uint4*>(from.get()),
                                                       reinterpret_cast<uint4*>(to.get()),
                                                       kBytes / 16);
  });
  const Timing read = TimeLaunches(4, 9, stream, [&](int) {
    ReadKernel<<<132 * 8, 256, 0, stream>>>(reinterpret_cast<const uint4*>(from.get()), kBytes / 16,
                                            reinterpret_cast<uint32_t*>(to.get()));
  });
  limits.copy_tbs = 2.0 * kBytes / copy.median_us / 1e6;
  limits.read_tbs = kBytes / read.median_us / 1e6;
  int device = 0;
  Check(cudaGetDevice(&device), "device");
  Check(cudaDeviceGetAttribute(&limits.num_sms, cudaDevAttrMultiProcessorCount, device), "device");
  return limits;
}

std::string TileName(GemmFormat format, const tuning::GroupedGemmConfig& config) {
  const tuning::GroupedGemmTile& t = tuning::TileAt(format, config.tile_idx);
  return std::string(t.swap ? "swap " : "rows ") + std::to_string(t.weight_rows) + "x" +
         std::to_string(t.token_rows) + (t.cluster > 1 ? " c2" : "") + (t.parts > 1 ? " k2" : "");
}

bool RunRow(const BenchRow& row, const Limits& limits, bool sweep, cudaStream_t stream,
            FILE* json) {
  const Problem problem(row, Mix(row.n * 31 + row.rows * 7 + row.groups) % 1000 + 1);
  const tuning::GroupedGemmShape shape = {row.format, row.n,          row.k,          row.groups,
                                          row.rows,   limits.num_sms, row.groups == 1};
  const double peak = row.format == GemmFormat::kFp8Block ? kFp8Tflops : kBf16Tflops;
  const double bound_us =
      std::max(problem.Bytes() / limits.copy_tbs / 1e6, problem.Flops() / peak / 1e6);
  const tuning::GroupedGemmConfig config = tuning::ChooseGroupedGemm(shape);
  if (EachOnce()) {
    const bool right = LaunchOnce(problem, config, stream);
    std::printf("%-11s %2d x %4d %4dx%-4d %-15s | bound %6.1f us | %s\n", row.section.c_str(),
                row.groups, row.rows, row.n, row.k, TileName(row.format, config).c_str(), bound_us,
                right ? "ok" : "WRONG");
    return right;
  }
  const Result ours = Measure(problem, config, bound_us, stream, true);
  const double us = ours.timing.median_us;
  const double single_us = ours.single.median_us;
  const double peer_us =
      row.peer_tflops > 0 ? problem.Flops() / row.peer_tflops / 1e6 : row.peer_us;
  char peer[64] = "      -    -    -";
  if (peer_us > 0) {
    std::snprintf(peer, sizeof(peer), "%7.1f %4.2f %4.2f", peer_us, us / peer_us,
                  single_us / peer_us);
  }
  std::printf(
      "%-11s %2d x %4d %4dx%-4d %-15s | graph %7.1f us [%7.1f %7.1f] %4.0f GB/s %4.0f TF | single "
      "%7.1f %4.0f TF | bound %6.1f %4.2f | peer %s | err %.1e %s\n",
      row.section.c_str(), row.groups, row.rows, row.n, row.k, TileName(row.format, config).c_str(),
      us, ours.timing.low_us, ours.timing.high_us, problem.Bytes() / us / 1e3,
      problem.Flops() / us / 1e6, single_us, problem.Flops() / single_us / 1e6, bound_us,
      bound_us / us, peer, ours.verdict.error, ours.verdict.Passes() ? "ok" : "WRONG");
  if (json != nullptr) {
    std::fprintf(
        json,
        "{\"section\":\"%s\",\"format\":\"%s\",\"groups\":%d,\"rows\":%d,\"total_rows\":%d,"
        "\"n\":%d,\"k\":%d,\"tile\":\"%s\",\"us\":%.3f,\"us_low\":%.3f,\"us_high\":%.3f,\"single_"
        "us\":%.3f,"
        "\"gbs\":%.0f,\"tflops\":%.0f,\"bound_us\":%.2f,\"peer_us\":%.2f,\"error\":%.3e,"
        "\"correct\":%s}\n",
        row.section.c_str(), row.format == GemmFormat::kFp8Block ? "fp8" : "bf16", row.groups,
        row.rows, problem.total(), row.n, row.k, TileName(row.format, config).c_str(), us,
        ours.timing.low_us, ours.timing.high_us, single_us, problem.Bytes() / us / 1e3,
        problem.Flops() / us / 1e6, bound_us, peer_us, ours.verdict.error,
        ours.verdict.Passes() ? "true" : "false");
  }
  if (sweep) {
    std::string line;
    for (int tile = 0; tile < tuning::NumTiles(row.format); ++tile) {
      const tuning::GroupedGemmTile& t = tuning::TileAt(row.format, tile);
      if (!tuning::TileFits(shape, tile) || (t.swap && t.token_rows * 3 < row.rows) ||
          (!t.swap && row.rows < 48) || t.token_rows > 8 * row.rows + 24) {
        continue;
      }
      for (const int width : {1, 8}) {
        tuning::GroupedGemmConfig other = tuning::ConfigOfTile(shape, tile);
        if (width > 1 && row.rows < 4 * t.token_rows) {
          continue;
        }
        other.width = width;
        for (const bool wide : {false, true}) {
          if (wide && !tuning::HasWideForm(t)) continue;
          other.wide = wide;
          const Result result = Measure(problem, other, bound_us, stream, false);
          char text[96];
          std::snprintf(text, sizeof(text), "  %s w%d%s %.1f %.1f;",
                        TileName(row.format, other).c_str(), width, wide ? " wide" : "",
                        result.timing.median_us, result.single.median_us);
          line += text;
        }
      }
    }
    std::printf("    sweep:%s\n", line.c_str());
  }
  std::fflush(stdout);
  return ours.verdict.Passes();
}

// Row kernels: rows of one rank's experts, timed as bytes over time.
void RunRowKernels(const Limits& limits, cudaStream_t stream, FILE* json) {
  for (const int count : {640, 8192, 32768}) {
    constexpr int kInner = 2048;
    DeviceArray<__nv_bfloat16> in(static_cast<size_t>(count) * 2 * kInner * 2);
    DeviceArray<uint8_t> out(static_cast<size_t>(count) * 2 * kInner * 2);
    DeviceArray<float> scales(static_cast<size_t>(count) * 2 * kInner / 128);
    DeviceArray<int32_t> rows(std::vector<int32_t>{count});
    FillBf16Kernel<<<1024, 256>>>(in.get(), in.size(), 99ull << 40, 1.0f);
    const RowsIn view = {in.get(), rows.get(), count, 2 * kInner};
    const QuantizedRowsOut to = {out.get(), scales.get(), count};
    const char* names[3] = {"quantize", "swiglu_quantize", "swiglu"};
    const double bytes[3] = {count * 2.0 * kInner * (3 + 4.0 / 128),
                             count * 1.0 * kInner * (5 + 4.0 / 128), count * 1.0 * kInner * 6};
    for (int which = 0; which < 3; ++which) {
      const Timing timing = TimeLaunches(20, 9, stream, [&](int) {
        Check(which == 0   ? LaunchQuantizeRows(view, to, stream)
              : which == 1 ? LaunchSwiGluQuantize(view, to, stream)
                           : LaunchSwiGlu(view, out.get(), stream));
      });
      std::printf("%-16s %5d rows x %d: %7.2f us, %5.0f GB/s, %.2f of the copy rate%s\n",
                  names[which], count, 2 * kInner, timing.median_us,
                  bytes[which] / timing.median_us / 1e3,
                  bytes[which] / timing.median_us / 1e6 / limits.copy_tbs,
                  count < 8192 ? " (in the L2)" : "");
      if (json != nullptr) {
        std::fprintf(json, "{\"section\":\"%s\",\"rows\":%d,\"columns\":%d,\"us\":%.3f}\n",
                     names[which], count, 2 * kInner, timing.median_us);
      }
    }
  }
}

bool RunAll(bool sweep, FILE* json) {
  cudaStream_t stream;
  Check(cudaStreamCreate(&stream), "stream");
  const Limits limits = MeasureLimits(stream);
  std::printf(
      "copy %.2f TB/s (read + written), read alone %.2f TB/s, %d multiprocessors; bound = max of "
      "bytes at the copy rate and %g (fp8), %g (bf16) TFLOP/s; ratio beside it: bound / ours; "
      "beside the "
      "peer: ours / peer, back to back and single\n",
      limits.copy_tbs, limits.read_tbs, limits.num_sms, kFp8Tflops, kBf16Tflops);
  if (json != nullptr) {
    std::fprintf(json, "{\"section\":\"limits\",\"copy_tbs\":%.3f,\"read_tbs\":%.3f}\n",
                 limits.copy_tbs, limits.read_tbs);
  }
  bool correct = true;
  for (const BenchRow& row : BenchRows()) {
    correct = RunRow(row, limits, sweep, stream, json) && correct;
  }
  if (!EachOnce()) RunRowKernels(limits, stream, json);
  cudaStreamDestroy(stream);
  return correct;
}

}  // namespace
}  // namespace moebius::cuda::testing

bool moebius::kernels::cuda::BenchGroupedGemm(bool all_tiles, std::FILE* json) {
  return moebius::cuda::testing::RunAll(all_tiles, json);
}
