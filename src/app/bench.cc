// moebius bench latency | throughput: a workload on an engine in this process, and how near it
// comes to what the memory of this machine can stream.
#include <fmt/core.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <thread>

#include "app/commands.h"
#include "app/load_table.h"
#include "app/model_folder.h"
#include "app/output_file.h"
#include "app/standard_output.h"
#include "base/progress.h"
#include "bench/figures.h"
#include "bench/load.h"
#include "bench/streaming.h"
#include "frontend/open.h"
#include "frontend/open_ranks.h"
#include "kernels/backend.h"
#include "model/inspect.h"
#include "platform/bandwidth.h"
#include "platform/cpu_features.h"
#include "platform/gpu_sampler.h"
#include "platform/thread_pool.h"
#include "platform/topology.h"
#include "rank/rank_device.h"

namespace moebius::app {
namespace {

using bench::Summary;
using nlohmann::ordered_json;

// Bytes a second, with as many threads as run the model. Asked before and after a benchmark, of
// which the better counts: what disturbs the machine for a moment must not flatter the share that
// was reached.
Result<double> MeasureBandwidth(const frontend::OpenOptions& open) {
  if (open.device == "cuda") {
    MOEBIUS_ASSIGN(const kernels::Backend* backend, kernels::CudaBackend());
    MOEBIUS_ASSIGN(const int num_devices, rank::NumRankDevices());
    const int num_used = std::min(num_devices, open.parallel.num_gpus());
    return backend->memory->CopyRate().map([&](double of_one) { return of_one * num_used; });
  }
  int threads = open.threads;
  if (open.parallel.num_gpus() > 1) {
    MOEBIUS_ASSIGN(const int of_rank, frontend::ThreadsOfRank(open));
    threads = std::min(of_rank * open.parallel.num_gpus(),
                       static_cast<int>(platform::AllowedCpus().size()));
  }
  MOEBIUS_ASSIGN(const std::unique_ptr<platform::ThreadPool> pool, frontend::MakePool(threads));
  platform::BandwidthOptions options;
  options.seconds_each = 0.3;
  return platform::MeasureReadBandwidth(*pool, options).map([](const platform::Bandwidth& found) {
    return found.all_threads;
  });
}

// What the engine did while it was measured.
struct Measured {
  std::vector<bench::Trace> traces;
  int64_t num_steps = 0;
  int64_t num_rows = 0;
  moe::ExpertStats load;
};

int NumRequests(const BenchOptions& options) {
  return options.throughput ? options.num_prompts : options.batch_size;
}

// What ranks in other processes say of themselves is as old as this at most.
engine::EngineStats FreshStats(const BenchOptions& options, const engine::EngineClient& engine) {
  constexpr auto kOld = std::chrono::milliseconds(250);
  if (options.open.parallel.num_gpus() > 1) std::this_thread::sleep_for(kOld);
  return engine.Stats();
}

Result<Measured> RunIterations(const BenchOptions& options, engine::EngineClient& engine) {
  const int num_warmup = options.throughput ? 0 : options.num_iters_warmup;
  Progress progress("measuring", int64_t{num_warmup} + options.num_iters);
  Measured measured;
  engine::EngineStats before;
  for (int i = 0; i < num_warmup + options.num_iters; ++i) {
    if (i == num_warmup) before = FreshStats(options, engine);
    bench::Workload workload;
    workload.num_requests = NumRequests(options);
    workload.input_len = options.input_len;
    workload.output_len = options.output_len;
    // New prompts each time: what the prefix cache remembers must not help.
    workload.seed = options.seed + static_cast<uint64_t>(i);
    MOEBIUS_ASSIGN(bench::Trace trace,
                   bench::Run(engine, bench::MakeRequests(workload, engine.limits().vocab_size)));
    if (i >= num_warmup) measured.traces.push_back(std::move(trace));
    progress.Advance();
  }
  const engine::EngineStats after = FreshStats(options, engine);
  // Data-parallel ranks count each their own.
  measured.num_steps =
      (after.num_steps - before.num_steps) / options.open.parallel.data_parallel_size;
  measured.num_rows = after.num_prefill_tokens + after.num_output_tokens -
                      before.num_prefill_tokens - before.num_output_tokens;
  measured.load = engine.ExpertLoad();
  return measured;
}

struct Report {
  bench::Figures figures;
  double steps_per_second = 0;  // latency: of decoding alone
  double bytes_per_step = 0;    // that must be read: of a decode step, or the mean of all
  double bandwidth = 0;         // bytes/s, all threads
  std::vector<platform::GpuUse> gpus;
  std::string note;

