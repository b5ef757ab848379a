#include <fmt/format.h>

#include "serve/metrics_families.h"

namespace moebius::serve {
namespace {

using engine::DurationStats;
using engine::EngineStats;

void AppendInfo(const Snapshot& snapshot, const std::string& version, MetricsText& text) {
  text.Gauge("moebius:build_info", "The program, as labels; always 1.");
  text.Sample(1, {{"version", version}});
  const ModelFacts& model = snapshot.model;
  const std::string num_layers = fmt::to_string(model.num_layers);
  const std::string num_moe_layers = fmt::to_string(model.num_moe_layers);
  const std::string num_experts = fmt::to_string(model.num_experts);
  const std::string experts_per_token = fmt::to_string(model.experts_per_token);
  const std::string max_model_len = fmt::to_string(snapshot.limits.max_model_len);
  text.Gauge("moebius:model_info", "The model, as labels; always 1.");
  text.Sample(1, {{"architecture", model.architecture},
                  {"dtype", model.dtype},
                  {"num_layers", num_layers},
                  {"num_moe_layers", num_moe_layers},
                  {"num_experts", num_experts},
                  {"experts_per_token", experts_per_token},
                  {"max_model_len", max_model_len}});
  text.Gauge("moebius:weight_bytes", "The model's weights as they are held.", model.weight_bytes);
}

void AppendDurations(const char* part, const DurationStats& stats, MetricsText& text) {
  text.Buckets(DurationStats::kBounds, stats.buckets, stats.sum, {{"part", part}});
}

void AppendSteps(const EngineStats& stats, MetricsText& text) {
  text.Counter("moebius:steps_total", "Steps done.", stats.num_steps);
  text.Counter("moebius:failed_steps_total", "Steps that failed.", stats.num_failed_steps);
  text.HistogramFamily("moebius:step_seconds",
                       "Of a step: plan (scheduling and bookkeeping), device (forward and "
                       "sampling), wait (the engine's thread waiting for it).");
  AppendDurations("plan", stats.plan_time, text);
  AppendDurations("device", stats.device_time, text);
  AppendDurations("wait", stats.wait_time, text);
  text.Counter("moebius:prefill_tokens_total",
               "Rows of prompts, those that were computed again included.",
               stats.num_prefill_tokens);
  text.Counter("moebius:dropped_tokens_total", "Rows of requests that had ended one step before.",
               stats.num_dropped_tokens);
  text.Gauge("moebius:kv_blocks", "KV blocks there are.", stats.num_kv_blocks);
  text.Gauge("moebius:kv_blocks_used", "KV blocks that requests hold.", stats.num_used_kv_blocks);
  text.Gauge("moebius:kv_blocks_cached", "Free KV blocks whose prefix can still be found.",
             stats.num_cached_kv_blocks);
}

void AppendHealth(const Snapshot& snapshot, MetricsText& text) {
  const EngineStats& stats = snapshot.engine;
  text.Gauge("moebius:healthy", "1 while /health says so.", snapshot.is_healthy ? 1 : 0);
  text.Gauge("moebius:draining", "1 once the server takes no more calls.",
             snapshot.server.is_draining ? 1 : 0);
  text.Gauge("moebius:has_work", "1 while a request runs or waits.", stats.has_work ? 1 : 0);
  text.Gauge("moebius:seconds_without_progress",
             "Since a step was done, or work came; 0 without work.",
             stats.has_work ? stats.seconds_without_progress : 0.0);
}

void AppendServer(const ServerStats& stats, MetricsText& text) {
  text.Gauge("moebius:calls", "Completions under way: queued for text, waiting or running.",
             stats.num_calls);
  text.Gauge("moebius:text_queue", "Jobs that wait for a text thread.", stats.num_text_queued);
  text.Gauge("moebius:stream_unread_bytes",
             "What streams keep for readers that have not taken it yet.", stats.num_unread_bytes);
  text.Gauge("moebius:connections", "Connections open.", stats.http.num_connections);
  text.Counter("moebius:malformed_requests_total", "Answered before any handler saw them.",
               stats.http.num_malformed);
  text.Counter("moebius:queue_full_total", "Calls refused with 429: a queue was full.",
               stats.num_queue_full);
  text.Counter("moebius:unauthorized_total", "Calls refused with 401.", stats.num_unauthorized);
  text.Counter("moebius:clients_gone_total", "Calls whose client left before the end.",
               stats.num_clients_gone);
  text.Counter("moebius:request_timeouts_total", "Calls that passed the request time limit.",
               stats.num_timeouts);
  text.Counter("moebius:slow_readers_total",
               "Streams that were ended because too much waited for their reader.",
               stats.num_slow_readers);
  text.Counter("moebius:streamed_tokens_total", "Tokens sent in streams.",
               stats.num_streamed_tokens);
  text.Counter("moebius:stream_pieces_total",
               "Writes that carried them: tokens that came together share one.",
               stats.num_stream_pieces);
  text.Counter("moebius:stream_bytes_total", "Bytes of those.", stats.num_stream_bytes);
}

}  // namespace

void AppendMoebiusMetrics(const Snapshot& snapshot, const std::string& version, MetricsText& text) {
  AppendInfo(snapshot, version, text);
  AppendSteps(snapshot.engine, text);
  AppendHealth(snapshot, text);
  AppendServer(snapshot.server, text);
}

}  // namespace moebius::serve
