#include "app/eplb_counts.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

namespace moebius::app {
namespace {

using nlohmann::json;

constexpr int kMostLayers = 1 << 16;

Result<std::vector<int>> ParseLayers(const json& body) {
  const auto list = body.find("layers");
  std::vector<int> layers;
  if (list == body.end() || !list->is_array() || list->empty()) {
    return MakeError(ErrorCode::kCorrupt, "layers: expected the indices of one layer or more");
  }
  for (const json& layer : *list) {
    const bool is_next = layer.is_number_unsigned() && layer.get<uint64_t>() < kMostLayers &&
                         (layers.empty() || layer.get<int>() > layers.back());
    if (!is_next) {
      return MakeError(ErrorCode::kCorrupt, "layers: entry {} is {}, expected ascending indices",
                       layers.size(), layer.dump());
    }
    layers.push_back(layer.get<int>());
  }
  return layers;
}

// Adds the totals of a phase.
Status AddPhase(const json& rank, const char* phase, size_t num_experts, plan::LayerCounts& sum) {
  const auto layers = rank.is_object() ? rank.find(phase) : rank.end();
  if (!rank.is_object() || layers == rank.end() || !layers->is_array() ||
      layers->size() != sum.size()) {
    return MakeError(ErrorCode::kCorrupt, "{}: expected a list for each of {} layers", phase,
                     sum.size());
  }
  for (size_t l = 0; l < sum.size(); ++l) {
    const json& counts = (*layers)[l];
    if (!counts.is_array() || counts.size() != num_experts) {
      return MakeError(ErrorCode::kCorrupt, "{}: entry {}: expected {} counts, one an expert",
                       phase, l, num_experts);
    }
    for (size_t e = 0; e < num_experts; ++e) {
      const auto most = static_cast<uint64_t>(std::numeric_limits<int64_t>::max() - sum[l][e]);
      if (!counts[e].is_number_unsigned() || counts[e].get<uint64_t>() > most) {
        return MakeError(ErrorCode::kCorrupt, "{}: entry {}: expert {} has {}, expected tokens",
                         phase, l, e, counts[e].dump());
      }
      sum[l][e] += counts[e].get<int64_t>();
    }
  }
  return {};
}

}  // namespace

Result<ServerCounts> ParseServerCounts(const std::string& body, CountedPhase phase) {
  ServerCounts counts;
  MOEBIUS_ASSIGN(counts.meta, plan::ParseStatisticsMeta(body, "the counts"));
  const json parsed = json::parse(body, nullptr, false);
  MOEBIUS_ASSIGN(counts.layers, ParseLayers(parsed));
  const auto ranks = parsed.find("ranks");
  if (ranks == parsed.end() || !ranks->is_array() || ranks->empty()) {
    return MakeError(ErrorCode::kCorrupt, "the counts: ranks: expected one or more");
  }
  const auto num_experts = static_cast<size_t>(counts.meta.num_experts);
  for (const json& rank : *ranks) {
    plan::LayerCounts& sum =
        counts.ranks.emplace_back(counts.layers.size(), std::vector<int64_t>(num_experts));
    Status added;
    if (phase != CountedPhase::kPrefill) added = AddPhase(rank, "decode", num_experts, sum);
    if (added && phase != CountedPhase::kDecode) {
      added = AddPhase(rank, "prefill", num_experts, sum);
    }
    if (added) continue;
    return tl::unexpected(
        added.error().WithContext(fmt::format("the counts: rank {}", counts.ranks.size() - 1)));
  }
  return counts;
}

CountRecorder::CountRecorder(ServerCounts first)
    : last_(std::move(first)), ranks_(last_.ranks.size()) {
  for (plan::ExpertStatistics& rank : ranks_) {
    rank.meta = last_.meta;
    rank.layers = last_.layers;
  }
}

Status CountRecorder::Add(ServerCounts counts) {
  if (counts.layers != last_.layers || counts.ranks.size() != last_.ranks.size() ||
      counts.meta.num_experts != last_.meta.num_experts) {
    return MakeError(ErrorCode::kUnavailable,
                     "{} ranks, {} layers of {} experts are counted now, expected {}, {} of {} as "
                     "before: it is another server",
                     counts.ranks.size(), counts.layers.size(), counts.meta.num_experts,
                     last_.ranks.size(), last_.layers.size(), last_.meta.num_experts);
  }
  std::vector<plan::LayerCounts> news = counts.ranks;
  int64_t num_new = 0;
  for (size_t rank = 0; rank < news.size(); ++rank) {
    for (size_t layer = 0; layer < news[rank].size(); ++layer) {
      for (size_t expert = 0; expert < news[rank][layer].size(); ++expert) {
        int64_t& count = news[rank][layer][expert];
        const int64_t before = last_.ranks[rank][layer][expert];
        if (count < before) {
          return MakeError(ErrorCode::kUnavailable,
                           "rank {}, layer {}: expert {} has {} tokens, {} before: the server was "
                           "started anew",
                           rank, last_.layers[layer], expert, count, before);
        }
        count -= before;
        num_new += count;
      }
    }
  }
  last_ = std::move(counts);
  if (num_new == 0) return {};
  num_tokens_ += num_new;
  for (size_t rank = 0; rank < news.size(); ++rank) {
    ranks_[rank].iterations.push_back(std::move(news[rank]));
  }
  return {};
}

size_t CountRecorder::num_bytes() const {
  return num_iterations() * ranks_.size() * last_.layers.size() *
         static_cast<size_t>(last_.meta.num_experts) * sizeof(int64_t);
}

}  // namespace moebius::app
