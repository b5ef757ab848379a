#include <fmt/format.h>

#include <chrono>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "serve/expert_balance.h"
#include "serve/metrics.h"

namespace moebius::serve {
namespace {

using nlohmann::ordered_json;

// Linear within a bucket, as Prometheus's histogram_quantile; what lies above all bounds counts as
// the last one. Null: nothing was observed.
ordered_json Quantile(const Histogram& histogram, double q) {
  const double wanted = q * static_cast<double>(histogram.count());
  if (histogram.count() == 0 || histogram.bounds().empty()) return nullptr;
  double below = 0;
  for (size_t i = 0; i < histogram.bounds().size(); ++i) {
    const auto count = static_cast<double>(histogram.counts()[i]);
    if (count > 0 && below + count >= wanted) {
      const double low = i == 0 ? 0 : histogram.bounds()[i - 1];
      return low + (histogram.bounds()[i] - low) * (wanted - below) / count;
    }
    below += count;
  }
  return histogram.bounds().back();
}

ordered_json ToJson(const Histogram& histogram) {
  return {{"count", histogram.count()},       {"sum", histogram.sum()},
          {"p50", Quantile(histogram, 0.5)},  {"p90", Quantile(histogram, 0.9)},
          {"p99", Quantile(histogram, 0.99)}, {"bounds", histogram.bounds()},
          {"counts", histogram.counts()}};
}

ordered_json ToJson(const engine::DurationStats& stats) {
  return {{"count", stats.count}, {"sum", stats.sum}, {"max", stats.max}};
}

ordered_json Gauges(const Snapshot& snapshot) {
  const engine::EngineStats& engine = snapshot.engine;
  return {{"running", engine.num_running},
          {"waiting", engine.num_waiting},
          {"kv_blocks", engine.num_kv_blocks},
          {"kv_blocks_used", engine.num_used_kv_blocks},
          {"kv_blocks_cached", engine.num_cached_kv_blocks},
          {"calls", snapshot.server.num_calls},
          {"text_queue", snapshot.server.num_text_queued},
          {"connections", snapshot.server.http.num_connections}};
}

ordered_json Counters(const engine::EngineStats& stats) {
  return {{"prompt_tokens", stats.num_prompt_tokens},
          {"cached_tokens", stats.num_cached_tokens},
          {"prefill_tokens", stats.num_prefill_tokens},
          {"output_tokens", stats.num_output_tokens},
          {"dropped_tokens", stats.num_dropped_tokens},
          {"steps", stats.num_steps},
          {"failed_steps", stats.num_failed_steps},
          {"preemptions", stats.num_preemptions},
          {"finished_stop", stats.num_finished_stop},
          {"finished_length", stats.num_finished_length},
          {"cancelled", stats.num_cancelled},
          {"failed", stats.num_failed},
          {"corrupted", stats.num_corrupted}};
}

ordered_json ToJson(const engine::RankLoad& load) {
  ordered_json parts;
  for (const engine::StepPart& part : engine::kStepParts)
    parts[part.name] = load.parts.*part.seconds;
  return {{"rank", load.rank},
          {"dp", load.dp},
          {"tp", load.tp},
          {"pp", load.pp},
          {"steps", load.num_steps},
          {"zero_token_steps", load.num_empty_steps},
          {"tokens", load.num_rows},
          {"expert_tokens", load.num_expert_rows},
          {"home_tokens", load.num_home_rows},
          {"dispatch_bytes", load.dispatch_bytes},
          {"combine_bytes", load.combine_bytes},
          {"latency_steps", load.num_latency_steps},
          {"throughput_steps", load.num_throughput_steps},
          {"last_step", load.last_step},
          {"seconds", load.seconds},
          {"parts", std::move(parts)}};
}

// What balancing has done; null where experts stay where they are.
ordered_json Moves(const moe::PlacementState& placement) {
  if (!placement.is_moving) return nullptr;
  const moe::BalanceStatus& moves = placement.moves;
  return {{"committed", moves.num_committed},
          {"dropped", moves.num_dropped},
          {"last_drop", moves.last_drop},
          {"slots", moves.num_slots},
          {"bytes", moves.num_bytes},
          {"fetched",
           {{"same_rank", moves.from_same_rank},
            {"peer", moves.from_peer},
            {"host_pool", moves.from_pool},
            {"checkpoint", moves.from_checkpoint}}},
          {"corrupt_pieces", moves.num_corrupt},
          {"seconds", moves.seconds},
          {"steps", moves.num_steps},
          {"stall_seconds", moves.stall_seconds}};
}

// Shares of assignments; null until rows were counted, which a device does not.
ordered_json Locality(const Snapshot& snapshot, const ExpertRows& rows) {
  if (RowsOf(snapshot.ranks).computed == 0) return nullptr;
  return {{"rank", ShareOf(rows.at_home, rows)},
          {"copies", ShareOf(rows.by_copy, rows)},
          {"node", ShareOf(rows.on_node, rows)}};
}

// Each list by layer.
ordered_json Balance(const Snapshot& snapshot, const ExpertLoad& window,
                     const std::vector<LayerBalance>& layers) {
  const int num_ranks = NumExpertRanks(snapshot.ranks);
  ordered_json balance = {{"num_ranks", num_ranks},
                          {"epoch", snapshot.placement.epoch},
                          {"statistics", snapshot.model.expert_statistics},
                          {"window_seconds", window.seconds},
                          {"locality", Locality(snapshot, window.rows)},
                          {"moves", Moves(snapshot.placement)}};
  ordered_json lists;
  for (const char* name : {"balancedness", "imbalance", "imbalance_in_order", "entropy", "starved",
                           "dominant", "collapsed"}) {
    lists[name] = ordered_json::array();
  }
  for (const LayerBalance& layer : layers) {
    lists["entropy"].push_back(layer.experts.entropy);
    lists["starved"].push_back(layer.experts.starved.size());
    lists["dominant"].push_back(layer.experts.dominant.size());
    lists["collapsed"].push_back(layer.has_collapsed);
    if (num_ranks == 0) continue;
    lists["balancedness"].push_back(layer.ranks.balancedness());
    lists["imbalance"].push_back(layer.ranks.imbalance());
    lists["imbalance_in_order"].push_back(layer.ranks_in_order.imbalance());
  }
  balance.update(lists);
  return balance;
}

// Tens of thousands of numbers: written as they are, not by way of a tree of values.
void AppendLayers(const moe::ExpertStats& source, int num_layers, std::string* out) {
  *out += '[';
  for (int layer = 0; layer < num_layers; ++layer) {
    fmt::format_to(std::back_inserter(*out), "{}[{}]", layer == 0 ? "" : ",",
                   fmt::join(source.Layer(layer), ","));
  }
  *out += ']';
}

void AppendExperts(const moe::ExpertStats& since_start, const ExpertLoad& window,
                   std::string* out) {
  fmt::format_to(
      std::back_inserter(*out),
      R"("experts":{{"num_layers":{},"num_experts":{},"window_seconds":{:.3f},"window":)",
      window.num_layers(), window.num_experts(), window.seconds);
  AppendLayers(window.counts, window.num_layers(), out);
  *out += ",\"since_start\":";
  AppendLayers(since_start, window.num_layers(), out);
  *out += '}';
}

}  // namespace

std::string Metrics::Stats(const Snapshot& snapshot, bool with_experts) {
  const ExpertLoad window =
      window_.Advance(snapshot.experts, snapshot.uptime_seconds, RowsOf(snapshot.ranks));
  const std::vector<LayerBalance> layers =
      BalanceOf(window, snapshot.placement.slots, NumExpertRanks(snapshot.ranks));
  const engine::EngineStats& engine = snapshot.engine;
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  ordered_json stats;
  stats["server"] = {{"version", version_},
                     {"model", snapshot.model_name},
                     {"architecture", snapshot.model.architecture},
                     {"max_model_len", snapshot.limits.max_model_len},
                     {"start_id", start_id_},
                     {"time", now},
                     {"uptime", snapshot.uptime_seconds}};
  stats["health"] = {{"healthy", snapshot.is_healthy},
                     {"reason", snapshot.health},
                     {"draining", snapshot.server.is_draining},
                     {"has_work", engine.has_work},
                     {"seconds_without_progress", engine.seconds_without_progress}};
  stats["gauges"] = Gauges(snapshot);
  stats["counters"] = Counters(engine);
  stats["latency"] = {{"ttft", ToJson(engine.time_to_first_token)},
                      {"itl", ToJson(engine.inter_token_latency)},
                      {"tpot", ToJson(engine.time_per_output_token)},
                      {"e2e", ToJson(engine.e2e_latency)},
                      {"queue", ToJson(engine.queue_time)}};
  stats["steps"] = {{"plan", ToJson(engine.plan_time)},
                    {"device", ToJson(engine.device_time)},
                    {"wait", ToJson(engine.wait_time)}};
  stats["ranks"] = ordered_json::array();
  for (const engine::RankLoad& load : snapshot.ranks) stats["ranks"].push_back(ToJson(load));
  stats["balance"] = Balance(snapshot, window, layers);
  // A name that is no UTF-8 must not stop it.
  std::string text = stats.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  if (with_experts) {
    text.back() = ',';  // in place of the closing brace
    AppendExperts(snapshot.experts, window, &text);
    text += '}';
  }
  return text;
}

}  // namespace moebius::serve
