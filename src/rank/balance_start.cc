#include "rank/balance_start.h"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "model/expert_slots.h"
#include "moe/migrate/host_pool.h"
#include "moe/migrate/host_pool_names.h"
#include "platform/shared_memory_room.h"

namespace moebius::rank {
namespace {

constexpr double kLongestFetchSeconds = 24 * 3600;

// World ranks that share the experts of a pipeline stage, in the order of their slots.
std::vector<int> ExpertRanks(const layout::ParallelConfig& parallel, int stage) {
  std::vector<int> ranks(static_cast<size_t>(parallel.expert_group()));
  for (int rank = 0; rank < parallel.num_gpus(); ++rank) {
    const layout::RankPlace place = layout::PlaceOf(parallel, RankId(rank));
    if (place.pp == stage) ranks[static_cast<size_t>(place.flattened)] = rank;
  }
  return ranks;
}

void WarnWithoutHugePages(const std::string& folder) {
  const std::string word = platform::SharedHugePages(folder);
  if (platform::GivesHugePages(word)) return;
  LogWarning(
      "{} gives no huge pages ({}): copies out of the host pool are slower. As root: mount -o "
      "remount,huge=advise {}",
      folder, word.empty() ? "this kernel has none" : word, folder);
}

int StageOf(const DeploymentShape& shape, int64_t layer) {
  const int num_stages = shape.parallel.pipeline_parallel_size;
  int stage = 0;
  while (layer >= layout::LayersOfStage(shape.num_layers, num_stages, stage).end) ++stage;
  return stage;
}

// The planner's, at world rank 0.
RebalancerOptions PlannerOf(const Links& links, const ExpertSize& expert) {
  const moe::OnlineBalance& online = links.shape().online;
  const auto bytes = static_cast<double>(expert.bytes);
  RebalancerOptions planner;
  planner.choice.layer_updates_per_iter = online.layer_updates_per_iter;
  planner.choice.num_staging = online.num_staging;
  planner.choice.min_gain = online.min_gain;
  planner.choice.cost = moe::CostInRows(bytes, expert.flops_of_row, online.flops_per_byte);
  planner.choice.min_tokens_per_expert = online.min_tokens_per_expert;
  planner.choice.is_random = online.is_random;
  planner.choice.seed = online.seed;
  planner.step_interval = online.step_interval;
  if (online.bytes_per_second > 0) {
    // What a plan may fetch for a rank takes half as long by the rate alone.
    const double seconds =
        2 * bytes * online.num_staging / static_cast<double>(online.bytes_per_second);
    planner.deadline += std::chrono::milliseconds(
        static_cast<int64_t>(1e3 * std::min(seconds, kLongestFetchSeconds)));
  }
  planner.abort = &links.control().abort();
  planner.load = [counts = links.expert_counts()] { return counts.Sum(); };
  planner.num_steps = [control = links.control()] { return control.Counters(0).Read().num_steps; };
  return planner;
}

}  // namespace

BalanceLayout LayOutSlots(const DeploymentShape& shape) {
  const int group = shape.parallel.expert_group();
  BalanceLayout layout;
  layout.slots.num_experts = shape.num_experts;
  layout.slots.num_slots =
      static_cast<int>(std::max<int64_t>(shape.slots.num_slots, shape.num_experts));
  layout.slots.num_ranks = group;
  for (size_t layer = 0; layer < shape.moe_layers.size(); ++layer) {
    layout.ranks.push_back(ExpertRanks(shape.parallel, StageOf(shape, shape.moe_layers[layer])));
    layout.experts.push_back(shape.slots.Of(static_cast<int>(layer), shape.num_experts, group));
  }
  return layout;
}

Status MakeHostPool(Links& links, model::Model& model) {
  const DeploymentShape& shape = links.shape();
  model::ExpertSlots* const slots = model.expert_store();
  if (!shape.moves_experts() || !shape.online.host_pool || slots == nullptr) return {};
  moe::HostPoolOptions options;
  if (links.rank().value() == 0) WarnWithoutHugePages(options.folder);  // once a deployment
  MOEBIUS_ASSIGN(options.base, moe::HostPoolBase());
  options.num_experts = shape.num_experts;
  options.local_rank = links.place().flattened;
  options.num_local_ranks = shape.parallel.expert_group();
  for (int layer = 0; layer < shape.num_moe_layers; ++layer) {
    options.expert_bytes.push_back(slots->ExpertBytes(layer));
  }
  // A pipeline stage may have no experts.
  if (std::ranges::count(options.expert_bytes, size_t{0}) == std::ssize(options.expert_bytes)) {
    return {};
  }
  MOEBIUS_ASSIGN(moe::HostPool pool, moe::HostPool::Create(options));
  return slots->UsePool(std::move(pool));
}

ExpertSize ExpertSizeOf(const Links& links, model::Model& model) {
  const model::ExpertSlots* const slots = model.expert_store();
  ExpertSize size;
  if (slots == nullptr) return size;
  for (int layer = 0; layer < links.shape().num_moe_layers; ++layer) {
    size.bytes = std::max(size.bytes, static_cast<int64_t>(slots->ExpertBytes(layer)));
  }
  size.flops_of_row = slots->FlopsOfRow();
  return size;
}

std::unique_ptr<BalanceAgent> MakeBalanceAgent(Links& links, model::Model& model,
                                               const ExpertSize& expert) {
  const DeploymentShape& shape = links.shape();
  if (!shape.moves_experts() || model.expert_store() == nullptr) return nullptr;
  BalanceAgentOptions options;
  options.layout = LayOutSlots(shape);
  options.mail.rank = links.rank().value();
  options.mail.abort = &links.control().abort();
  options.mail.bytes_per_second = shape.online.bytes_per_second;
  if (links.device() != nullptr) options.mail.memory = links.device()->Mail();
  if (links.rank().value() == 0) options.planner = PlannerOf(links, expert);
  return std::make_unique<BalanceAgent>(*links.board(), std::move(options), model.expert_store());
}

}  // namespace moebius::rank
