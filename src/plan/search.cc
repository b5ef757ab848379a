#include "plan/search.h"

#include <fmt/core.h>

#include <algorithm>
#include <type_traits>

#include "base/math.h"
#include "moe/balance/options.h"

namespace moebius::plan {
namespace {

// Half of them is a batch still (vLLM's threshold: 32 tokens).
constexpr int64_t kLeastForTwoBatches = 64;

Imbalance ImbalanceOf(const PlanInput& input, const layout::ParallelLayout& layout) {
  Imbalance imbalance = input.imbalance;
  imbalance.balanced |= layout.config.enable_eplb;
  return imbalance;
}

// What a rank's prompt costs: alone (a lone request waits for it) and among others in one step.
struct PrefillCost {
  double alone_ms = 0;
  double batched_ms = 0;
  double filling_ms = 0;  // of alone_ms: until the pipeline's last stage has the first chunk
  int64_t chunks = 1;
  StepTime step;
};

PrefillCost EstimatePrefill(const PlanInput& input, const layout::ParallelLayout& layout,
                            int64_t requests_per_rank) {
  const int stages = layout.config.pipeline_parallel_size;
  PrefillCost cost;
  cost.chunks = CeilDiv(input.isl, input.max_batched_tokens);
  StepInput step;
  step.phase = Phase::kPrefill;
  step.prompt_tokens = CeilDiv(input.isl, cost.chunks);
  // Attention is linear in what is cached, so the mean chunk stands for all.
  step.context = (cost.chunks - 1) * step.prompt_tokens / 2;
  step.imbalance = ImbalanceOf(input, layout);
  step.kv_element_bytes = input.kv_element_bytes;
  step.two_batch_overlap = layout.config.enable_dbo;
  cost.step = EstimateStep(input.model, layout, input.device, step);
  const double chunk_ms = cost.step.total_us / 1e3;
  // Chunks of one prompt follow each other through the stages.
  cost.alone_ms = chunk_ms * static_cast<double>(cost.chunks + stages - 1);
  cost.batched_ms = chunk_ms * static_cast<double>(cost.chunks);
  cost.filling_ms = chunk_ms * static_cast<double>(stages - 1);
  const int64_t together =
      std::min(requests_per_rank, input.max_batched_tokens / std::max<int64_t>(input.isl, 1));
  if (cost.chunks == 1 && together > 1) {
    step.requests_per_rank = together;
    cost.batched_ms = EstimateStep(input.model, layout, input.device, step).total_us / 1e3 /
                      static_cast<double>(together);
  }
  return cost;
}

StepInput DecodeInput(const PlanInput& input, const layout::ParallelLayout& layout,
                      int64_t requests_per_rank) {
  StepInput step;
  step.phase = Phase::kDecode;
  step.requests_per_rank = CeilDiv(requests_per_rank, layout.config.pipeline_parallel_size);
  step.context = input.isl + input.osl / 2;
  step.imbalance = ImbalanceOf(input, layout);
  step.kv_element_bytes = input.kv_element_bytes;
  step.two_batch_overlap = layout.config.enable_dbo;
  return step;
}

void FillTimes(const PlanInput& input, const PrefillCost& prefill, Estimate& estimate) {
  const double prefill_batched_ms = prefill.batched_ms;
  const double b = static_cast<double>(estimate.requests_per_rank);
  const double osl = static_cast<double>(input.osl);
  const double decode = estimate.decode_step_ms;
  const double request_ms = osl * decode + b * prefill_batched_ms + prefill.filling_ms;
  const double busy = (b - 1) * prefill_batched_ms / request_ms;  // a prompt finds others before it
  const double waiting = std::min(busy / (2 * (1 - busy)), (b - 1) / 2) * prefill_batched_ms;
  const double running = estimate.requests_per_rank > 1 ? decode / 2 : 0;
  estimate.ttft_ms = running + estimate.prefill_ms + waiting;
  estimate.tpot_ms = decode;
  if (input.osl > 1) {
    estimate.tpot_ms = std::max(decode, (request_ms - estimate.ttft_ms) / (osl - 1));
  }
  estimate.output_tokens_per_s = static_cast<double>(estimate.concurrency) * osl / request_ms * 1e3;
  estimate.tokens_per_s_gpu = estimate.output_tokens_per_s / estimate.gpus();
  estimate.tokens_per_s_user = 1e3 / estimate.tpot_ms;
  estimate.dollars_per_million = input.gpu_hour_price / 3600 / estimate.tokens_per_s_gpu * 1e6;
}

MemoryUse MemoryAt(const PlanInput& input, const layout::ParallelLayout& layout,
                   int64_t requests_per_rank) {
  MemoryInput memory;
  memory.hbm_bytes = input.device.hbm_bytes;
  memory.utilization = input.gpu_memory_utilization;
  memory.kv_element_bytes = input.kv_element_bytes;
  memory.max_batched_tokens = input.max_batched_tokens;
  memory.context = input.isl + input.osl;
  if (layout.config.enable_eplb) memory.num_staging_slots = moe::OnlineBalance{}.num_staging;
  memory.max_decode_tokens =
      std::max<int64_t>(64, CeilDiv(requests_per_rank, layout.config.pipeline_parallel_size));
  return PlanMemory(input.model, layout, memory);
}

// What belongs to expert parallelism goes with it.
void WithoutExpertParallel(layout::ParallelConfig& config) {
  config.enable_expert_parallel = false;
  config.enable_eplb = false;
  config.num_redundant_experts = 0;
  config.enable_dbo = false;
}

void CheckCapacity(const PlanInput& input, Estimate& estimate) {
  const MemoryUse& memory = estimate.memory;
  const double gb = 1e9;
  const int64_t needed = estimate.concurrency * (input.isl + input.osl);
  if (!memory.fits()) {
    estimate.rejected_by = RejectedBy::kWeights;
    estimate.reason = fmt::format(
        "needs {:.1f} GB a GPU before any KV cache, {:.1f} GB are there ({:.0f} % of {:.0f} GB)",
        memory.total_without_kv() / gb, input.device.hbm_bytes * input.gpu_memory_utilization / gb,
        input.gpu_memory_utilization * 100, input.device.hbm_bytes / gb);
  } else if (memory.distinct_kv_tokens < needed) {
    estimate.rejected_by = RejectedBy::kCapacity;
    estimate.reason =
        fmt::format("holds {} distinct KV tokens, {} requests of {} + {} need {}",
                    memory.distinct_kv_tokens, estimate.concurrency, input.isl, input.osl, needed);
  }
}

// The best of the choices so far, by the time of a request.
class Settling {
 public:
  Settling(const PlanInput& input, const layout::ParallelConfig& config, int64_t concurrency)
      : input_(input),
        concurrency_(concurrency),
        requests_(CeilDiv(concurrency, config.data_parallel_size)),
        best_(layout::MakeLayout(config, input.model.numbers)) {}

