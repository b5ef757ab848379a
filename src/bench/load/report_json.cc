// The keys of `vllm bench serve`'s result file, so that its tools read ours; everything beyond it
// under "moebius".
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "bench/load/report_lines.h"

namespace moebius::load {
namespace {

using nlohmann::ordered_json;

template <typename T>
ordered_json OrNull(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json();
}

ordered_json ToJson(const Distribution& d) {
  return {{"n", d.n},     {"mean", d.mean}, {"std", d.std}, {"min", d.min}, {"p50", d.p50},
          {"p90", d.p90}, {"p95", d.p95},   {"p99", d.p99}, {"max", d.max}};
}

ordered_json InMilliseconds(Distribution d) {
  for (double* value : {&d.mean, &d.std, &d.min, &d.p50, &d.p90, &d.p95, &d.p99, &d.max}) {
    *value *= 1e3;
  }
  return ToJson(d);
}

void AddTraffic(const ReportOptions& options, ordered_json& json) {
  const ArrivalOptions& arrivals = options.arrivals;
  json["request_rate"] =
      std::isinf(arrivals.request_rate) ? ordered_json("inf") : ordered_json(arrivals.request_rate);
  json["burstiness"] =
      std::isinf(arrivals.burstiness) ? ordered_json("inf") : ordered_json(arrivals.burstiness);
  json["max_concurrency"] = OrNull(options.max_concurrency);
  if (arrivals.ramp_up == RampUp::kNone) return;
  json["ramp_up_strategy"] = arrivals.ramp_up == RampUp::kLinear ? "linear" : "exponential";
  json["ramp_up_start_rps"] = arrivals.ramp_up_start_rps;
  json["ramp_up_end_rps"] = arrivals.ramp_up_end_rps;
}

void AddFigures(const ServeBench& bench, const ReportOptions& options, ordered_json& json) {
  const Figures& figures = bench.figures;
  json["duration"] = figures.duration;
  json["completed"] = figures.completed;
  json["failed"] = figures.failed;
  json["total_input_tokens"] = figures.input_tokens;
  json["total_output_tokens"] = figures.output_tokens;
  json["request_throughput"] = figures.request_rate;
  json["request_goodput"] = options.limits.any() ? ordered_json(figures.goodput) : ordered_json();
  json["output_throughput"] = figures.output_rate;
  json["total_token_throughput"] = figures.total_rate;
}

void AddDetails(const ServeBench& bench, ordered_json& json) {
  ordered_json inputs = ordered_json::array();
  ordered_json outputs = inputs, ttfts = inputs, itls = inputs, latencies = inputs, starts = inputs,
               queues = inputs, texts = inputs, errors = inputs;
  for (const RequestRecord& record : bench.run.records) {
    inputs.push_back(record.prompt_tokens);
    outputs.push_back(record.ok() ? record.output_tokens : 0);
    ttfts.push_back(record.Ttft());
    ordered_json gaps = ordered_json::array();
    for (size_t i = 1; i < record.events.size(); ++i) {
      gaps.push_back(record.events[i].time - record.events[i - 1].time);
    }
    itls.push_back(std::move(gaps));
    latencies.push_back(record.EndToEnd());
    starts.push_back(record.sent);
    queues.push_back(record.sent - record.scheduled);
    texts.push_back(record.text);
    errors.push_back(record.error);
  }
  json["input_lens"] = std::move(inputs);
  json["output_lens"] = std::move(outputs);
  json["ttfts"] = std::move(ttfts);
  json["itls"] = std::move(itls);
  json["latencies"] = std::move(latencies);
  json["start_times"] = std::move(starts);
  json["queue_times"] = std::move(queues);
  json["generated_texts"] = std::move(texts);
  json["errors"] = std::move(errors);
}

void AddExtras(const ServeBench& bench, ordered_json& json) {
  if (bench.probe) {
    json["probe_completed"] = bench.probe->completed;
    json["probe_failed"] = bench.probe->failed;
    json["probe_median_e2el_ms"] = bench.probe->e2el.p50 * 1e3;
    json["probe_p99_e2el_ms"] = bench.probe->e2el.p99 * 1e3;
    json["probe_max_e2el_ms"] = bench.probe->e2el.max * 1e3;
  }
  if (bench.server.speculative) {
    const SpeculativeDecoding& speculative = *bench.server.speculative;
    json["spec_decode_acceptance_rate"] = speculative.acceptance_rate;
    json["spec_decode_acceptance_length"] = speculative.acceptance_length;
    json["spec_decode_num_drafts"] = speculative.num_drafts;
    json["spec_decode_draft_tokens"] = speculative.draft_tokens;
    json["spec_decode_accepted_tokens"] = speculative.accepted_tokens;
    json["spec_decode_per_position_acceptance_rates"] = speculative.per_position;
  }
}

void AddLatencies(const ServeBench& bench, const ReportOptions& options, ordered_json& json) {
  for (const Metric& metric : SelectedMetrics(options)) {
    std::vector<double> samples = bench.figures.samples.*metric.samples;
    std::sort(samples.begin(), samples.end());
    json[fmt::format("mean_{}_ms", metric.key)] = Mean(samples) * 1e3;
    json[fmt::format("median_{}_ms", metric.key)] = Percentile(samples, 50) * 1e3;
    json[fmt::format("std_{}_ms", metric.key)] = StandardDeviation(samples) * 1e3;
    for (const double percentile : options.percentiles) {
      json[fmt::format("p{}_{}_ms", PercentileWord(percentile), metric.key)] =
          Percentile(samples, percentile) * 1e3;
    }
  }
}

ordered_json SteadyJson(const SteadyFigures& steady) {
  ordered_json json;
  json["is_steady"] = steady.is_steady;
  json["why_not"] = steady.why_not;
  json["window"] =
      steady.window ? ordered_json({steady.window->begin, steady.window->end}) : ordered_json();
  json["completions"] = steady.completions;
  json["input_throughput"] = steady.input_rate;
  json["uncached_input_throughput"] = OrNull(steady.uncached_input_rate);
  json["output_throughput"] = steady.output_rate;
  json["total_throughput"] = steady.total_rate;
  json["peak_10s"] = OrNull(steady.peak_10s);
  json["peak_1s"] = steady.peak_1s;
  json["steady_ratio"] = OrNull(steady.steady_ratio);
  json["steady_ratio_verdict"] = VerdictName(steady.steady_ratio_verdict);
  json["drift_percent_per_min"] =
      steady.drift ? ordered_json{{"slope", steady.drift->slope},
                                  {"ci95", {steady.drift->low, steady.drift->high}}}
                   : ordered_json();
  json["drift_verdict"] = VerdictName(steady.drift_verdict);
  json["warm_up_seconds"] = OrNull(steady.warm_up_seconds);
  json["variation"] = OrNull(steady.variation);
  json["variation_verdict"] = VerdictName(steady.variation_verdict);
  json["buckets_10s"] = steady.buckets_10s;
  return json;
}

ordered_json OurJson(const ServeBench& bench, const ReportOptions& options) {
  const Figures& figures = bench.figures;
  const Samples& samples = figures.samples;
  ordered_json json;
  json["command"] = options.command;
  json["tokenizer"] = bench.tokenizer;
  json["interrupted"] = bench.run.was_stopped;
  json["cancelled"] = figures.cancelled;
  json["steady"] = SteadyJson(bench.steady);
  ordered_json outcomes;
  for (int i = 0; i < kNumOutcomes; ++i) {
    outcomes[OutcomeName(static_cast<Outcome>(i))] = figures.by_outcome[static_cast<size_t>(i)];
  }
  json["outcomes"] = std::move(outcomes);
  const auto first = std::ranges::find_if(
      bench.run.records, [](const RequestRecord& record) { return record.failed(); });
  json["first_error"] =
      first == bench.run.records.end() ? ordered_json() : ordered_json(first->error);
  ordered_json latencies;
  for (const Metric& metric : Metrics()) {
    latencies[metric.key] = InMilliseconds(Describe(samples.*metric.samples));
  }
  latencies["itl_per_token"] = InMilliseconds(Describe(samples.itl_per_token));
  latencies["first_to_second_token"] = InMilliseconds(Describe(samples.ttst));
  json["latencies_ms"] = std::move(latencies);
  json["stalls"] = {{"threshold_ms", figures.stalls.threshold * 1e3},
                    {"count", figures.stalls.count},
                    {"share", figures.stalls.share},
                    {"longest_ms", figures.stalls.longest * 1e3}};
  json["cached_input_tokens"] =
      figures.knows_cached ? ordered_json(figures.cached_tokens) : ordered_json();
  json["reasoning_tokens"] = figures.reasoning_tokens;
  json["answers_without_usage"] = figures.num_without_usage;
  json["answers_with_spread_tokens"] = figures.num_inexact;
  json["over_saturated"] = figures.over_saturated;
  json["server_ms"] = {{"queue", OrNull(bench.server.queue)},
                       {"prefill", OrNull(bench.server.prefill)},
                       {"decode", OrNull(bench.server.decode)}};
  for (auto& [key, value] : json["server_ms"].items()) {
    if (value.is_number()) value = value.get<double>() * 1e3;
  }
  json["server_prefill_us_per_token"] = bench.server.prefill_per_token
                                            ? ordered_json(*bench.server.prefill_per_token * 1e6)
                                            : ordered_json();
  json["server_prefix_hit_share"] = OrNull(bench.server.prefix_hit_share);
  json["server_preemptions"] = OrNull(bench.server.preemptions);
  json["generator"] = {{"cpu_seconds", bench.run.cpu_seconds},
                       {"lateness_ms", InMilliseconds(Describe(samples.lateness))}};
  json["warnings"] = bench.warnings;
  return json;
}

}  // namespace

std::string JsonReport(const ServeBench& bench, const ReportOptions& options) {
  ordered_json json;
  json["date"] = options.date;
  json["endpoint_type"] = options.backend;
  json["backend"] = options.backend;
  json["label"] = options.label.empty() ? ordered_json() : ordered_json(options.label);
  json["model_id"] = bench.model;
  json["tokenizer_id"] = bench.tokenizer;
  json["num_prompts"] = bench.num_prompts;
  for (const auto& [key, value] : options.metadata) json[key] = value;
  AddTraffic(options, json);
  AddFigures(bench, options, json);
  if (options.detailed) AddDetails(bench, json);
  json["max_output_tokens_per_s"] = bench.figures.max_output_tokens_per_s;
  json["max_concurrent_requests"] = bench.figures.max_concurrent_requests;
  json["rtfx"] = 0.0;
  AddExtras(bench, json);
  AddLatencies(bench, options, json);
  json["moebius"] = OurJson(bench, options);
  return json.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace moebius::load
