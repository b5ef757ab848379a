#include "app/plan_input.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/latent_row.h"

namespace moebius::app {
namespace {

// Of MLA in fp8 the mean over a row of our cache, which has scales and a bfloat16 part.
Result<double> KvElementBytes(const std::string& dtype, const plan::ModelShape& model) {
  if (dtype == "auto" || dtype == "bfloat16" || dtype == "float16") return 2.0;
  if (dtype == "fp8" || dtype == "fp8_e4m3" || dtype == "fp8_e5m2") {
    const kernels::LatentRow row = {model.kv_lora_rank, model.qk_rope_head_dim};
    if (!model.numbers.mla) return 1.0;
    return static_cast<double>(row.bytes()) / static_cast<double>(row.latent_dim + row.rope_dim);
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "--kv-cache-dtype is '{}', expected auto, bfloat16 or fp8", dtype);
}

// Counts by expert; of several layers the one in the middle by max over mean.
Result<std::vector<int64_t>> ReadExpertCounts(const std::string& path, int64_t num_experts) {
  std::ifstream file(path);
  if (!file) return MakeError(ErrorCode::kNotFound, "--expert-counts: {} cannot be read", path);
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  const auto is_counts = [](const nlohmann::json& list) {
    return list.is_array() && !list.empty() &&
           std::all_of(list.begin(), list.end(), [](const nlohmann::json& n) {
             return n.is_number_unsigned() &&
                    n.get<uint64_t>() <= uint64_t{std::numeric_limits<int64_t>::max()};
           });
  };
  std::vector<std::vector<int64_t>> layers;
  if (is_counts(json)) {
    layers.push_back(json.get<std::vector<int64_t>>());
  } else if (json.is_array() && !json.empty() && std::all_of(json.begin(), json.end(), is_counts)) {
    layers = json.get<std::vector<std::vector<int64_t>>>();
  } else {
    return MakeError(ErrorCode::kCorrupt,
                     "--expert-counts: {}: expected a JSON list of counts (0 to {}) by expert, or "
                     "a list of such lists, one a layer",
                     path, std::numeric_limits<int64_t>::max());
  }
  for (const std::vector<int64_t>& counts : layers) {
    if (static_cast<int64_t>(counts.size()) == num_experts) continue;
    return MakeError(ErrorCode::kInvalidArgument,
                     "--expert-counts: {}: a layer has {} counts, the model has {} experts", path,
                     counts.size(), num_experts);
  }
  std::vector<std::pair<double, size_t>> unevenness;  // max over sum, layer
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    int64_t most = 0;
    int64_t sum = 0;
    for (const int64_t count : layers[layer]) {
      most = std::max(most, count);
      if (count > std::numeric_limits<int64_t>::max() - sum) {
        return MakeError(ErrorCode::kInvalidArgument,
                         "--expert-counts: {}: the counts of layer {} add up to more than {}", path,
                         layer, std::numeric_limits<int64_t>::max());
      }
      sum += count;
    }
    if (sum == 0) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--expert-counts: {}: all counts of layer {} are 0, expected some above 0",
                       path, layer);
    }
    unevenness.emplace_back(static_cast<double>(most) / static_cast<double>(sum), layer);
  }
  std::sort(unevenness.begin(), unevenness.end());
  return layers[unevenness[unevenness.size() / 2].second];
}

}  // namespace

Result<plan::PlanInput> MakePlanInput(const PlanOptions& options, plan::Device device) {
  plan::PlanInput input;
  input.model_argument = options.model;
  MOEBIUS_ASSIGN(input.model, plan::LoadModelShape(options.model, options.hf_overrides));
  input.device = std::move(device);
  MOEBIUS_ASSIGN(input.kv_element_bytes, KvElementBytes(options.kv_cache_dtype, input.model));
  input.isl = options.isl;
  input.osl = options.osl;
  input.gpu_memory_utilization = options.gpu_memory_utilization;
  input.max_batched_tokens = options.max_num_batched_tokens;
  input.gpu_hour_price = options.gpu_hour_price;
  input.imbalance.balanced = options.enable_eplb.value_or(false);
  if (!options.expert_counts.empty()) {
    MOEBIUS_ASSIGN(input.imbalance.counts,
                   ReadExpertCounts(options.expert_counts, input.model.numbers.num_experts));
  }
  plan::SetSkew(options.zipf, input);
  layout::ParallelConfig& parallel = input.parallel;
  MOEBIUS_TRY(layout::SetBackend(options.all2all_backend, parallel));
  MOEBIUS_ASSIGN(parallel.dense_ffn, layout::ParsePartPlacement("--dense-ffn", options.dense_ffn));
  MOEBIUS_ASSIGN(parallel.lm_head, layout::ParsePartPlacement("--lm-head", options.lm_head));
  parallel.enable_eplb = options.enable_eplb.value_or(false);
  parallel.num_redundant_experts = static_cast<int>(options.num_redundant_experts);
  parallel.decode_context_parallel_size = static_cast<int>(options.decode_context_parallel_size);
  parallel.enable_dbo = options.enable_dbo.value_or(false);
  parallel.gpus_per_node = input.device.gpus_per_node;
  // CPUs have no other ranks than ours, and their exchange.
  parallel.own_ranks = input.device.name == "cpu";
  if (parallel.own_ranks) parallel.exchange_kernel = layout::ExchangeKernel::kOwn;
  return input;
}

Result<layout::ParallelConfig> NamedLayout(const LayoutOptions& options,
                                           layout::ParallelConfig parallel) {
  const auto size = [](const std::optional<int64_t>& value) {
    return static_cast<int>(value.value_or(1));
  };
  parallel.tensor_parallel_size = size(options.tensor_parallel_size);
  parallel.data_parallel_size = size(options.data_parallel_size);
  parallel.pipeline_parallel_size = size(options.pipeline_parallel_size);
  parallel.enable_expert_parallel = options.enable_expert_parallel.value_or(false);
  if (parallel.wide_num_gpus() > layout::kMaxGpus) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--tensor-parallel-size {} x --data-parallel-size {} x "
                     "--pipeline-parallel-size {} is more than {} GPUs, expected at most that",
                     parallel.tensor_parallel_size, parallel.data_parallel_size,
                     parallel.pipeline_parallel_size, layout::kMaxGpus);
  }
  return parallel;
}

}  // namespace moebius::app
