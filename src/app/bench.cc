// moebius bench latency | throughput: a workload on an engine in this process, and how near it
// comes to what the memory of this machine can stream.
#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "base/progress.h"
#include "bench/figures.h"
#include "bench/load.h"
#include "bench/streaming.h"
#include "frontend/open.h"
#include "model/inspect.h"
#include "platform/bandwidth.h"
#include "platform/cpu_features.h"
#include "platform/thread_pool.h"

namespace moebius::app {
namespace {

using bench::Summary;
using nlohmann::ordered_json;

// Bytes a second, with as many threads as run the model. Asked before and after a benchmark, of
// which the better counts: what disturbs the machine for a moment must not flatter the share that
// was reached.
Result<double> MeasureBandwidth(int num_threads) {
  MOEBIUS_ASSIGN(const std::unique_ptr<platform::ThreadPool> pool, frontend::MakePool(num_threads));
  platform::BandwidthOptions options;
  options.seconds_each = 0.3;
  return platform::MeasureReadBandwidth(*pool, options).map([](const platform::Bandwidth& found) {
    return found.all_threads;
  });
}

Result<std::vector<bench::Trace>> RunIterations(const BenchOptions& options,
                                                engine::EngineClient& engine) {
  const int num_warmup = options.throughput ? 0 : options.num_iters_warmup;
  Progress progress("measuring", num_warmup + options.num_iters);
  std::vector<bench::Trace> traces;
  for (int i = 0; i < num_warmup + options.num_iters; ++i) {
    bench::Workload workload;
    workload.num_requests = options.throughput ? options.num_prompts : options.batch_size;
    workload.input_len = options.input_len;
    workload.output_len = options.output_len;
    // New prompts each time: what the prefix cache remembers must not help.
    workload.seed = options.seed + static_cast<uint64_t>(i);
    MOEBIUS_ASSIGN(bench::Trace trace,
                   bench::Run(engine, bench::MakeRequests(workload, engine.limits().vocab_size)));
    if (i >= num_warmup) traces.push_back(std::move(trace));
    progress.Advance();
  }
  return traces;
}

struct Report {
  bench::Figures figures;
  double bandwidth = 0;       // bytes/s, all threads
  double bytes_per_step = 0;  // of a decode step in the middle of the answers
  double share = 0;           // of the bandwidth, reached while decoding
};

Report MakeReport(const BenchOptions& options, const std::vector<bench::Trace>& traces,
                  const bench::ModelBytes& model, double bandwidth) {
  Report report;
  report.figures = bench::Measure(traces, options.input_len);
  report.bandwidth = bandwidth;
  const double batch = options.throughput
                           ? std::min<double>(options.num_prompts, options.open.engine.max_num_seqs)
                           : options.batch_size;
  report.bytes_per_step =
      bench::BytesPerStep(model, batch, options.input_len + options.output_len / 2.0);
  report.share = report.figures.decode_rate / batch * report.bytes_per_step / bandwidth;
  return report;
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
  json["cpu"] = platform::DetectCpu().model;
  json["threads"] = opened.num_threads;
  json["input_len"] = options.input_len;
  json["output_len"] = options.output_len;
  json[options.throughput ? "num_prompts" : "batch_size"] =
      options.throughput ? options.num_prompts : options.batch_size;
  json["num_iters"] = options.num_iters;
  json["ttft_ms"] = Milliseconds(report.figures.ttft);
  json["tpot_ms"] = Milliseconds(report.figures.tpot);
  json["itl_ms"] = Milliseconds(report.figures.itl);
  json["latency_ms"] = Milliseconds(report.figures.latency);
  json["requests_per_second"] = report.figures.request_rate;
  json["output_tokens_per_second"] = report.figures.output_rate;
  json["total_tokens_per_second"] = report.figures.total_rate;
  // With more prompts than run at once, no part of a run is decoding alone.
  if (!options.throughput) {
    json["decode_tokens_per_second"] = report.figures.decode_rate;
    json["bytes_per_decode_step"] = report.bytes_per_step;
    json["bandwidth_bytes_per_second"] = report.bandwidth;
    json["bandwidth_share"] = report.share;
  }
  return json;
}

void PrintRow(const char* name, const Summary& summary) {
  fmt::print("{:<28}{:>9.2f}{:>9.2f}{:>9.2f}{:>9.2f}\n", name, summary.mean * 1e3,
             summary.p50 * 1e3, summary.p90 * 1e3, summary.p99 * 1e3);
}

void Print(const BenchOptions& options, const Report& report) {
  const bench::Figures& figures = report.figures;
  fmt::print("{:<28}{:>9}{:>9}{:>9}{:>9}\n", "milliseconds", "mean", "p50", "p90", "p99");
  PrintRow("TTFT", figures.ttft);
  PrintRow("TPOT", figures.tpot);
  PrintRow("ITL", figures.itl);
  PrintRow(options.throughput ? "whole run" : "latency of an iteration", figures.latency);
  fmt::print("\n{:<28}{:>9.2f}\n", "requests/s", figures.request_rate);
  fmt::print("{:<28}{:>9.1f}\n", "output tokens/s", figures.output_rate);
  fmt::print("{:<28}{:>9.1f}\n", "prompt + output tokens/s", figures.total_rate);
  if (options.throughput) return;
  fmt::print("{:<28}{:>9.1f}\n", "decode tokens/s", figures.decode_rate);
  fmt::print(
      "\na decode step reads {:.1f} MB; memory streams {:.1f} GB/s: {:.0f} % of it reached\n",
      report.bytes_per_step / 1e6, report.bandwidth / 1e9, report.share * 100);
}

Status CheckSizes(const BenchOptions& options) {
  const std::pair<const char*, int> sizes[] = {{"--input-len", options.input_len},
                                               {"--output-len", options.output_len},
                                               {"--batch-size", options.batch_size},
                                               {"--num-iters", options.num_iters},
                                               {"--num-prompts", options.num_prompts}};
  for (const auto& [name, size] : sizes) {
    if (size < 1)
      return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected at least 1", name, size);
  }
  return {};
}

}  // namespace

Result<int> BenchCommand(const BenchOptions& options) {
  MOEBIUS_TRY(CheckSizes(options));
  MOEBIUS_ASSIGN(const double before, MeasureBandwidth(options.open.threads));
  MOEBIUS_ASSIGN(const model::LoadOptions load, frontend::LoadOptionsOf(options.open));
  MOEBIUS_ASSIGN(const model::Inspection inspection, model::InspectModel(load));
  MOEBIUS_ASSIGN(const frontend::OpenedModel opened, frontend::Open(options.open));
  MOEBIUS_ASSIGN(const std::vector<bench::Trace> traces,
                 RunIterations(options, opened.frontend->engine()));
  MOEBIUS_ASSIGN(const double after, MeasureBandwidth(options.open.threads));
  const Report report =
      MakeReport(options, traces, bench::BytesOf(inspection), std::max(before, after));
  Print(options, report);
  if (!options.output_json.empty()) {
    std::ofstream file(options.output_json);
    file << ToJson(options, opened, report).dump(2) << "\n";
    if (!file.flush()) {
      return MakeError(ErrorCode::kUnavailable, "--output-json: {} cannot be written",
                       options.output_json);
    }
  }
  return kExitOk;
}

}  // namespace moebius::app
