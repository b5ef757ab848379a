// Which layout, and why: every legal layout under the wanted load, ordered by the objective, with
// what was turned down and the reasons, the concurrency at which the first two change places, and
// what a wider expert group buys. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "plan/search.h"

namespace moebius::plan {

// kLatency: the least time per output token. kThroughput: the most output tokens a second of all
// GPUs. kCost: the fewest GPU seconds an output token, with as many GPUs as pay for themselves.
// At one concurrency and one number of GPUs all three nearly agree (Little's law); they differ in
// what they are free to choose. Without a concurrency latency plans for kLatencyConcurrency and the
// other two give every layout its own best one within limits and memory.
enum class Objective : uint8_t { kLatency, kThroughput, kCost };
const char* ObjectiveName(Objective objective);
Result<Objective> ParseObjective(const std::string& name);

constexpr int64_t kLatencyConcurrency = 16;
// Layouts whose figures differ by less are equal (no estimate is that good): of those at the top
// the one with the earliest first token leads. Ranking, runner-up, crossover and bands all go by
// this.
constexpr double kTieShare = 0.02;
constexpr int64_t kMaxConcurrency = 16384;  // how far the search over concurrency goes
// TensorRT-LLM's published gain of EP32 over EP8 in output per GPU at equal time per token:
// DeepSeek-R1 on GB200 NVL72, "up to".
constexpr double kPublishedWidthGain = 1.8;

struct Question {
  Objective objective = Objective::kLatency;
  std::optional<int64_t> concurrency;
  std::optional<double> ttft_ms;  // limits
  std::optional<double> tpot_ms;
  std::vector<int> gpu_counts;
  // Only layouts with (without) expert parallelism; none: both.
  std::optional<bool> expert_parallel;
};

struct Rejection {
  std::string layout;
  int gpus = 0;
  RejectedBy by = RejectedBy::kRule;
  std::string reason;
  int64_t requests = 0;  // kCapacity: how many of that length it holds
};

// Layouts over concurrency: which one leads from `from` to `to`. The one at the wanted concurrency
// is the recommended one; others that are narrower than a tenth of where they begin are left out.
struct Band {
  int64_t from = 0;
  int64_t to = 0;
  std::string layout;
};

struct Crossover {
  // Where the runner-up's nearest band begins above the wanted concurrency (upwards), or ends below
  // it; none: it leads nowhere.
  std::optional<int64_t> concurrency;
  bool upwards = true;
  bool by_speed = true;  // else because one of them no longer fits memory or a limit
  std::string text;
};

// Tokens/s/user against tokens/s/GPU over concurrency.
struct CurvePoint {
  int64_t concurrency = 0;
  double tokens_per_s_user = 0;
  double tokens_per_s_gpu = 0;
  Basis basis = Basis::kRoofline;
};
struct Curve {
  std::string layout;
  std::vector<CurvePoint> points;
};

// The most that DP = EP = ep reaches in decode under a time per token (no prefill in between, as in
// the published comparison). requests 0: even one request a GPU takes longer.
struct WidthPoint {
  int ep = 0;
  int64_t experts_per_gpu_layer = 0;
  int64_t experts_per_gpu = 0;
  int64_t requests_per_gpu = 0;
  bool bound_by_memory = false;
  double step_ms = 0;
  double tokens_per_s_gpu = 0;
  Basis basis = Basis::kRoofline;
};
struct WidthRow {
  double tpot_ms = 0;
  std::vector<WidthPoint> points;
  std::optional<double> gain;  // EP32 over EP8
};

struct Decision {
  std::vector<Estimate> ranked;  // what remains, each at its concurrency: the leader first, then
                                 // the leader of the others, ...
  std::vector<Rejection> rejected;
  Crossover crossover;  // of the first two
  std::vector<Band> bands;
  std::vector<Curve> curves;  // of the best few
  std::vector<WidthRow> width;
  std::vector<std::string> why;
};
Decision Decide(const PlanInput& input, const Question& question);

// Rows for the given time per token, or for 25, 33, 50 and 100 ms. Empty for dense models and for
// own ranks.
std::vector<WidthRow> WhatWidthBuys(const PlanInput& input, std::optional<double> tpot_ms);

// Points of one legal layout at powers of two, as far as memory goes.
Curve CurveOf(const PlanInput& input, const Candidate& candidate);

// Plain sentences with the numbers that decide between two layouts; `other` may be null.
std::vector<std::string> ExplainChoice(const PlanInput& input, const Estimate& chosen,
                                       const Estimate* other);

}  // namespace moebius::plan