  double share() const { return steps_per_second * bytes_per_step / bandwidth; }
};

Report MakeReport(const BenchOptions& options, const Measured& measured,
                  const bench::ModelBytes& model, double bandwidth) {
  Report report;
  report.figures = bench::Measure(measured.traces, options.input_len);
  report.bandwidth = bandwidth;
  const double batch =
      std::min<double>(NumRequests(options), static_cast<double>(options.open.engine.max_num_seqs));
  const double context = options.input_len + options.output_len / 2.0;
  if (!options.throughput) {
    report.steps_per_second = report.figures.decode_rate / batch;
    report.bytes_per_step = bench::BytesPerStep(model, measured.load, batch, batch * context);
    return report;
  }
  // Steps of prefill have more rows than requests; counting no more leaves the share a lower bound.
  const auto steps = static_cast<double>(std::max<int64_t>(measured.num_steps, 1));
  const double rows = std::min(batch, static_cast<double>(measured.num_rows) / steps);
  double seconds = 0;
  for (const bench::Trace& trace : measured.traces) seconds += trace.seconds;
  report.steps_per_second = steps / seconds;
  const double decoded = static_cast<double>(measured.traces.size()) * NumRequests(options) *
                         (options.output_len - 1.0);
  report.bytes_per_step =
      bench::BytesPerStep(model, measured.load, rows, decoded / steps * context);
  return report;
}

// Caches of the cpus in use; 0: unknown.
double CacheBytes() {
  const auto topology = platform::DetectTopology();
  if (!topology) return 0;
  return static_cast<double>(topology->l2_bytes) * topology->num_l2 +
         static_cast<double>(topology->l3_bytes) * topology->num_l3;
}

// More than the whole is either no question of memory, or the probe was disturbed both times.
Status SettleShare(const BenchOptions& options, Report& report) {
  if (report.share() <= 1) return {};
  const double cache_bytes = CacheBytes();
  if (report.bytes_per_step > cache_bytes && options.open.device == "cpu") {
    MOEBIUS_ASSIGN(const double again, MeasureBandwidth(options.open));
    report.bandwidth = std::max(report.bandwidth, again);
    if (report.share() <= 1) report.note = "bandwidth was disturbed: measured again";
  }
  if (report.note.empty()) {
    report.note = bench::ExplainShare(report.share(), report.bytes_per_step, cache_bytes);
  }
  return {};
}

ordered_json Milliseconds(const Summary& summary) {
  return {{"mean", summary.mean * 1e3}, {"p50", summary.p50 * 1e3}, {"p90", summary.p90 * 1e3},
          {"p99", summary.p99 * 1e3},   {"min", summary.min * 1e3}, {"max", summary.max * 1e3}};
}

ordered_json ToJson(const BenchOptions& options, const frontend::OpenedModel& opened,
                    const Report& report) {
  ordered_json json;
  json["benchmark"] = options.throughput ? "throughput" : "latency";
  json["model"] = options.open.model;
  json["load_format"] = options.open.load_format;
  json["device"] = options.open.device;
  json["cpu"] = platform::DetectCpu().model;
  json["threads"] = opened.num_threads;
  json["ranks"] = opened.parallel.num_gpus();
  json["input_len"] = options.input_len;
  json["output_len"] = options.output_len;
  json[options.throughput ? "num_prompts" : "batch_size"] = NumRequests(options);
  json["num_iters"] = options.num_iters;
  json["ttft_ms"] = Milliseconds(report.figures.ttft);
  const bool has_gaps = options.output_len > 1;
  json["tpot_ms"] = has_gaps ? Milliseconds(report.figures.tpot) : ordered_json();
  json["itl_ms"] = has_gaps ? Milliseconds(report.figures.itl) : ordered_json();
  json["latency_ms"] = Milliseconds(report.figures.latency);
  json["requests_per_second"] = report.figures.request_rate;
  json["output_tokens_per_second"] = report.figures.output_rate;
  json["total_tokens_per_second"] = report.figures.total_rate;
  // With more prompts than run at once, no part of a run is decoding alone: then the bytes are
  // those of a mean step.
  if (!options.throughput) json["decode_tokens_per_second"] = report.figures.decode_rate;
  json["bytes_per_decode_step"] = report.bytes_per_step;
  json["bandwidth_bytes_per_second"] = report.bandwidth;
  json["bandwidth_share"] = report.share();
  if (!options.throughput && !has_gaps) {
    for (const char* name :
         {"decode_tokens_per_second", "bytes_per_decode_step", "bandwidth_share"}) {
      json[name] = nullptr;
    }
  }
  if (!report.note.empty()) json["bandwidth_note"] = report.note;
  for (const platform::GpuUse& gpu : report.gpus) {
    json["gpus"].push_back({{"index", gpu.index},
                            {"sm_percent", gpu.sm_percent},
                            {"memory_percent", gpu.memory_percent},
                            {"watts", gpu.watts},
                            {"most_watts", gpu.most_watts},
                            {"sm_mhz", gpu.sm_mhz},
                            {"nvlink_bytes_per_second", gpu.nvlink_bytes_per_second}});
  }
  return json;
}

// Of what needs a second token, where there is one.
constexpr const char* kNothing = "n/a";

void PrintRow(const char* name, const Summary& summary, bool is_there = true) {
  if (!is_there) {
    fmt::print("{:<28}{:>9}{:>9}{:>9}{:>9}\n", name, kNothing, kNothing, kNothing, kNothing);
    return;
  }
  fmt::print("{:<28}{:>9.2f}{:>9.2f}{:>9.2f}{:>9.2f}\n", name, summary.mean * 1e3,
             summary.p50 * 1e3, summary.p90 * 1e3, summary.p99 * 1e3);
}

// What the driver saw, warming up included.
void PrintGpus(const std::vector<platform::GpuUse>& gpus) {
  for (const platform::GpuUse& gpu : gpus) {
    fmt::print(
        "GPU {}: kernels ran {:.0f} % of the time, memory was busy {:.0f} %, {:.0f} W (at most "
        "{:.0f}), {:.0f} MHz, {:.1f} GB/s sent over NVLink\n",
        gpu.index, gpu.sm_percent, gpu.memory_percent, gpu.watts, gpu.most_watts, gpu.sm_mhz,
        gpu.nvlink_bytes_per_second / 1e9);
  }
}

void Print(const BenchOptions& options, const Report& report) {
  const bench::Figures& figures = report.figures;
  fmt::print("{:<28}{:>9}{:>9}{:>9}{:>9}\n", "milliseconds", "mean", "p50", "p90", "p99");
  PrintRow("TTFT", figures.ttft);
  const bool has_gaps = options.output_len > 1;
  PrintRow("TPOT", figures.tpot, has_gaps);
  PrintRow("ITL", figures.itl, has_gaps);
  PrintRow(options.throughput ? "whole run" : "latency of an iteration", figures.latency);
  fmt::print("\n{:<28}{:>9.2f}\n", "requests/s", figures.request_rate);
  fmt::print("{:<28}{:>9.1f}\n", "output tokens/s", figures.output_rate);
  fmt::print("{:<28}{:>9.1f}\n", "prompt + output tokens/s", figures.total_rate);
  if (!options.throughput && !has_gaps) {
    fmt::print("{:<28}{:>9}\n", "decode tokens/s", kNothing);
    return;  // nor is there a decode step whose bytes could be set against the memory
  }
  if (!options.throughput) {
    fmt::print("{:<28}{:>9.1f}\n", "decode tokens/s", figures.decode_rate);
  }
  fmt::print("\na {} step reads {:.1f} MB; memory streams {:.1f} GB/s: {:.0f} % of it reached\n",
             options.throughput ? "mean" : "decode", report.bytes_per_step / 1e6,
             report.bandwidth / 1e9, report.share() * 100);
  if (!report.note.empty()) fmt::print("{}\n", report.note);
}

// What is about to be measured, before it takes its time.
void PrintHeader(const BenchOptions& options, const frontend::OpenedModel& opened,
                 const model::Inspection& inspection) {
  std::string repeats =
      fmt::format("{} iteration{}", options.num_iters, options.num_iters == 1 ? "" : "s");
  if (!options.throughput) repeats += fmt::format(" after {} to warm up", options.num_iters_warmup);
  fmt::print(
      "{} of {}: {}{}, {}{} thread{}, {} {}, input length {}, output length {}, {}\n\n",
      options.throughput ? "throughput" : "latency", options.open.model,
      DTypeName(inspection.activations),
      options.open.load_format == "dummy" ? " with random weights" : "",
      opened.parallel.num_gpus() == 1 ? "" : fmt::format("{} ranks, ", opened.parallel.num_gpus()),
      opened.num_threads, opened.num_threads == 1 ? "" : "s",
      options.throughput ? "prompts" : "batch size", NumRequests(options), options.input_len,
      options.output_len, repeats);
  FlushStandardOutput();
}

// The flags' own ranges are known; together they may still be more than a machine can hold.
Status CheckSizes(const BenchOptions& options) {
  constexpr int64_t kMaxTokens = int64_t{1} << 27;
  const int64_t length = int64_t{options.input_len} + options.output_len;
  const int64_t num_requests = NumRequests(options);
  if (num_requests * length <= kMaxTokens) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "{} is {}, each of {} tokens (--input-len, --output-len): expected at most {} "
                   "tokens together",
                   options.throughput ? "--num-prompts" : "--batch-size", num_requests, length,
                   kMaxTokens);
}

Status CheckLength(const BenchOptions& options, const engine::EngineLimits& limits) {
  const int64_t length = int64_t{options.input_len} + options.output_len;
  if (length <= limits.max_model_len) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "--input-len and --output-len are {} tokens together, expected at most {}, "
                   "what the model or --max-model-len allows",
                   length, limits.max_model_len);
}

}  // namespace

