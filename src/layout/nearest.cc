// Looking for legal layouts: all of a number of GPUs, and the one nearest to an illegal choice.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "layout/rules.h"

namespace moebius::layout {
namespace {

// Every TP x DP x PP = num_gpus with the other fields of `base`.
std::vector<ParallelConfig> SizesOf(int num_gpus, const ParallelConfig& base) {
  std::vector<ParallelConfig> sizes;
  for (int tp = 1; tp <= num_gpus; ++tp) {
    if (num_gpus % tp != 0) continue;
    for (int dp = 1; dp <= num_gpus / tp; ++dp) {
      if (num_gpus / tp % dp != 0) continue;
      ParallelConfig config = base;
      config.tensor_parallel_size = tp;
      config.data_parallel_size = dp;
      config.pipeline_parallel_size = num_gpus / tp / dp;
      sizes.push_back(config);
    }
  }
  return sizes;
}

// One flag changed each, cheapest first: what a user would try before other sizes.
std::vector<std::pair<double, ParallelConfig>> Variants(const ParallelConfig& config,
                                                        const ModelNumbers& model) {
  std::vector<std::pair<double, ParallelConfig>> variants = {{0, config}};
  const auto vary = [&](double cost, auto change) {
    const size_t count = variants.size();
    for (size_t i = 0; i < count; ++i) {
      auto [before, variant] = variants[i];
      change(variant);
      if (!(variant == variants[i].second)) variants.emplace_back(before + cost, variant);
    }
  };
  vary(0.5, [&](ParallelConfig& c) {
    c.dense_ffn = PartPlacement::kAuto;
    c.lm_head = PartPlacement::kAuto;
  });
  vary(1.5, [&](ParallelConfig& c) {
    if (c.enable_dbo && c.all2all_backend == ExchangeBackend::kAllGatherReduceScatter) {
      c.all2all_backend = ExchangeBackend::kAllToAll;
      c.exchange_kernel = ExchangeKernel::kOwn;
    }
  });
  vary(1.5, [](ParallelConfig& c) {
    if (c.exchange_kernel == ExchangeKernel::kDeepEpLowLatency) {
      c.exchange_kernel = ExchangeKernel::kOwn;
    }
  });
  vary(2, [](ParallelConfig& c) { c.enable_dbo = false; });
  // What was asked for is rather completed than taken back: redundant experts need EPLB, EPLB needs
  // expert parallelism.
  const bool wants_ep = config.enable_eplb || config.num_redundant_experts > 0;
  vary(config.enable_expert_parallel || !wants_ep ? 4 : 2,
       [](ParallelConfig& c) { c.enable_expert_parallel = !c.enable_expert_parallel; });
  vary(1, [](ParallelConfig& c) { c.enable_eplb |= c.num_redundant_experts > 0; });
  vary(4, [](ParallelConfig& c) {
    c.enable_eplb = false;
    c.num_redundant_experts = 0;
  });
  vary(3, [&](ParallelConfig& c) {
    const int heads = static_cast<int>(
        model.mla || model.num_kv_heads < 1 ? 1 : std::min<int64_t>(model.num_kv_heads, kMaxGpus));
    const int copies = std::max(1, c.tensor_parallel_size / heads);
    c.decode_context_parallel_size = std::gcd(copies, std::max(1, c.decode_context_parallel_size));
  });
  vary(1, [&](ParallelConfig& c) {
    if (!c.enable_eplb || c.expert_group() < 1) return;
    const int64_t group = c.expert_group();
    const int64_t asked = std::clamp(c.num_redundant_experts, 0, kMaxRedundantExperts);
    int64_t slots = (model.num_experts + asked + group - 1) / group * group;
    if (slots - model.num_experts > kMaxRedundantExperts) slots -= group;
    c.num_redundant_experts = static_cast<int>(slots - model.num_experts);
  });
  return variants;
}

double SizeDistance(int a, int b) {
  return std::abs(std::log2(static_cast<double>(std::max(1, a)) / std::max(1, b)));
}

}  // namespace

std::vector<ParallelConfig> LegalConfigs(int num_gpus, int gpus_per_node,
                                         const ModelNumbers& model) {
  ParallelConfig base;
  base.gpus_per_node = gpus_per_node;
  std::vector<ParallelConfig> legal;
  for (ParallelConfig config : SizesOf(num_gpus, base)) {
    if (IsLegal(config, model)) legal.push_back(config);
    config.enable_expert_parallel = true;
    if (config.expert_parallel_active() && IsLegal(config, model)) legal.push_back(config);
  }
  return legal;
}

std::optional<ParallelConfig> NearestLegal(const ParallelConfig& config,
                                           const ModelNumbers& model) {
  ParallelConfig base = config;
  base.gpus_per_node = std::max(1, config.gpus_per_node);
  ParallelConfig sizes = config;
  for (int ParallelConfig::* size :
       {&ParallelConfig::tensor_parallel_size, &ParallelConfig::data_parallel_size,
        &ParallelConfig::pipeline_parallel_size}) {
    sizes.*size = std::max(1, sizes.*size);
  }
  const auto asked_gpus = static_cast<int>(std::min<int64_t>(kMaxGpus, sizes.wide_num_gpus()));
  for (int num_gpus = asked_gpus; num_gpus >= 1; --num_gpus) {
    std::optional<ParallelConfig> best;
    double best_distance = std::numeric_limits<double>::infinity();
    for (const ParallelConfig& trial : SizesOf(num_gpus, base)) {
      // A pipeline nobody asked for is the last resort: it costs latency.
      const double distance =
          5 * (SizeDistance(trial.tensor_parallel_size, config.tensor_parallel_size) +
               SizeDistance(trial.data_parallel_size, config.data_parallel_size) +
               1.5 * SizeDistance(trial.pipeline_parallel_size, config.pipeline_parallel_size));
      for (const auto& [cost, variant] : Variants(trial, model)) {
        if (distance + cost < best_distance && IsLegal(variant, model)) {
          best_distance = distance + cost;
          best = variant;
        }
      }
    }
    if (best) return best;
  }
  return std::nullopt;
}

}  // namespace moebius::layout