  const layout::ParallelLayout& best() const { return best_; }

  // The first also stands where the choice changes nothing; a part's is what kAuto counts as.
  template <typename Field, typename Value>
  void Choose(Field field, Value first, Value second) {
    layout::ParallelConfig config = best_.config;
    config.*field = first;
    best_ = layout::MakeLayout(config, input_.model.numbers);
    if constexpr (!std::is_same_v<Value, layout::PartPlacement>) cost_.reset();
    config.*field = second;
    Try(config, 0);
  }
  void TryEplb() {
    const layout::ParallelConfig plain = best_.config;
    const int group = plain.expert_group();
    const auto experts = static_cast<int>(input_.model.numbers.num_experts);
    // Slots must divide: none more where the experts do, and the next count that does.
    const int rest = experts % group;
    const std::vector<int> counts =
        rest == 0 ? std::vector<int>{0, group} : std::vector<int>{group - rest};
    for (const int redundant : counts) {
      layout::ParallelConfig config = plain;
      config.enable_eplb = true;
      config.num_redundant_experts = redundant;
      Try(config, kSettleGain);
    }
  }
  // Only all-to-all can be split into sending and receiving.
  void TryTwoBatches(layout::ExchangeBackend asked) {
    if (requests_ < kLeastForTwoBatches) return;
    layout::ParallelConfig config = best_.config;
    config.enable_dbo = true;
    if (asked == layout::ExchangeBackend::kAuto) {
      config.all2all_backend = layout::ExchangeBackend::kAllToAll;
    }
    Try(config, kSettleGain);
  }

