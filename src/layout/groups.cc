#include <algorithm>

#include "base/check.h"
#include "layout/parallel_layout.h"

namespace moebius::layout {
namespace {

RankId RankAt(const ParallelConfig& config, int dp, int pp, int tp) {
  return RankId((dp * config.pipeline_parallel_size + pp) * config.tensor_parallel_size + tp);
}

}  // namespace

std::vector<int64_t> ExpertsPerRank(int64_t num_experts, int expert_parallel_size) {
  MOEBIUS_CHECK_GE(expert_parallel_size, 1);
  const int64_t each = num_experts / expert_parallel_size;
  const int64_t more = num_experts % expert_parallel_size;
  std::vector<int64_t> counts(static_cast<size_t>(expert_parallel_size), each);
  std::fill_n(counts.begin(), more, each + 1);
  return counts;
}

ExpertRange ExpertsOfRank(int64_t num_experts, int expert_parallel_size, int flattened) {
  const int64_t each = num_experts / expert_parallel_size;
  const int64_t more = num_experts % expert_parallel_size;
  const int64_t begin = flattened * each + std::min<int64_t>(flattened, more);
  return {begin, begin + each + (flattened < more ? 1 : 0)};
}

StageLayers LayersOfStage(int64_t num_layers, int pipeline_parallel_size, int stage) {
  const int64_t each = num_layers / pipeline_parallel_size;
  const int64_t more = num_layers % pipeline_parallel_size;
  // Stages [first_wide, first_wide + more) take one more; the last stage only if all others do.
  const int64_t first_wide = std::max<int64_t>(0, pipeline_parallel_size - 1 - more);
  const int64_t before = std::clamp<int64_t>(stage - first_wide, 0, more);
  const bool wide = stage >= first_wide && stage < first_wide + more;
  const int64_t begin = stage * each + before;
  return {begin, begin + each + (wide ? 1 : 0)};
}

RankPlace PlaceOf(const ParallelConfig& config, RankId rank) {
  MOEBIUS_CHECK(rank.valid() && rank.value() < config.num_gpus());
  const int tp_size = config.tensor_parallel_size;
  RankPlace place;
  place.tp = rank.value() % tp_size;
  place.pp = rank.value() / tp_size % config.pipeline_parallel_size;
  place.dp = rank.value() / tp_size / config.pipeline_parallel_size;
  place.flattened = place.dp * tp_size + place.tp;
  return place;
}

std::vector<RankId> TpGroup(const ParallelConfig& config, RankId rank) {
  const RankPlace place = PlaceOf(config, rank);
  std::vector<RankId> ranks;
  for (int tp = 0; tp < config.tensor_parallel_size; ++tp) {
    ranks.push_back(RankAt(config, place.dp, place.pp, tp));
  }
  return ranks;
}

std::vector<RankId> DpGroup(const ParallelConfig& config, RankId rank) {
  const RankPlace place = PlaceOf(config, rank);
  std::vector<RankId> ranks;
  for (int dp = 0; dp < config.data_parallel_size; ++dp) {
    ranks.push_back(RankAt(config, dp, place.pp, place.tp));
  }
  return ranks;
}

std::vector<RankId> PpGroup(const ParallelConfig& config, RankId rank) {
  const RankPlace place = PlaceOf(config, rank);
  std::vector<RankId> ranks;
  for (int pp = 0; pp < config.pipeline_parallel_size; ++pp) {
    ranks.push_back(RankAt(config, place.dp, pp, place.tp));
  }
  return ranks;
}

std::vector<RankId> ExpertGroup(const ParallelConfig& config, RankId rank) {
  const RankPlace place = PlaceOf(config, rank);
  std::vector<RankId> ranks;
  for (int dp = 0; dp < config.data_parallel_size; ++dp) {
    for (int tp = 0; tp < config.tensor_parallel_size; ++tp) {
      ranks.push_back(RankAt(config, dp, place.pp, tp));
    }
  }
  return ranks;
}

}  // namespace moebius::layout
