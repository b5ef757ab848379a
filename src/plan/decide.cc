#include "plan/decide.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

namespace moebius::plan {
namespace {

constexpr double kNever = std::numeric_limits<double>::infinity();
constexpr double kTie = 1 + kTieShare;
constexpr double kContender = 1.15;
constexpr size_t kNumCurves = 5;

// Lower is better.
double ScoreOf(Objective objective, const Estimate& estimate) {
  switch (objective) {
    case Objective::kLatency:
      return estimate.tpot_ms;
    case Objective::kThroughput:
      return 1 / estimate.output_tokens_per_s;
    case Objective::kCost:
      return 1 / estimate.tokens_per_s_gpu;
  }
  return kNever;
}

void CheckLimits(const Question& question, Estimate& estimate) {
  if (!estimate.ok()) return;
  const auto check = [&](const char* name, double value, const std::optional<double>& limit) {
    if (!limit || value <= *limit) return;
    estimate.rejected_by = RejectedBy::kLimit;
    estimate.reason =
        fmt::format("{}{} {:.1f} ms, at most {:g} ms wanted",
                    estimate.reason.empty() ? "" : estimate.reason + "; ", name, value, *limit);
  };
  check("TTFT", estimate.ttft_ms, question.ttft_ms);
  check("TPOT", estimate.tpot_ms, question.tpot_ms);
}

// The layouts that compete, and their scores over concurrency, computed once.
class Race {
 public:
  Race(const PlanInput& input, const Question& question) : input_(input), question_(question) {}

  void Add(const layout::ParallelConfig& config) {
    contenders_.push_back(configs_.size());
    configs_.push_back(config);
    settled_.emplace_back();
    scores_.emplace_back();
    full_from_.push_back(std::numeric_limits<int64_t>::max());
  }
  size_t size() const { return configs_.size(); }
  const layout::ParallelConfig& config(size_t i) const { return configs_[i]; }
  std::string name(size_t i) const { return layout::ConfigName(configs_[i]); }

  size_t Find(const std::string& wanted) const {
    size_t i = 0;
    while (i + 1 < size() && name(i) != wanted) ++i;
    return i;
  }

  // With what is left to cost settled for the power of four at or below the concurrency.
  const layout::ParallelLayout& layout(size_t i, int64_t concurrency) {
    int64_t rounded = 1;
    while (rounded * 4 <= concurrency) rounded *= 4;
    const auto found = settled_[i].find(rounded);
    if (found != settled_[i].end()) return found->second;
    return settled_[i].emplace(rounded, SettleLayout(input_, configs_[i], rounded)).first->second;
  }
  Estimate At(size_t i, int64_t concurrency) {
    Estimate estimate = EstimateLayout(input_, layout(i, concurrency), concurrency);
    CheckLimits(question_, estimate);
    return estimate;
  }
  // Infinite where it does not hold.
  double Score(size_t i, int64_t concurrency) {
    if (concurrency >= full_from_[i]) return kNever;
    const auto found = scores_[i].find(concurrency);
    if (found != scores_[i].end()) return found->second;
    const Estimate estimate = At(i, concurrency);
    const bool full = estimate.rejected_by == RejectedBy::kWeights ||
                      estimate.rejected_by == RejectedBy::kCapacity;
    if (full) full_from_[i] = concurrency;
    return scores_[i][concurrency] =
               estimate.ok() ? ScoreOf(question_.objective, estimate) : kNever;
  }
  // The best of the contenders at one concurrency; size() if none holds.
  size_t Winner(int64_t concurrency) {
    size_t best = size();
    double best_score = kNever;
    for (const size_t i : contenders_) {
      const double score = Score(i, concurrency);
      if (score < best_score) {
        best = i;
        best_score = score;
      }
    }
    return best;
  }
  // Who is near the best at some power of two; only they can lead in between.
  void KeepContenders() {
    std::vector<bool> near(size(), false);
    for (int64_t c = 1; c <= kMaxConcurrency; c *= 2) {
      const size_t winner = Winner(c);
      if (winner == size()) break;
      for (const size_t i : contenders_) {
        if (Score(i, c) <= Score(winner, c) * kContender) near[i] = true;
      }
    }
    contenders_.erase(
        std::remove_if(contenders_.begin(), contenders_.end(), [&](size_t i) { return !near[i]; }),
        contenders_.end());
  }
  // The wanted concurrency; without one, where this layout does best: a power of two, or what
  // memory and limits allow beyond it (to one in 32).
  int64_t OperatingPoint(size_t i) {
    if (question_.concurrency) return *question_.concurrency;
    if (question_.objective == Objective::kLatency) return kLatencyConcurrency;
    int64_t best = 1;
    double best_score = kNever;
    for (int64_t c = 1; c <= kMaxConcurrency && c < full_from_[i]; c *= 2) {
      const double score = Score(i, c);
      if (score < best_score) {
        best = c;
        best_score = score;
      }
    }
    int64_t beyond = best * 2;
    while (best_score < kNever && beyond - best > std::max<int64_t>(1, best / 32)) {
      const int64_t middle = (best + beyond) / 2;
      const double score = Score(i, middle);
      if (score <= best_score) {
        best = middle;
        best_score = score;
      } else {
        beyond = middle;
      }
    }
    return best;
  }

