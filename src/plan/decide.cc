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
constexpr double kSliver = 0.1;
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

// Requests are shared evenly by the copies of a layout.
layout::ParallelLayout Settle(const PlanInput& input, const Candidate& candidate,
                              int64_t concurrency) {
  const int64_t of_a_copy = (concurrency + candidate.replicas - 1) / candidate.replicas;
  return SettleLayout(input, candidate.config, of_a_copy);
}

struct Standing {
  double score = kNever;
  double ttft_ms = kNever;
};

// The one comparison behind ranking, runner-up, crossover and bands: the best score, and of what is
// within a tie of it the earliest first token. `standing(i)` of n candidates; n if none holds.
template <typename StandingOf>
size_t Leader(size_t n, const StandingOf& standing) {
  double best = kNever;
  for (size_t i = 0; i < n; ++i) best = std::min(best, standing(i).score);
  size_t leader = n;
  for (size_t i = 0; i < n && best < kNever; ++i) {
    const Standing one = standing(i);
    if (one.score > best * kTie) continue;
    if (leader == n || one.ttft_ms < standing(leader).ttft_ms) leader = i;
  }
  return leader;
}

// The layouts that compete, and their scores over concurrency, computed once.
class Race {
 public:
  Race(const PlanInput& input, const Question& question) : input_(input), question_(question) {}

