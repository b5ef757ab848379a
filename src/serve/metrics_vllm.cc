#include <fmt/format.h>

#include "serve/metrics_families.h"

namespace moebius::serve {
namespace {

using engine::EngineStats;

void AppendGauges(const Snapshot& snapshot, MetricsText& text) {
  const EngineStats& stats = snapshot.engine;
  text.Gauge("vllm:num_requests_running", "Requests that have KV blocks and a place in steps.",
             stats.num_running);
  text.Gauge("vllm:num_requests_waiting", "Requests that wait for KV blocks or a place.",
             stats.num_waiting);
  text.Gauge(
      "vllm:num_requests_waiting_by_reason",
      "Waiting requests: capacity is for KV blocks or a place in steps; nothing defers one.");
  text.Sample(stats.num_waiting, {{"reason", "capacity"}});
  text.Sample(0, {{"reason", "deferred"}});
  text.Gauge("vllm:kv_cache_usage_perc", "Share of the KV blocks that requests hold, 0 to 1.",
             stats.num_kv_blocks == 0 ? 0.0
                                      : static_cast<double>(stats.num_used_kv_blocks) /
                                            static_cast<double>(stats.num_kv_blocks));
  text.Gauge("vllm:cache_config_info", "The KV cache, as labels; always 1.");
  const std::string block_size = fmt::to_string(snapshot.model.block_size);
  const std::string num_blocks = fmt::to_string(stats.num_kv_blocks);
  const std::string share = fmt::format("{}", snapshot.model.gpu_memory_utilization);
  text.Sample(1,
              {{"block_size", block_size},
               {"num_gpu_blocks", num_blocks},
               {"cache_dtype", snapshot.model.kv_cache_dtype},
               {"gpu_memory_utilization", share},
               {"enable_prefix_caching", snapshot.model.enable_prefix_caching ? "True" : "False"}});
}

void AppendCounters(const Snapshot& snapshot, MetricsText& text) {
  const EngineStats& stats = snapshot.engine;
  text.Counter("vllm:prompt_tokens_total", "Prompt tokens of admitted requests.",
               stats.num_prompt_tokens);
  text.Counter("vllm:prompt_tokens_cached_total",
               "Prompt tokens that the prefix cache had at first admission.",
               stats.num_cached_tokens);
  text.Counter("vllm:prompt_tokens_by_source_total", "Prompt tokens by where their KV came from.");
  text.Sample(stats.num_prompt_tokens - stats.num_cached_tokens, {{"source", "local_compute"}});
  text.Sample(stats.num_cached_tokens, {{"source", "local_cache_hit"}});
  text.Counter("vllm:generation_tokens_total", "Tokens generated.", stats.num_output_tokens);
  text.Counter("vllm:prefix_cache_queries_total", "Prompt tokens looked for in the prefix cache.",
               snapshot.model.enable_prefix_caching ? stats.num_prompt_tokens : 0);
  text.Counter("vllm:prefix_cache_hits_total", "Prompt tokens found there.",
               stats.num_cached_tokens);
  text.Counter("vllm:num_preemptions_total",
               "Requests that gave their KV blocks up and were computed again.",
               stats.num_preemptions);
  text.Counter("vllm:request_success_total", "Requests that ended, by why.");
  text.Sample(stats.num_finished_stop, {{"finished_reason", "stop"}});
  text.Sample(stats.num_finished_length, {{"finished_reason", "length"}});
  text.Sample(stats.num_cancelled, {{"finished_reason", "abort"}});
  text.Sample(stats.num_failed, {{"finished_reason", "error"}});
  text.Counter("vllm:corrupted_requests_total",
               "Requests that ended because their logits were no numbers.", stats.num_corrupted);
}

void AppendLatencies(const EngineStats& stats, MetricsText& text) {
  text.HistogramFamily("vllm:time_to_first_token_seconds", "From a request's arrival.",
                       stats.time_to_first_token);
  text.HistogramFamily("vllm:inter_token_latency_seconds",
                       "Every gap between two tokens of a request.", stats.inter_token_latency);
  text.HistogramFamily("vllm:request_time_per_output_token_seconds",
                       "A request's time after its first token, for each later one.",
                       stats.time_per_output_token);
  text.HistogramFamily("vllm:e2e_request_latency_seconds", "From a request's arrival to its end.",
                       stats.e2e_latency);
  text.HistogramFamily("vllm:request_queue_time_seconds", "From arrival to first admission.",
                       stats.queue_time);
  text.HistogramFamily("vllm:request_prefill_time_seconds",
                       "From first admission to the first token.", stats.prefill_time);
  text.HistogramFamily("vllm:request_decode_time_seconds", "From the first token to the last.",
                       stats.decode_time);
  text.HistogramFamily("vllm:request_inference_time_seconds",
                       "From first admission to the last token.", stats.inference_time);
}

void AppendSizes(const Snapshot& snapshot, MetricsText& text) {
  const EngineStats& stats = snapshot.engine;
  text.HistogramFamily("vllm:iteration_tokens_total", "Rows of a step: prompt and output tokens.",
                       stats.step_tokens);
  text.HistogramFamily("vllm:request_prompt_tokens", "Prompt tokens of a request.",
                       stats.prompt_length);
  text.HistogramFamily("vllm:request_generation_tokens", "Output tokens of a request.",
                       stats.output_length);
  text.HistogramFamily("vllm:request_params_max_tokens", "The max_tokens of a request.",
                       stats.max_tokens);
  text.HistogramFamily("vllm:request_params_n", "The n of a call.", snapshot.server.params_n);
  text.HistogramFamily("vllm:request_prefill_kv_computed_tokens",
                       "Prompt tokens of a request that the prefix cache did not have.",
                       stats.computed_prompt_tokens);
}

}  // namespace

void AppendVllmMetrics(const Snapshot& snapshot, MetricsText& text) {
  AppendGauges(snapshot, text);
  AppendCounters(snapshot, text);
  AppendLatencies(snapshot.engine, text);
  AppendSizes(snapshot, text);
}

}  // namespace moebius::serve