 private:
  const PlanInput& input_;
  const Question& question_;
  std::vector<layout::ParallelConfig> configs_;
  std::vector<size_t> contenders_;
  std::vector<std::map<int64_t, layout::ParallelLayout>> settled_;
  std::vector<std::map<int64_t, double>> scores_;
  std::vector<int64_t> full_from_;
};

// The first concurrency in (low, high] at which `changed` holds; it does not at low, it does at
// high.
template <typename Changed>
int64_t FirstChange(int64_t low, int64_t high, const Changed& changed) {
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (changed(middle) ? high : low) = middle;
  }
  return high;
}

std::vector<Band> FindBands(Race& race) {
  race.KeepContenders();
  std::vector<Band> bands;
  size_t leader = race.size();
  int64_t before = 0;
  // A leader stays until another one is ahead by more than a tie.
  const auto stays = [&](int64_t c) {
    const size_t winner = race.Winner(c);
    return winner != race.size() && race.Score(leader, c) <= race.Score(winner, c) * kTie;
  };
  for (int64_t c = 1; c <= kMaxConcurrency; c *= 2) {
    if (race.Winner(c) == race.size()) break;
    if (bands.empty()) {
      leader = race.Winner(c);
      bands.push_back({c, c, race.name(leader)});
    }
    // Others may lead in between.
    for (int64_t at = before; !stays(c);) {
      at = FirstChange(at, c, [&](int64_t x) { return !stays(x); });
      leader = race.Winner(at);
      bands.back().to = at - 1;
      bands.push_back({at, c, race.name(leader)});
    }
    bands.back().to = c;
    before = c;
  }
  return bands;
}

Crossover FindCrossover(Race& race, size_t first, size_t second, int64_t wanted) {
  const std::string names[2] = {race.name(first), race.name(second)};
  const auto second_leads = [&](int64_t c) {
    return race.Score(second, c) * kTie < race.Score(first, c);
  };
  const auto nobody = [&](int64_t c) {
    return race.Score(first, c) == kNever && race.Score(second, c) == kNever;
  };
  Crossover crossover;
  const bool ahead_at_wanted = !second_leads(wanted);
  int64_t low = wanted;  // with the first in front (by capacity it may not even hold at `wanted`)
  for (int64_t c = wanted * 2; ahead_at_wanted && c <= kMaxConcurrency && !nobody(c); c *= 2) {
    if (second_leads(c)) {
      crossover.concurrency = FirstChange(low, c, second_leads);
      break;
    }
    low = c;
  }
  int64_t high = wanted;
  for (int64_t c = wanted / 2; !crossover.concurrency && c >= 1 && !nobody(c); c /= 2) {
    if (second_leads(c)) {
      crossover.concurrency =
          FirstChange(c, high, [&](int64_t at) { return !second_leads(at); }) - 1;
      crossover.upwards = false;
      break;
    }
    high = c;
  }
  if (!crossover.concurrency) {
    crossover.text = fmt::format("{} leads {} by more than {:g} % at no concurrency that fits",
                                 names[1], names[0], kTieShare * 100);
    return crossover;
  }
  const int64_t at = *crossover.concurrency;
  const int64_t other_side = crossover.upwards ? at - 1 : at + 1;
  crossover.by_speed = race.Score(first, at) < kNever && race.Score(second, other_side) < kNever;
  crossover.text = crossover.upwards
                       ? fmt::format("{} leads up to {} requests in flight, {} from {}", names[0],
                                     at - 1, names[1], at)
                       : fmt::format("{} leads up to {} requests in flight, {} from {}", names[1],
                                     at, names[0], at + 1);
  if (!crossover.by_speed) crossover.text += " (memory or a limit decides, not speed)";
  return crossover;
}

// A cost plan may leave GPUs idle; the others use what is named.
std::set<int> GpuCounts(const PlanInput& input, const Question& question) {
  std::set<int> counts(question.gpu_counts.begin(), question.gpu_counts.end());
  if (question.objective != Objective::kCost || counts.empty()) return counts;
  const int most = *counts.rbegin();
  const int node = input.device.gpus_per_node;
  for (int n = 1; n <= std::min(most, node); n *= 2) counts.insert(n);
  for (int n = node; n <= most; n += node) counts.insert(n);
  return counts;
}

void AddLayouts(const PlanInput& input, const Question& question, Race& race,
                std::vector<Rejection>& rejected) {
  for (const int gpus : GpuCounts(input, question)) {
    const ConfigSet set = EnumerateConfigs(input, gpus);
    const auto wanted = [&](const layout::ParallelConfig& config) {
      return !question.expert_parallel ||
             *question.expert_parallel == config.expert_parallel_active();
    };
    for (const IllegalLayout& illegal : set.illegal) {
      if (!wanted(illegal.config)) continue;
      rejected.push_back(
          {layout::ConfigName(illegal.config), gpus, RejectedBy::kRule, illegal.reason, 0});
    }
    for (const layout::ParallelConfig& config : set.legal) {
      if (wanted(config)) race.Add(config);
    }
  }
}

}  // namespace

