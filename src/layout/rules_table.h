// The rows behind rules.h, one table a family. Private to layout/.
#pragma once

#include <span>

#include "layout/rules.h"

namespace moebius::layout {

struct RuleInput {
  const ParallelConfig& config;
  const ModelNumbers& model;

  int tp() const { return config.tensor_parallel_size; }
  int dp() const { return config.data_parallel_size; }
  int pp() const { return config.pipeline_parallel_size; }
  int dcp() const { return config.decode_context_parallel_size; }
  int64_t kv_heads() const { return model.mla || model.num_kv_heads < 1 ? 1 : model.num_kv_heads; }
  int64_t kv_copies() const { return tp() > kv_heads() ? tp() / kv_heads() : 1; }
  int group() const { return config.expert_group(); }
  bool moe() const { return model.num_experts > 0; }
  bool ep() const { return moe() && config.expert_parallel_active(); }
  bool exchanges() const { return ep() && (dp() > 1 || config.own_ranks); }
  // In how many slices each expert, the dense FFN, the shared experts and the head are cut.
  int expert_slices() const { return moe() && !ep() ? group() : 1; }
  int dense_slices() const {
    return moe() && config.dense_ffn == PartPlacement::kTp ? group() : tp();
  }
  // Where tokens are cut instead, every rank has all of the shared experts.
  int shared_slices() const { return exchanges() ? 1 : tp(); }
  int head_slices() const { return moe() && config.lm_head == PartPlacement::kTp ? group() : tp(); }
  int64_t slots() const { return model.num_experts + config.num_redundant_experts; }
};

struct Rule {
  const char* name;
  Severity severity;
  bool (*speaks)(const RuleInput& in);
  std::string (*message)(const RuleInput& in);
};

// Sizes below one: nothing else can be asked of such a configuration.
std::span<const Rule> RangeRules();
std::span<const Rule> SizeRules();     // heads, widths, vocabulary, fp8 blocks
std::span<const Rule> ExpertRules();   // the EP flag, EPLB, what DP means
std::span<const Rule> BackendRules();  // exchange kernels, overlap, placement flags
std::span<const Rule> MachineRules();  // layers, nodes

// The vocabulary's rows are padded to a multiple of this before TP cuts them.
constexpr int64_t kVocabularyPadding = 64;

}  // namespace moebius::layout
