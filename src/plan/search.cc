#include "plan/search.h"

#include <fmt/core.h>

#include <algorithm>

namespace moebius::plan {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

// What a rank's prompt costs: alone (a lone request waits for it) and among others in one step.
struct PrefillCost {
  double alone_ms = 0;
  double batched_ms = 0;
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
  step.imbalance = input.imbalance;
  step.kv_element_bytes = input.kv_element_bytes;
  step.two_batch_overlap = input.parallel.enable_dbo;
  cost.step = EstimateStep(input.model, layout, input.device, step);
  const double chunk_ms = cost.step.total_us / 1e3;
  // Chunks of one prompt follow each other through the stages.
  cost.alone_ms = chunk_ms * static_cast<double>(cost.chunks + stages - 1);
  cost.batched_ms = chunk_ms * static_cast<double>(cost.chunks);
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
  step.imbalance = input.imbalance;
  step.kv_element_bytes = input.kv_element_bytes;
  step.two_batch_overlap = input.parallel.enable_dbo;
  return step;
}

void FillTimes(const PlanInput& input, double prefill_batched_ms, Estimate& estimate) {
  const double b = static_cast<double>(estimate.requests_per_rank);
  const double osl = static_cast<double>(input.osl);
  const double decode = estimate.decode_step_ms;
  const double request_ms = osl * decode + b * prefill_batched_ms;
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

}  // namespace

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
                        int64_t concurrency) {
  const layout::ParallelConfig& config = layout.config;
  Estimate estimate;
  estimate.layout = layout;
  estimate.concurrency = concurrency;
  estimate.requests_per_rank = CeilDiv(concurrency, config.data_parallel_size);

  MemoryInput memory;
  memory.hbm_bytes = input.device.hbm_bytes;
  memory.utilization = input.gpu_memory_utilization;
  memory.kv_element_bytes = input.kv_element_bytes;
  memory.max_batched_tokens = input.max_batched_tokens;
  memory.context = input.isl + input.osl;
  memory.max_decode_tokens =
      std::max<int64_t>(64, CeilDiv(estimate.requests_per_rank, config.pipeline_parallel_size));
  estimate.memory = PlanMemory(input.model, layout, memory);

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
  FillTimes(input, prefill.batched_ms, estimate);
  CheckCapacity(input, estimate);
  return estimate;
}

layout::ParallelLayout SettleLayout(const PlanInput& input, const layout::ParallelConfig& config,
                                    int64_t concurrency) {
  const int64_t requests = CeilDiv(concurrency, config.data_parallel_size);
  layout::ParallelConfig best = config;
  const auto cost = [&](const layout::ParallelConfig& trial) {
    const layout::ParallelLayout layout = layout::MakeLayout(trial, input.model.numbers);
    const StepTime decode =
        EstimateStep(input.model, layout, input.device, DecodeInput(input, layout, requests));
    return static_cast<double>(input.osl * config.pipeline_parallel_size) * decode.total_us / 1e3 +
           static_cast<double>(requests) * EstimatePrefill(input, layout, requests).batched_ms;
  };
  const auto settle = [&](auto field, auto automatic, auto first, auto second) {
    if (best.*field != automatic) return;
    layout::ParallelConfig other = best;
    best.*field = first;
    other.*field = second;
    // The first also stands where the choice changes nothing.
    if (IsLegal(other, input.model.numbers) && cost(other) < cost(best)) best = other;
  };
  using layout::ExchangeBackend;
  using layout::PartPlacement;
  if (config.expert_parallel_active() && config.data_parallel_size > 1) {
    settle(&layout::ParallelConfig::all2all_backend, ExchangeBackend::kAuto,
           ExchangeBackend::kAllToAll, ExchangeBackend::kAllGatherReduceScatter);
  }
  if (config.data_parallel_size > 1) {
    if (input.model.num_dense_layers > 0 && input.model.numbers.num_experts > 0) {
      settle(&layout::ParallelConfig::dense_ffn, PartPlacement::kAuto, PartPlacement::kDp,
             PartPlacement::kTp);
    }
    settle(&layout::ParallelConfig::lm_head, PartPlacement::kAuto, PartPlacement::kDp,
           PartPlacement::kTp);
  }
  return layout::MakeLayout(best, input.model.numbers);
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
      // What belongs to expert parallelism goes with it.
      config.enable_expert_parallel = false;
      config.enable_eplb = false;
      config.num_redundant_experts = 0;
      config.enable_dbo = false;
      add(config);
    }
  }
  return set;
}

}  // namespace moebius::plan
