// What one layout gives under a load, and every layout that a number of GPUs allows. Pure
// functions, any thread; no weights are read.
//
// A load is closed: `concurrency` requests are always in flight, each of isl prompt and osl answer
// tokens. On a DP rank with b of them, D the time of a decode step and P the prefill of one prompt,
//   time of a request  = osl D + b P                 (the rank does nothing else: Little's law)
//   TTFT               = D/2 + P + waiting           (M/D/1 behind other prompts, at most half of
//   them) TPOT               = (time of a request - TTFT) / (osl - 1), never below D output
//   tokens/s    = concurrency osl / time of a request
// with the ranks' prefills aligned (one rank's prefill holds up every rank that shares its
// experts).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "layout/parallel_layout.h"
#include "layout/rules.h"
#include "plan/device.h"
#include "plan/memory.h"
#include "plan/model_shape.h"
#include "plan/step_time.h"

namespace moebius::plan {

// What is the same for every layout that is compared.
struct PlanInput {
  std::string model_argument;  // as the user wrote it: for command lines
  ModelShape model;
  Device device;
  int64_t isl = 2000;
  int64_t osl = 1000;
  double gpu_memory_utilization = 0.9;
  double kv_element_bytes = 2;
  int64_t max_batched_tokens = 8192;
  Imbalance imbalance;
  bool zipf_is_default = false;     // imbalance.zipf is the model's (DefaultSkewOf), not the user's
  double gpu_hour_price = 0;        // 0: unknown
  layout::ParallelConfig parallel;  // backend, EPLB, DBO, dense FFN, head, GPUs a node; no sizes
  // Left to cost, layout by layout; else `parallel` says.
  bool settle_eplb = false;
  bool settle_dbo = false;
};

// Sets imbalance.zipf: the given one, or the model's default; recorded counts replace both.
void SetSkew(std::optional<double> zipf, PlanInput& input);

// What competes: one layout, or several independent copies of a smaller one behind a router.
struct Candidate {
  layout::ParallelConfig config;  // of one copy
  int replicas = 1;

  int gpus() const { return config.num_gpus() * replicas; }
  std::string name() const;  // "TP8", "4 x TP2"
};

enum class RejectedBy : uint8_t { kNothing, kRule, kWeights, kCapacity, kLimit };
const char* RejectedByName(RejectedBy by);

// A layout under a load. Times and rates are filled whether or not it is rejected for capacity.
struct Estimate {
  layout::ParallelLayout layout;
  int replicas = 1;               // independent copies of the layout
  int64_t concurrency = 1;        // of all copies
  int64_t requests_per_rank = 1;  // of the fullest DP rank
  MemoryUse memory;               // distinct_kv_tokens: of all copies
  Traffic traffic;                // of a decode step, in one MoE layer
  StepTime decode;
  StepTime prefill;  // of one prompt on every DP rank (its last chunk, if it is cut)
  int64_t prefill_chunks = 1;

  double decode_step_ms = 0;  // through all pipeline stages
  double prefill_ms = 0;      // of one prompt, alone
  double ttft_ms = 0;
  double tpot_ms = 0;
  double output_tokens_per_s = 0;
  double tokens_per_s_gpu = 0;
  double tokens_per_s_user = 0;    // 1 / TPOT
  double dollars_per_million = 0;  // output tokens; 0 without a price
  Basis basis = Basis::kRoofline;  // the weakest of what makes up a tenth of the step or more

  RejectedBy rejected_by = RejectedBy::kNothing;
  std::string reason;  // of the rejection

  int gpus() const { return layout.config.num_gpus() * replicas; }
  bool ok() const { return rejected_by == RejectedBy::kNothing; }
  std::string name() const { return Candidate{layout.config, replicas}.name(); }
};

// Of a legal layout, or of `replicas` copies that share the requests evenly.
Estimate EstimateLayout(const PlanInput& input, const layout::ParallelLayout& layout,
                        int64_t concurrency, int replicas = 1);

// A legal layout with what was left to cost settled: the exchange, EPLB (without and with one more
// slot a rank), the dense FFN, the head, two-batch overlap, each by the shorter time of a request
// (prefill and decode) at that concurrency. EPLB and overlap must gain kSettleGain and leave room
// for the load.
constexpr double kSettleGain = 0.02;
layout::ParallelLayout SettleLayout(const PlanInput& input, const layout::ParallelConfig& config,
                                    int64_t concurrency);

struct IllegalLayout {
  layout::ParallelConfig config;
  std::string reason;  // the first error
};
struct ConfigSet {
  std::vector<layout::ParallelConfig> legal;
  std::vector<IllegalLayout> illegal;
};
// All TP x DP x PP = num_gpus, without and with EP where it has an effect.
ConfigSet EnumerateConfigs(const PlanInput& input, int num_gpus);

// Two and more copies of a smaller layout that make num_gpus: TP, TP+EP and DP+EP where one copy
// holds the model. Models without experts have none: their DP ranks are such copies.
std::vector<Candidate> EnumerateReplicas(const PlanInput& input, int num_gpus);

// Experts that one GPU holds: in one layer (the fullest rank) and over its layers.
int64_t ExpertsPerGpuLayer(const layout::ParallelLayout& layout);
int64_t ExpertsPerGpu(const ModelShape& model, const layout::ParallelLayout& layout);

Basis WeakestBasis(const StepTime& step);

}  // namespace moebius::plan
