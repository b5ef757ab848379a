#include "bench/load/server_metrics.h"

#include <fmt/format.h>

#include <charconv>
#include <functional>

namespace moebius::load {
namespace {

// The value of label `position` in {...}; empty: none.
std::string PositionOf(std::string_view labels) {
  constexpr std::string_view kKey = "position=\"";
  const size_t at = labels.find(kKey);
  if (at == std::string_view::npos) return "";
  const size_t begin = at + kKey.size();
  return std::string(labels.substr(begin, labels.find('"', begin) - begin));
}

class Difference {
 public:
  Difference(const MetricSums& before, const MetricSums& after) : before_(before), after_(after) {}

  std::optional<double> Of(const std::string& name) const {
    const auto now = after_.find(name);
    if (now == after_.end()) return std::nullopt;
    const auto then = before_.find(name);
    return now->second - (then == before_.end() ? 0 : then->second);
  }
  // Of a histogram: the mean of what was observed in between.
  std::optional<double> MeanOf(const std::string& name) const {
    const auto sum = Of(name + "_sum");
    const auto count = Of(name + "_count");
    if (!sum || !count || *count <= 0) return std::nullopt;
    return *sum / *count;
  }

 private:
  const MetricSums& before_;
  const MetricSums& after_;
};

std::optional<SpeculativeDecoding> SpeculativeOf(const Difference& difference) {
  const auto drafts = difference.Of("vllm:spec_decode_num_drafts_total");
  const auto tokens = difference.Of("vllm:spec_decode_num_draft_tokens_total");
  const auto accepted = difference.Of("vllm:spec_decode_num_accepted_tokens_total");
  if (!drafts || !tokens || !accepted || *drafts <= 0 || *tokens <= 0) return std::nullopt;
  SpeculativeDecoding result;
  result.num_drafts = static_cast<int64_t>(*drafts);
  result.draft_tokens = static_cast<int64_t>(*tokens);
  result.accepted_tokens = static_cast<int64_t>(*accepted);
  result.acceptance_rate = *accepted / *tokens * 100;
  result.acceptance_length = 1 + *accepted / *drafts;
  for (int position = 0;; ++position) {
    const auto count = difference.Of("vllm:spec_decode_num_accepted_tokens_per_pos_total{" +
                                     std::to_string(position) + "}");
    if (!count) break;
    result.per_position.push_back(*count / *drafts);
  }
  return result;
}

}  // namespace

MetricSums ParseMetrics(std::string_view text) {
  MetricSums sums;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.empty() || line.front() == '#') continue;
    const size_t name_end = line.find_first_of("{ ");
    if (name_end == std::string_view::npos) continue;
    const std::string name(line.substr(0, name_end));
    std::string position;
    if (line[name_end] == '{') {
      const size_t labels_end = line.rfind('}');
      if (labels_end == std::string_view::npos) continue;
      position = PositionOf(line.substr(name_end, labels_end - name_end));
      line.remove_prefix(labels_end + 1);
    } else {
      line.remove_prefix(name_end);
    }
    while (!line.empty() && line.front() == ' ') line.remove_prefix(1);
    double value = 0;
    if (std::from_chars(line.data(), line.data() + line.size(), value).ec != std::errc()) continue;
    sums[name] += value;
    if (!position.empty()) sums[fmt::format("{}{{{}}}", name, position)] += value;
  }
  return sums;
}

ServerView CompareMetrics(const MetricSums& before, const MetricSums& after) {
  const Difference difference(before, after);
  ServerView view;
  view.queue = difference.MeanOf("vllm:request_queue_time_seconds");
  view.prefill = difference.MeanOf("vllm:request_prefill_time_seconds");
  view.decode = difference.MeanOf("vllm:request_decode_time_seconds");
  view.preemptions = difference.Of("vllm:num_preemptions_total");
  const auto queries = difference.Of("vllm:prefix_cache_queries_total");
  const auto hits = difference.Of("vllm:prefix_cache_hits_total");
  if (queries && hits && *queries > 0) view.prefix_hit_share = *hits / *queries;
  const auto prefill_sum = difference.Of("vllm:request_prefill_time_seconds_sum");
  const auto prompt = difference.Of("vllm:prompt_tokens_total");
  if (prefill_sum && prompt && *prompt - hits.value_or(0) > 0) {
    view.prefill_per_token = *prefill_sum / (*prompt - hits.value_or(0));
  }
  view.speculative = SpeculativeOf(difference);
  return view;
}

}  // namespace moebius::load
