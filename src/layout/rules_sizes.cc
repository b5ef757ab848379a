#include <array>

#include "layout/rules_table.h"

namespace moebius::layout {
namespace {

int64_t PaddedVocabulary(const ModelNumbers& model) {
  return (model.vocab_size + kVocabularyPadding - 1) / kVocabularyPadding * kVocabularyPadding;
}

// A width that is cut into slices of whole fp8 blocks?
bool BreaksBlock(const RuleInput& in, int64_t width, int slices) {
  return in.model.fp8_block > 0 && width > 0 && slices > 1 && width % slices == 0 &&
         width / slices % in.model.fp8_block != 0;
}

std::string WidthMessage(const char* field, int64_t width, const char* by, int slices) {
  return fmt::format("{} ({}) must be divisible by {} ({})", field, width, by, slices);
}

std::string BlockMessage(const RuleInput& in, const char* field, int64_t width, int slices,
                         const char* way_out) {
  return fmt::format(
      "{} ({}) in {} slices is {} a slice, expected a multiple of the fp8 block ({}): {}", field,
      width, slices, width / slices, in.model.fp8_block, way_out);
}

const char* DenseSlicesName(const RuleInput& in) {
  return in.dense_slices() == in.tp() ? "tensor parallel size"
                                      : "tensor x data parallel size (--dense-ffn tp)";
}

constexpr std::array kRange = {
    Rule{"tensor-parallel-range", Severity::kError, [](const RuleInput& in) { return in.tp() < 1; },
         [](const RuleInput& in) {
           return fmt::format("tensor_parallel_size is {}, expected at least 1", in.tp());
         }},
    Rule{"data-parallel-range", Severity::kError, [](const RuleInput& in) { return in.dp() < 1; },
         [](const RuleInput& in) {
           return fmt::format("data_parallel_size is {}, expected at least 1", in.dp());
         }},
    Rule{"pipeline-parallel-range", Severity::kError,
         [](const RuleInput& in) { return in.pp() < 1; },
         [](const RuleInput& in) {
           return fmt::format("pipeline_parallel_size is {}, expected at least 1", in.pp());
         }},
    Rule{"node-range", Severity::kError,
         [](const RuleInput& in) { return in.config.gpus_per_node < 1; },
         [](const RuleInput& in) {
           return fmt::format("gpus_per_node is {}, expected at least 1", in.config.gpus_per_node);
         }},
    Rule{"decode-context-range", Severity::kError, [](const RuleInput& in) { return in.dcp() < 1; },
         [](const RuleInput& in) {
           return fmt::format("decode_context_parallel_size is {}, expected at least 1", in.dcp());
         }},
    Rule{"gpus-range", Severity::kError,
         [](const RuleInput& in) {
           return in.tp() >= 1 && in.dp() >= 1 && in.pp() >= 1 &&
                  in.config.wide_num_gpus() > kMaxGpus;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "TP {} x DP {} x PP {} is more than {} GPUs, expected a product of at most {}",
               in.tp(), in.dp(), in.pp(), kMaxGpus, kMaxGpus);
         }},
    Rule{"redundant-range", Severity::kError,
         [](const RuleInput& in) {
           return in.config.num_redundant_experts < 0 ||
                  in.config.num_redundant_experts > kMaxRedundantExperts;
         },
         [](const RuleInput& in) {
           return fmt::format("num_redundant_experts is {}, expected 0 to {}",
                              in.config.num_redundant_experts, kMaxRedundantExperts);
         }},
};

constexpr std::array kSizes = {
    Rule{"heads-divisible", Severity::kError,
         [](const RuleInput& in) { return in.model.num_heads % in.tp() != 0; },
         [](const RuleInput& in) {
           return fmt::format(
               "Total number of attention heads ({}) must be divisible by tensor parallel size "
               "({})",
               in.model.num_heads, in.tp());
         }},
    Rule{"kv-heads-divisible", Severity::kError,
         [](const RuleInput& in) {
           return !in.model.mla && in.model.num_kv_heads > 0 &&
                  in.model.num_kv_heads % in.tp() != 0 && in.tp() % in.model.num_kv_heads != 0;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "Total number of key/value heads ({}) must be divisible by tensor parallel size "
               "({}), or divide it",
               in.model.num_kv_heads, in.tp());
         }},
    Rule{"kv-heads-copied", Severity::kInfo,
         [](const RuleInput& in) {
           return !in.model.mla && in.model.num_kv_heads > 0 && in.tp() > in.model.num_kv_heads &&
                  in.tp() % in.model.num_kv_heads == 0;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "tensor_parallel_size {} is more than the {} KV heads: each head is held by {} "
               "ranks",
               in.tp(), in.model.num_kv_heads, in.tp() / in.model.num_kv_heads);
         }},
    Rule{"mla-copied", Severity::kInfo,
         [](const RuleInput& in) { return in.model.mla && in.tp() > 1; },
         [](const RuleInput& in) {
           return fmt::format(
               "latent KV has one head: all {} ranks of a TP group hold the same cache "
               "(data_parallel_size divides it, tensor_parallel_size does not)",
               in.tp());
         }},
    Rule{"dcp-divides-tp", Severity::kError,
         [](const RuleInput& in) { return in.tp() % in.dcp() != 0; },
         [](const RuleInput& in) {
           return fmt::format(
               "decode_context_parallel_size ({}) must divide tensor parallel size ({}): it reuses "
               "the TP group's GPUs",
               in.dcp(), in.tp());
         }},
    Rule{"dcp-copies", Severity::kError,
         [](const RuleInput& in) { return in.tp() % in.dcp() == 0 && in.dcp() > in.kv_copies(); },
         [](const RuleInput& in) {
           return fmt::format(
               "decode_context_parallel_size is {}, expected at most {}: tensor_parallel_size {} "
               "holds each of the {} KV heads {} time{}, and only copies can be cut by token",
               in.dcp(), in.kv_copies(), in.tp(), in.kv_heads(), in.kv_copies(),
               in.kv_copies() == 1 ? "" : "s");
         }},
    Rule{"dcp-memory-only", Severity::kInfo, [](const RuleInput& in) { return in.dcp() > 1; },
         [](const RuleInput& in) {
           return fmt::format(
               "decode_context_parallel_size {}: KV is cut by token in {} parts inside the TP "
               "group; the plan counts the memory, not what attention gains or its exchange costs",
               in.dcp(), in.dcp());
         }},
    Rule{"expert-width-divisible", Severity::kError,
         [](const RuleInput& in) {
           return in.model.expert_intermediate_size % in.expert_slices() != 0;
         },
         [](const RuleInput& in) {
           return WidthMessage("Expert intermediate size", in.model.expert_intermediate_size,
                               "tensor x data parallel size", in.expert_slices());
         }},
    Rule{"shared-width-divisible", Severity::kError,
         [](const RuleInput& in) {
           return in.model.shared_intermediate_size % in.shared_slices() != 0;
         },
         [](const RuleInput& in) {
           return WidthMessage("Shared experts' intermediate size",
                               in.model.shared_intermediate_size, "tensor parallel size",
                               in.shared_slices());
         }},
    Rule{"dense-width-divisible", Severity::kError,
         [](const RuleInput& in) {
           return in.model.dense_intermediate_size % in.dense_slices() != 0;
         },
         [](const RuleInput& in) {
           return WidthMessage("Dense intermediate size", in.model.dense_intermediate_size,
                               DenseSlicesName(in), in.dense_slices());
         }},
    Rule{"vocabulary-divisible", Severity::kError,
         [](const RuleInput& in) {
           return PaddedVocabulary(in.model) % in.tp() != 0 ||
                  PaddedVocabulary(in.model) % in.head_slices() != 0;
         },
         [](const RuleInput& in) {
           const bool by_head = PaddedVocabulary(in.model) % in.tp() == 0;
           return fmt::format(
               "Vocabulary size ({}, padded to {}) must be divisible by {} ({})",
               in.model.vocab_size, PaddedVocabulary(in.model),
               by_head ? "tensor x data parallel size (--lm-head tp)" : "tensor parallel size",
               by_head ? in.head_slices() : in.tp());
         }},
    Rule{"vocabulary-padded", Severity::kInfo,
         [](const RuleInput& in) {
           return in.tp() > 1 && PaddedVocabulary(in.model) != in.model.vocab_size;
         },
         [](const RuleInput& in) {
           return fmt::format("vocab_size {} is padded to {} rows, a multiple of {}",
                              in.model.vocab_size, PaddedVocabulary(in.model), kVocabularyPadding);
         }},
    Rule{"fp8-expert-block", Severity::kError,
         [](const RuleInput& in) {
           return BreaksBlock(in, in.model.expert_intermediate_size, in.expert_slices());
         },
         [](const RuleInput& in) {
           return BlockMessage(in, "Expert intermediate size", in.model.expert_intermediate_size,
                               in.expert_slices(),
                               "use --enable-expert-parallel (whole experts) or fewer slices");
         }},
    Rule{"fp8-shared-block", Severity::kError,
         [](const RuleInput& in) {
           return BreaksBlock(in, in.model.shared_intermediate_size, in.shared_slices());
         },
         [](const RuleInput& in) {
           return BlockMessage(in, "Shared experts' intermediate size",
                               in.model.shared_intermediate_size, in.shared_slices(),
                               "use a smaller tensor_parallel_size");
         }},
    Rule{"fp8-dense-block", Severity::kError,
         [](const RuleInput& in) {
           return BreaksBlock(in, in.model.dense_intermediate_size, in.dense_slices());
         },
         [](const RuleInput& in) {
           return BlockMessage(in, "Dense intermediate size", in.model.dense_intermediate_size,
                               in.dense_slices(),
                               in.dense_slices() == in.tp() ? "use a smaller tensor_parallel_size"
                                                            : "use --dense-ffn dp");
         }},
};

}  // namespace

std::span<const Rule> RangeRules() { return kRange; }
std::span<const Rule> SizeRules() { return kSizes; }

}  // namespace moebius::layout
