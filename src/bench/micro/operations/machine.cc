#include "bench/micro/operations/machine.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <ctime>
#include <random>
#include <utility>
#include <vector>

#include "bench/micro/micro_bench.h"
#include "platform/bandwidth.h"

namespace moebius::bench {
namespace {

constexpr size_t kActivationBytes = size_t{512} << 20;
constexpr double kTolerance = 1e-2;  // of bfloat16 results of two products after each other

Result<platform::Region> RandomRegion(size_t bytes) {
  MOEBIUS_ASSIGN(platform::Region region, platform::Region::Allocate(bytes));
  std::vector<uint16_t> tile(1 << 19);
  std::mt19937 random(1);
  for (uint16_t& x : tile) x = static_cast<uint16_t>(0x3c00 | (random() & 0x83bf));
  for (size_t i = 0; i < region.size(); i += tile.size() * 2) {
    std::memcpy(region.data() + i, tile.data(), std::min(tile.size() * 2, region.size() - i));
  }
  return region;
}

// What one thread reads at most, in the time that it really runs.
double OneThreadBandwidth(const OperationMachine& machine) {
  const auto* words = reinterpret_cast<const uint64_t*>(machine.weights().data());
  const size_t count = std::min(machine.weights().size(), size_t{512} << 20) / 8;
  uint64_t sum = 0;
  const double seconds = machine.Median(
      [&](int) {
        for (size_t i = 0; i < count; i += 8) {
          __builtin_prefetch(words + i + 256);
          sum += words[i] ^ words[i + 4];
        }
      },
      5);
  return static_cast<double>(count * 8 + (sum == 1)) / seconds;
}

}  // namespace

OperationMachine::OperationMachine(const kernels::Backend& backend, bool cpu_time, std::FILE* json)
    : backend_(backend),
      cpu_time_(cpu_time),
      json_(json),
      pool_(platform::ThreadPool::Create(cpu_time ? std::vector<int>{0} : std::vector<int>{})) {}

Result<std::unique_ptr<OperationMachine>> OperationMachine::Create(size_t weight_bytes,
                                                                   bool cpu_time, std::FILE* json) {
  MOEBIUS_ASSIGN(const kernels::Backend* backend, kernels::ChooseBackend());
  std::unique_ptr<OperationMachine> machine(new OperationMachine(*backend, cpu_time, json));
  MOEBIUS_ASSIGN(machine->weights_, RandomRegion(weight_bytes));
  MOEBIUS_ASSIGN(machine->activations_, RandomRegion(kActivationBytes));
  const kernels::OpLimits limits{machine->pool_->num_threads(), 512, 576, 512, 160000};
  MOEBIUS_ASSIGN(machine->workspace_, RandomRegion(kernels::OpWorkspaceBytes(limits)));
  machine->arena_ = Arena(machine->workspace_.data(), machine->workspace_.size());
  if (cpu_time) {
    machine->bytes_per_second_ = OneThreadBandwidth(*machine);
  } else {
    MOEBIUS_ASSIGN(const platform::Bandwidth bandwidth,
                   platform::MeasureReadBandwidth(*machine->pool_));
    machine->bytes_per_second_ = bandwidth.all_threads;
  }
  return machine;
}

double OperationMachine::Now() const {
  if (cpu_time_) {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double OperationMachine::Median(const std::function<void(int)>& run, int passes) const {
  for (int i = 0; i < 3; ++i) run(i);
  std::vector<double> times;
  for (int i = 0; i < passes; ++i) {
    const double start = Now();
    run(i + 3);
    times.push_back(Now() - start);
  }
  std::nth_element(times.begin(), times.begin() + passes / 2, times.end());
  return times[static_cast<size_t>(passes / 2)];
}

void OperationMachine::PrintHeader() const {
  fmt::print("{} on {} thread{}; memory streams {:.1f} GB/s; each result beside the scalar one\n\n",
             backend_.name, pool_->num_threads(), pool_->num_threads() == 1 ? "" : "s",
             bytes_per_second_ / 1e9);
  fmt::print("{:<58} {:>10} {:>9} {:>10} {:>8}\n", "", "us", "GFLOP/s", "GB/s", "of mem.");
}

void OperationMachine::Print(const OperationRow& row) {
  all_right_ = all_right_ && row.right;
  const double share = row.bytes / row.seconds / bytes_per_second_;
  std::string memory;
  if (row.bytes > 0) {
    memory = fmt::format(" {:>10.1f} {:>6.0f} %", row.bytes / row.seconds / 1e9, 100 * share);
  }
  std::string rate;
  if (row.flops > 0) rate = fmt::format("{:.1f}", row.flops / row.seconds / 1e9);
  fmt::print("{:<58} {:>10.1f} {:>9}{:<20} {}\n", row.what, row.seconds * 1e6, rate, memory,
             row.right ? "right" : "WRONG");
  std::fflush(stdout);
  if (json_ == nullptr) return;
  fmt::print(json_,
             "{{\"benchmark\":\"kernels\",\"device\":\"cpu\",\"backend\":\"{}\",\"threads\":{},"
             "\"cpu_time\":{},\"what\":\"{}\",\"us\":{:.3f},\"bytes\":{:.0f},\"flop\":{:.0f},"
             "\"memory_bytes_per_second\":{:.0f},\"memory_share\":{:.4f},\"correct\":{}}}\n",
             backend_.name, pool_->num_threads(), cpu_time_, row.what, row.seconds * 1e6, row.bytes,
             row.flops, bytes_per_second_, share, row.right);
}

bool IsClose(const Mat& got, const Mat& want) {
  double difference = 0;
  double norm = 0;
  for (int64_t row = 0; row < want.rows; ++row) {
    for (int64_t col = 0; col < want.cols; ++col) {
      const double w = LoadFloat(want.RowBytes(row), want.dtype, col);
      const double g = LoadFloat(got.RowBytes(row), got.dtype, col);
      difference += (g - w) * (g - w);
      norm += w * w;
    }
  }
  return difference <= kTolerance * kTolerance * norm;  // no number is close to none
}

Result<bool> BenchKernels(const KernelBenchOptions& options, std::FILE* json) {
  const std::vector<std::pair<std::string, void (*)(OperationMachine&)>> groups = {
      {"decode", BenchDecode},
      {"prefill", BenchPrefill},
      {"attention", BenchAttention},
      {"sample", BenchSampling},
      {"small", BenchSmall}};
  std::vector<std::string> known;
  for (const auto& [name, run] : groups) known.push_back(name);
  MOEBIUS_TRY(CheckParts(options.parts, known));
  const auto wanted = [&](const std::string& part) {
    return options.parts.empty() || std::ranges::find(options.parts, part) != options.parts.end();
  };
  const bool streams = wanted("decode") || wanted("prefill") || wanted("attention");
  const size_t weight_bytes = streams ? size_t{3} << 30 : size_t{256} << 20;
  MOEBIUS_ASSIGN(const std::unique_ptr<OperationMachine> machine,
                 OperationMachine::Create(weight_bytes, options.cpu_time, json));
  machine->PrintHeader();
  for (const auto& [name, run] : groups) {
    if (wanted(name)) run(*machine);
  }
  return machine->all_right();
}

}  // namespace moebius::bench