const char* ObjectiveName(Objective objective) {
  switch (objective) {
    case Objective::kLatency:
      return "latency";
    case Objective::kThroughput:
      return "throughput";
    case Objective::kCost:
      return "cost";
  }
  return "?";
}

Result<Objective> ParseObjective(const std::string& name) {
  for (const Objective objective :
       {Objective::kLatency, Objective::kThroughput, Objective::kCost}) {
    if (name == ObjectiveName(objective)) return objective;
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "--objective is '{}', expected latency, throughput or cost", name);
}

Curve CurveOf(const PlanInput& input, const layout::ParallelConfig& config) {
  Curve curve{layout::ConfigName(config), {}};
  for (int64_t c = 1; c <= kMaxConcurrency; c *= 2) {
    const Estimate estimate = EstimateLayout(input, SettleLayout(input, config, c), c);
    if (!estimate.ok()) break;
    curve.points.push_back(
        {c, estimate.tokens_per_s_user, estimate.tokens_per_s_gpu, estimate.basis});
  }
  return curve;
}

Decision Decide(const PlanInput& input, const Question& question) {
  Decision decision;
  Race race(input, question);
  AddLayouts(input, question, race, decision.rejected);
  struct Entrant {
    size_t index;
    double score;
    Estimate estimate;
  };
  std::vector<Entrant> entrants;
  for (size_t i = 0; i < race.size(); ++i) {
    Estimate estimate = race.At(i, race.OperatingPoint(i));
    if (estimate.ok()) {
      const double score = ScoreOf(question.objective, estimate);
      entrants.push_back({i, score, std::move(estimate)});
    } else {
      decision.rejected.push_back({estimate.name(), estimate.gpus(), estimate.rejected_by,
                                   estimate.reason,
                                   estimate.memory.distinct_kv_tokens / (input.isl + input.osl)});
    }
  }
  std::stable_sort(entrants.begin(), entrants.end(),
                   [](const Entrant& a, const Entrant& b) { return a.score < b.score; });
  if (!entrants.empty()) {
    // Among equals the first token decides.
    const double equal = entrants.front().score * kTie;
    const auto first = std::min_element(
        entrants.begin(),
        std::find_if(entrants.begin(), entrants.end(),
                     [&](const Entrant& entrant) { return entrant.score > equal; }),
        [](const Entrant& a, const Entrant& b) { return a.estimate.ttft_ms < b.estimate.ttft_ms; });
    std::rotate(entrants.begin(), first, first + 1);
    const Estimate& best = entrants.front().estimate;
    const Estimate* next = entrants.size() > 1 ? &entrants[1].estimate : nullptr;
    if (next != nullptr) {
      decision.crossover =
          FindCrossover(race, entrants[0].index, entrants[1].index, best.concurrency);
    }
    decision.bands = FindBands(race);
    decision.why = ExplainChoice(input, best, next);
  }
  // The first two, and whoever leads somewhere.
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min<size_t>(2, entrants.size()); ++i) {
    shown.push_back(entrants[i].estimate.name());
  }
  for (const Band& band : decision.bands) shown.push_back(band.layout);
  for (size_t i = 0; i < shown.size() && decision.curves.size() < kNumCurves; ++i) {
    if (std::find(shown.begin(), shown.begin() + static_cast<ptrdiff_t>(i), shown[i]) !=
        shown.begin() + static_cast<ptrdiff_t>(i)) {
      continue;
    }
    decision.curves.push_back(CurveOf(input, race.config(race.Find(shown[i]))));
  }
  for (Entrant& entrant : entrants) decision.ranked.push_back(std::move(entrant.estimate));
  decision.width = WhatWidthBuys(input, question.tpot_ms);
  return decision;
}

}  // namespace moebius::plan