 private:
  void Try(const layout::ParallelConfig& config, double gain) {
    if (!IsLegal(config, input_.model.numbers)) return;
    layout::ParallelLayout other = layout::MakeLayout(config, input_.model.numbers);
    // What holds the load is better than what is fast without.
    const bool holds = Holds(other);
    if (holds != Holds(best_)) {
      if (!holds) return;
      best_ = std::move(other);
      cost_.reset();
      return;
    }
    const double cost = Cost(other);
    if (!cost_) cost_ = Cost(best_);
    if (cost >= *cost_ * (1 - gain)) return;
    if (gain > 0 && !LeavesRoom(other)) return;
    best_ = std::move(other);
    cost_ = cost;
  }
  double Cost(const layout::ParallelLayout& layout) const {
    const StepTime decode =
        EstimateStep(input_.model, layout, input_.device, DecodeInput(input_, layout, requests_));
    return static_cast<double>(input_.osl * layout.config.pipeline_parallel_size) *
               decode.total_us / 1e3 +
           static_cast<double>(requests_) * EstimatePrefill(input_, layout, requests_).batched_ms;
  }
  bool Holds(const layout::ParallelLayout& layout) const {
    return MemoryAt(input_, layout, requests_).distinct_kv_tokens >=
           concurrency_ * (input_.isl + input_.osl);
  }
  // Slots and buffers must not take the place of requests: four times the load still fits, or
  // nearly as much as without.
  bool LeavesRoom(const layout::ParallelLayout& layout) const {
    const int64_t with = MemoryAt(input_, layout, requests_).kv_tokens_per_rank;
    if (with >= 4 * requests_ * (input_.isl + input_.osl)) return true;
    const int64_t without = MemoryAt(input_, best_, requests_).kv_tokens_per_rank;
    return static_cast<double>(with) >= 0.95 * static_cast<double>(without);
  }

