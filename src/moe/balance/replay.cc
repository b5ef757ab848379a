#include "moe/balance/replay.h"

#include <fmt/format.h>

#include <chrono>
#include <iterator>
#include <numeric>

#include "moe/placement.h"

namespace moebius::moe {
namespace {

class Replayer {
 public:
  Replayer(const LoadTrace& trace, const SlotShape& shape, std::optional<BalancePolicy> policy,
           const ReplayOptions& options)
      : trace_(trace),
        shape_(shape),
        policy_(policy),
        options_(options),
        lists_(static_cast<size_t>(trace.num_layers),
               LinearSlots(shape.num_experts, shape.num_ranks, shape.num_slots)) {
    past_ = {trace.num_layers, trace.num_experts, {trace.windows.front()}};
    result_.policy = policy ? PolicyName(*policy) : "none";
  }

  Result<ReplayResult> Run() {
    for (size_t w = 1; w < trace_.windows.size(); ++w) {
      if ((w - 1) % static_cast<size_t>(options_.windows_per_update) == 0) {
        if (policy_) MOEBIUS_TRY(Update(w - 1));
        JudgePlan();
      }
      Judge(w);
      std::vector<double>& past = past_.windows.front();
      for (size_t i = 0; i < past.size(); ++i) {
        past[i] = past[i] * options_.decay + trace_.windows[w][i];
      }
    }
    Average();
    return std::move(result_);
  }

 private:
  double StepTokens(std::span<const double> load) const {
    if (options_.tokens > 0) return options_.tokens;
    return std::accumulate(load.begin(), load.end(), 0.0);
  }

  // window: the last one before.
  Status Update(size_t window) {
    const bool first = num_plans_ == 0;
    const auto begin = std::chrono::steady_clock::now();
    ImproveOptions improve = options_.improve;
    std::vector<SlotList> next;
    for (int l = 0; l < trace_.num_layers; ++l) {
      const SlotList& present = lists_[static_cast<size_t>(l)];
      improve.tokens = StepTokens(trace_.Layer(window, l));
      MOEBIUS_ASSIGN(SlotList list,
                     PlanLayer(*policy_, shape_, past_.Layer(0, l),
                               first ? std::span<const int32_t>() : present, improve));
      next.push_back(std::move(list));
    }
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    result_.planning_seconds += spent.count();
    for (size_t l = 0; l < next.size() && !first; ++l) {
      result_.slots_rewritten += NumMoves(lists_[l], next[l]);
    }
    lists_ = std::move(next);
    return {};
  }

  void JudgePlan() {
    ++num_plans_;
    for (int l = 0; l < trace_.num_layers; ++l) {
      result_.planned_imbalance +=
          Imbalance(RankLoads(shape_.num_ranks, past_.Layer(0, l), lists_[static_cast<size_t>(l)]));
    }
  }

  void Judge(size_t window) {
    for (int l = 0; l < trace_.num_layers; ++l) {
      const SlotList& list = lists_[static_cast<size_t>(l)];
      const std::span<const double> load = trace_.Layer(window, l);
      result_.imbalance += Imbalance(RankLoads(shape_.num_ranks, load, list));
      result_.best_imbalance += BestImbalance(shape_, load);
      result_.step_seconds += LayerSeconds(options_.cost, shape_, load, list, StepTokens(load));
    }
  }

  void Average() {
    const double judged = static_cast<double>(trace_.windows.size()) - 1;
    const double layers = trace_.num_layers;
    result_.imbalance /= judged * layers;
    result_.planned_imbalance /= num_plans_ * layers;
    result_.best_imbalance /= judged * layers;
    result_.step_seconds /= judged;
    result_.planning_seconds /= num_plans_;
    result_.num_updates = policy_ ? num_plans_ - 1 : 0;
    result_.bytes = static_cast<double>(result_.slots_rewritten) * options_.bytes_per_expert;
    if (result_.num_updates > 0) {
      result_.rewritten_share = static_cast<double>(result_.slots_rewritten) /
                                (layers * shape_.num_slots * result_.num_updates);
    }
  }

  const LoadTrace& trace_;
  const SlotShape& shape_;
  const std::optional<BalancePolicy> policy_;
  const ReplayOptions& options_;
  LoadTrace past_;  // one window: the decayed sum
  std::vector<SlotList> lists_;
  int num_plans_ = 0;
  ReplayResult result_;
};

}  // namespace

Result<ReplayResult> Replay(const LoadTrace& trace, const SlotShape& shape,
                            std::optional<BalancePolicy> policy, const ReplayOptions& options) {
  MOEBIUS_TRY(CheckTrace(trace));
  MOEBIUS_TRY(CheckShape(shape));
  if (trace.num_experts != shape.num_experts || trace.num_layers < 1) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "replay: the trace has {} layers of {} experts, expected {} experts a layer",
                     trace.num_layers, trace.num_experts, shape.num_experts);
  }
  if (trace.windows.size() < 2 || options.windows_per_update < 1) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "replay: {} windows, {} an update; expected at least 2 to plan and to judge, "
                     "and at least 1",
                     trace.windows.size(), options.windows_per_update);
  }
  return Replayer(trace, shape, policy, options).Run();
}

std::string ReplayTable(std::span<const ReplayResult> results) {
  std::string text = fmt::format("{:<9} {:>9} {:>9} {:>9} {:>10} {:>9} {:>9} {:>10} {:>9}\n",
                                 "policy", "imbalance", "planned", "best", "rewritten", "share",
                                 "GiB", "step us", "plan ms");
  for (const ReplayResult& r : results) {
    fmt::format_to(
        std::back_inserter(text),
        "{:<9} {:>9.4f} {:>9.4f} {:>9.4f} {:>10} {:>8.2f}% {:>9.2f} {:>10.1f} {:>9.3f}\n", r.policy,
        r.imbalance, r.planned_imbalance, r.best_imbalance, r.slots_rewritten,
        100 * r.rewritten_share, r.bytes / 0x1p30, 1e6 * r.step_seconds, 1e3 * r.planning_seconds);
  }
  return text;
}

}  // namespace moebius::moe