  void Add(const Candidate& candidate) {
    contenders_.push_back(candidates_.size());
    candidates_.push_back(candidate);
    settled_.emplace_back();
    standings_.emplace_back();
    full_from_.push_back(std::numeric_limits<int64_t>::max());
  }
  size_t size() const { return candidates_.size(); }
  const Candidate& candidate(size_t i) const { return candidates_[i]; }
  std::string name(size_t i) const { return candidates_[i].name(); }

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
    return settled_[i].emplace(rounded, Settle(input_, candidates_[i], rounded)).first->second;
  }
  Estimate At(size_t i, int64_t concurrency) {
    Estimate estimate =
        EstimateLayout(input_, layout(i, concurrency), concurrency, candidates_[i].replicas);
    // What fewer requests settled for may have no room for these: smaller buffers may.
    if (estimate.rejected_by == RejectedBy::kCapacity) {
      estimate = EstimateLayout(input_, Settle(input_, candidates_[i], concurrency), concurrency,
                                candidates_[i].replicas);
    }
    CheckLimits(question_, estimate);
    return estimate;
  }
  // Infinite where it does not hold.
  Standing StandingOf(size_t i, int64_t concurrency) {
    if (concurrency >= full_from_[i]) return {};
    const auto found = standings_[i].find(concurrency);
    if (found != standings_[i].end()) return found->second;
    const Estimate estimate = At(i, concurrency);
    const bool full = estimate.rejected_by == RejectedBy::kWeights ||
                      estimate.rejected_by == RejectedBy::kCapacity;
    if (full) full_from_[i] = concurrency;
    const Standing standing =
        estimate.ok() ? Standing{ScoreOf(question_.objective, estimate), estimate.ttft_ms}
                      : Standing{};
    return standings_[i][concurrency] = standing;
  }
  double Score(size_t i, int64_t concurrency) { return StandingOf(i, concurrency).score; }
  // The leader of the contenders at one concurrency; size() if none holds.
  size_t Winner(int64_t concurrency) {
    const size_t leader = Leader(contenders_.size(),
                                 [&](size_t i) { return StandingOf(contenders_[i], concurrency); });
    return leader == contenders_.size() ? size() : contenders_[leader];
  }
  // Who is near the best at some power of two or at the wanted concurrency; only they can lead in
  // between.
  void KeepContenders(int64_t wanted) {
    std::vector<bool> near(size(), false);
    std::set<int64_t> grid = {wanted};
    for (int64_t c = 1; c <= std::max(kMaxConcurrency, wanted); c *= 2) grid.insert(c);
    for (const int64_t c : grid) {
      const size_t winner = Winner(c);
      if (winner == size()) continue;
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
  std::vector<Candidate> candidates_;
  std::vector<size_t> contenders_;
  std::vector<std::map<int64_t, layout::ParallelLayout>> settled_;
  std::vector<std::map<int64_t, Standing>> standings_;
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

// Four concurrencies an octave, and the wanted one.
std::set<int64_t> BandGrid(int64_t wanted) {
  std::set<int64_t> grid = {wanted};
  for (int64_t octave = 1; octave <= std::max(kMaxConcurrency, wanted); octave *= 2) {
    for (const double step : {1.0, 1.19, 1.41, 1.68}) {
      grid.insert(static_cast<int64_t>(static_cast<double>(octave) * step));
    }
  }
  grid.erase(grid.upper_bound(std::max(kMaxConcurrency, wanted)), grid.end());
  return grid;
}

// Without bands too narrow to mean anything (but for the one that was asked about) and with equal
// neighbours joined.
std::vector<Band> JoinBands(const std::vector<Band>& bands, int64_t wanted) {
  std::vector<Band> joined;
  for (size_t i = 0; i < bands.size(); ++i) {
    Band band = bands[i];
    const bool asked = band.from <= wanted && wanted <= band.to;
    const auto width = static_cast<double>(band.to - band.from + 1);
    const bool sliver = !asked && width < kSliver * static_cast<double>(band.from);
    if (!joined.empty() && (sliver || joined.back().layout == band.layout)) {
      joined.back().to = band.to;
    } else {
      joined.push_back(std::move(band));
    }
  }
  return joined;
}

std::vector<Band> FindBands(Race& race, int64_t wanted) {
  race.KeepContenders(wanted);
  std::vector<Band> bands;
  int64_t before = 0;
  for (const int64_t c : BandGrid(wanted)) {
    const size_t winner = race.Winner(c);
    const auto changed = [&](int64_t x) { return race.Winner(x) == winner; };
    if (winner == race.size()) {
      if (!bands.empty()) {
        bands.back().to = FirstChange(before, c, changed) - 1;
        break;
      }
    } else if (bands.empty() || bands.back().layout != race.name(winner)) {
      const int64_t from = FirstChange(before, c, changed);
      if (!bands.empty()) bands.back().to = from - 1;
      bands.push_back({from, c, race.name(winner)});
    } else {
      bands.back().to = c;
    }
    before = c;
  }
  return JoinBands(bands, wanted);
}

// Where the runner-up takes over, read off the bands: the nearest above `wanted`, else below.
Crossover FindCrossover(Race& race, const std::vector<Band>& bands, size_t first, size_t second,
                        int64_t wanted) {
  const std::string names[2] = {race.name(first), race.name(second)};
  Crossover crossover;
  const auto is_second = [&](const Band& band) { return band.layout == names[1]; };
  size_t at = bands.size();
  for (size_t i = 0; i < bands.size(); ++i) {
    if (!is_second(bands[i])) continue;
    at = i;
    if (bands[i].from > wanted) break;
  }
  if (at == bands.size()) {
    crossover.text = fmt::format("{} leads at no concurrency that fits", names[1]);
    for (size_t i = 0; i + 1 < bands.size(); ++i) {
      if (wanted < bands[i].from || wanted > bands[i].to) continue;
      crossover.text +=
          fmt::format("; {} leads up to {} requests in flight, {} from {}", bands[i].layout,
                      bands[i].to, bands[i + 1].layout, bands[i + 1].from);
    }
    return crossover;
  }
  const Band& band = bands[at];
  crossover.upwards = band.from > wanted;
  crossover.concurrency = crossover.upwards ? band.from : band.to;
  // What stands next to it, on the side of the wanted concurrency.
  const bool has_next = crossover.upwards ? at > 0 : at + 1 < bands.size();
  const Band* next = has_next ? &bands[crossover.upwards ? at - 1 : at + 1] : nullptr;
  if (next != nullptr && next->layout == names[0]) {
    const Band& low = crossover.upwards ? *next : band;
    const Band& high = crossover.upwards ? band : *next;
    crossover.text = fmt::format("{} leads up to {} requests in flight, {} from {}", low.layout,
                                 low.to, high.layout, high.from);
  } else {
    crossover.text =
        fmt::format("{} leads from {} to {} requests in flight", names[1], band.from, band.to);
  }
  const int64_t other_side =
      crossover.upwards ? *crossover.concurrency - 1 : *crossover.concurrency + 1;
  crossover.by_speed = race.Score(first, *crossover.concurrency) < kNever &&
                       race.Score(second, std::max<int64_t>(1, other_side)) < kNever;
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
  // Every number of nodes, of many nodes about every thirty-second of the range.
  const int step = node * std::max(1, most / node / 32);
  for (int n = node; n <= most; n += step) counts.insert(n);
  return counts;
}

// Expert parallelism was asked for where it can have no effect: on one GPU the layout stands (its
// rules warn), a model without experts has none and says so.
void AddWhereEpIsIdle(const PlanInput& input, int gpus, Race& race,
                      std::vector<Rejection>& rejected) {
  const bool dense = input.model.numbers.num_experts == 0;
  if (gpus > 1 && !dense) return;
  layout::ParallelConfig config = input.parallel;
  config.tensor_parallel_size = gpus;
  config.enable_expert_parallel = true;
  for (const layout::Finding& finding : CheckRules(config, input.model.numbers)) {
    const bool reason =
        dense ? finding.rule == "ep-dense-model" : finding.severity == layout::Severity::kError;
    if (!reason) continue;
    rejected.push_back({dense ? "every layout with expert parallelism" : ConfigName(config), gpus,
                        RejectedBy::kRule, finding.message, 0});
    return;
  }
  race.Add({config});
}

void AddLayouts(const PlanInput& input, const Question& question, Race& race,
                std::vector<Rejection>& rejected) {
  for (const int gpus : GpuCounts(input, question)) {
    const ConfigSet set = EnumerateConfigs(input, gpus);
    const auto wanted = [&](const layout::ParallelConfig& config) {
      return !question.expert_parallel ||
             *question.expert_parallel == config.expert_parallel_active();
    };
    if (question.expert_parallel.value_or(false)) {
      AddWhereEpIsIdle(input, gpus, race, rejected);
    }
    for (const IllegalLayout& illegal : set.illegal) {
      if (!wanted(illegal.config)) continue;
      rejected.push_back(
          {layout::ConfigName(illegal.config), gpus, RejectedBy::kRule, illegal.reason, 0});
    }
    for (const layout::ParallelConfig& config : set.legal) {
      if (wanted(config)) race.Add({config});
    }
    for (const Candidate& copies : EnumerateReplicas(input, gpus)) {
      if (wanted(copies.config)) race.Add(copies);
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

Curve CurveOf(const PlanInput& input, const Candidate& candidate) {
  Curve curve{candidate.name(), {}};
  for (int64_t c = 1; c <= kMaxConcurrency; c *= 2) {
    const Estimate estimate =
        EstimateLayout(input, Settle(input, candidate, c), c, candidate.replicas);
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
  // The leader of what is left, one after the other.
  for (size_t done = 0; done + 1 < entrants.size(); ++done) {
    const size_t next = Leader(entrants.size() - done, [&](size_t i) {
      const Entrant& entrant = entrants[done + i];
      return Standing{entrant.score, entrant.estimate.ttft_ms};
    });
    const auto from = entrants.begin() + static_cast<ptrdiff_t>(done);
    if (next == entrants.size() - done) break;  // no figures to go by
    std::rotate(from, from + static_cast<ptrdiff_t>(next), from + static_cast<ptrdiff_t>(next) + 1);
  }
  if (!entrants.empty()) {
    const Estimate& best = entrants.front().estimate;
    const Estimate* next = entrants.size() > 1 ? &entrants[1].estimate : nullptr;
    decision.bands = FindBands(race, best.concurrency);
    if (next != nullptr) {
      decision.crossover = FindCrossover(race, decision.bands, entrants[0].index, entrants[1].index,
                                         best.concurrency);
    }
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
    decision.curves.push_back(CurveOf(input, race.candidate(race.Find(shown[i]))));
  }
  for (Entrant& entrant : entrants) decision.ranked.push_back(std::move(entrant.estimate));
  decision.width = WhatWidthBuys(input, question.tpot_ms);
  return decision;
}

}  // namespace moebius::plan