  const PlanInput& input_;
  int64_t concurrency_;
  int64_t requests_;
  layout::ParallelLayout best_;
  std::optional<double> cost_;  // of best_, where it was needed
};

}  // namespace

void SetSkew(std::optional<double> zipf, PlanInput& input) {
  input.zipf_is_default = !zipf && input.imbalance.counts.empty();
  input.imbalance.zipf = zipf.value_or(DefaultSkewOf(input.model.numbers).zipf);
}

std::string Candidate::name() const {
  const std::string one = layout::ConfigName(config);
  return replicas == 1 ? one : fmt::format("{} x {}", replicas, one);
}

const char* RejectedByName(RejectedBy by) {
  switch (by) {
    case RejectedBy::kNothing:
      return "none";
    case RejectedBy::kRule:
      return "rule";
    case RejectedBy::kWeights:
      return "weights";
    case RejectedBy::kCapacity:
      return "capacity";
    case RejectedBy::kLimit:
      return "limit";
  }
  return "?";
}

Basis WeakestBasis(const StepTime& step) {
  double us[3] = {0, 0, 0};
  for (const OpTime& op : step.ops) us[static_cast<size_t>(op.basis)] += std::max(0.0, op.us);
  const double sum = us[0] + us[1] + us[2];
  if (us[2] >= 0.1 * sum) return Basis::kRoofline;
  return us[1] + us[2] >= 0.1 * sum ? Basis::kInterpolated : Basis::kMeasured;
}

int64_t ExpertsPerGpuLayer(const layout::ParallelLayout& layout) {
  return layout.slots_per_rank.empty()
             ? 0
             : *std::max_element(layout.slots_per_rank.begin(), layout.slots_per_rank.end());
}

int64_t ExpertsPerGpu(const ModelShape& model, const layout::ParallelLayout& layout) {
  return ExpertsPerGpuLayer(layout) *
         CeilDiv(model.num_moe_layers, layout.config.pipeline_parallel_size);
}

Estimate EstimateLayout(const PlanInput& input, const layout::ParallelLayout& layout,
                        int64_t concurrency, int replicas) {
  const layout::ParallelConfig& config = layout.config;
  Estimate estimate;
  estimate.layout = layout;
  estimate.replicas = replicas;
  estimate.concurrency = concurrency;
  estimate.requests_per_rank = CeilDiv(concurrency, int64_t{replicas} * config.data_parallel_size);
  estimate.memory = MemoryAt(input, layout, estimate.requests_per_rank);
  estimate.memory.distinct_kv_tokens *= replicas;

  const StepInput decode = DecodeInput(input, layout, estimate.requests_per_rank);
  estimate.traffic =
      PlanTraffic(input.model, layout, decode.requests_per_rank, input.model.weight_bytes);
  estimate.decode = EstimateStep(input.model, layout, input.device, decode);
  estimate.decode_step_ms = estimate.decode.total_us / 1e3 * config.pipeline_parallel_size;
  PrefillCost prefill = EstimatePrefill(input, layout, estimate.requests_per_rank);
  estimate.prefill = std::move(prefill.step);
  estimate.prefill_ms = prefill.alone_ms;
  estimate.prefill_chunks = prefill.chunks;
  estimate.basis = WeakestBasis(estimate.decode);
  FillTimes(input, prefill, estimate);
  CheckCapacity(input, estimate);
  return estimate;
}

layout::ParallelLayout SettleLayout(const PlanInput& input, const layout::ParallelConfig& config,
                                    int64_t concurrency) {
  Settling settling(input, config, concurrency);
  using layout::ExchangeBackend;
  using layout::ParallelConfig;
  using layout::PartPlacement;
  const auto choose = [&](auto field, auto automatic, auto first, auto second) {
    if (config.*field == automatic) settling.Choose(field, first, second);
  };
  const bool dp = config.data_parallel_size > 1;
  const bool own = config.own_ranks;
  const bool exchanges = config.expert_parallel_active() && (dp || own);
  if (exchanges && !own) {  // theirs is all-to-all unless another is named
    choose(&ParallelConfig::all2all_backend, ExchangeBackend::kAuto, ExchangeBackend::kAllToAll,
           ExchangeBackend::kAllGatherReduceScatter);
  }
  if (input.settle_eplb && config.expert_parallel_active() && !own) settling.TryEplb();
  if (own) return settling.best();  // they keep the rest where it is
  if (dp && input.model.num_dense_layers > 0 && input.model.numbers.num_experts > 0) {
    choose(&ParallelConfig::dense_ffn, PartPlacement::kAuto, PartPlacement::kDp,
           PartPlacement::kTp);
  }
  if (dp) {
    choose(&ParallelConfig::lm_head, PartPlacement::kAuto, PartPlacement::kDp, PartPlacement::kTp);
  }
  if (input.settle_dbo && exchanges) settling.TryTwoBatches(config.all2all_backend);
  return settling.best();
}

ConfigSet EnumerateConfigs(const PlanInput& input, int num_gpus) {
  ConfigSet set;
  const auto add = [&](layout::ParallelConfig config) {
    for (const layout::Finding& finding : CheckRules(config, input.model.numbers)) {
      if (finding.severity != layout::Severity::kError) continue;
      set.illegal.push_back({config, finding.message});
      return;
    }
    set.legal.push_back(config);
  };
  for (int pp = 1; pp <= num_gpus; ++pp) {
    if (num_gpus % pp != 0) continue;
    for (int tp = num_gpus / pp; tp >= 1; --tp) {
      if (num_gpus / pp % tp != 0) continue;
      layout::ParallelConfig config = input.parallel;
      config.tensor_parallel_size = tp;
      config.pipeline_parallel_size = pp;
      config.data_parallel_size = num_gpus / pp / tp;
      if (input.model.numbers.num_experts > 0 && config.expert_group() > 1) {
        config.enable_expert_parallel = true;
        add(config);
      }
      WithoutExpertParallel(config);
      add(config);
    }
  }
  return set;
}

std::vector<Candidate> EnumerateReplicas(const PlanInput& input, int num_gpus) {
  std::vector<Candidate> candidates;
  if (input.model.numbers.num_experts == 0) return candidates;
  for (int size = 1; size <= num_gpus / 2; ++size) {
    if (num_gpus % size != 0) continue;
    const auto add = [&](int tp, bool ep) {
      layout::ParallelConfig config = input.parallel;
      config.tensor_parallel_size = tp;
      config.data_parallel_size = size / tp;
      config.enable_expert_parallel = ep;
      if (!ep) WithoutExpertParallel(config);
      if (!IsLegal(config, input.model.numbers)) return;
      const layout::ParallelLayout layout = layout::MakeLayout(config, input.model.numbers);
      if (MemoryAt(input, layout, 1).fits()) candidates.push_back({config, num_gpus / size});
    };
    add(size, false);
    if (size == 1) continue;
    add(size, true);
    add(1, true);
  }
  return candidates;
}

}  // namespace moebius::plan