Result<int> BenchCommand(const BenchOptions& given) {
  MOEBIUS_TRY(CheckSizes(given));
  BenchOptions options = given;
  engine::EngineOptions& engine = options.open.engine;
  engine.max_num_waiting = std::max<int64_t>(engine.max_num_waiting, NumRequests(options));
  frontend::OpenOptions open = options.open;
  MOEBIUS_ASSIGN(const ModelFolder folder, ModelFolder::Find(open));
  MOEBIUS_ASSIGN(frontend::PreparedModel prepared, folder.Named(frontend::Prepare(open)));
  MOEBIUS_TRY(CheckLength(options, prepared.limits));
  std::optional<OutputFile> file;
  if (!options.output_json.empty()) {
    MOEBIUS_ASSIGN(file, OutputFile::Open("--output-json", options.output_json));
  }
  MOEBIUS_ASSIGN(const model::Inspection inspection,
                 folder.Named(model::InspectModel(prepared.load)));
  MOEBIUS_ASSIGN(const double before, MeasureBandwidth(options.open));
  MOEBIUS_ASSIGN(const frontend::OpenedModel opened,
                 folder.Named(frontend::Load(std::move(prepared))));
  PrintHeader(options, opened, inspection);
  std::unique_ptr<platform::GpuSampler> sampler;
  if (options.open.device == "cuda") {
    if (auto started = platform::GpuSampler::Start()) sampler = std::move(*started);
  }
  MOEBIUS_ASSIGN(const Measured measured, RunIterations(options, opened.frontend->engine()));
  const std::vector<platform::GpuUse> gpus =
      sampler != nullptr ? sampler->Stop() : std::vector<platform::GpuUse>();
  // A device's memory is taken by now, and nobody else disturbs it.
  double after = before;
  if (options.open.device == "cpu") {
    MOEBIUS_ASSIGN(after, MeasureBandwidth(options.open));
  }
  Report report =
      MakeReport(options, measured, bench::BytesOf(inspection), std::max(before, after));
  report.gpus = gpus;
  MOEBIUS_TRY(SettleShare(options, report));
  if (opened.parallel.num_gpus() > 1 && report.note.empty()) {
    report.note = "ranks also read copies of what is not cut: the share is the least it can be";
  }
  Print(options, report);
  PrintGpus(report.gpus);
  if (options.parallel.print_load) PrintLoad(opened);
  if (file) {
    fmt::print(file->Begin(), "{}\n", ToJson(options, opened, report).dump(2));
    MOEBIUS_TRY(file->Finish());
  }
  return kExitOk;
}

}  // namespace moebius::app
