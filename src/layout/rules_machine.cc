#include <array>

#include "layout/rules_table.h"

namespace moebius::layout {
namespace {

// Hidden sizes that DeepEP's low-latency kernels are compiled for.
constexpr std::array<int64_t, 8> kLowLatencySizes = {2048, 2560, 3072, 4096,
                                                     5120, 6144, 7168, 8192};

// The size the kernel would run at; 0: none is large enough.
int64_t LowLatencySize(int64_t hidden_size) {
  for (const int64_t size : kLowLatencySizes) {
    if (hidden_size <= size) return size;
  }
  return 0;
}

bool LowLatency(const RuleInput& in) {
  return in.exchanges() && in.config.exchange_kernel == ExchangeKernel::kDeepEpLowLatency;
}

// Can two micro-batches overlap: are sending and receiving separate calls?
bool SplitsCalls(const ParallelConfig& config) {
  if (config.all2all_backend == ExchangeBackend::kAllGatherReduceScatter) return false;
  return config.exchange_kernel != ExchangeKernel::kOther &&
         config.exchange_kernel != ExchangeKernel::kRemoved;
}

bool TpCrossesNodes(const RuleInput& in) {
  const int node = in.config.gpus_per_node;
  return in.config.num_gpus() > node && in.tp() > 1 && (in.tp() > node || node % in.tp() != 0);
}

constexpr std::array kBackendRules = {
    Rule{"backend-removed", Severity::kWarning,
         [](const RuleInput& in) { return in.config.exchange_kernel == ExchangeKernel::kRemoved; },
         [](const RuleInput&) {
           return std::string(
               "all2all_backend pplx and naive are gone from vLLM: allgather_reducescatter takes "
               "their place");
         }},
    Rule{"backend-unused", Severity::kWarning,
         [](const RuleInput& in) {
           return in.config.all2all_backend != ExchangeBackend::kAuto && !in.exchanges();
         },
         [](const RuleInput& in) {
           return fmt::format(
               "all2all_backend {} has no effect: tokens are exchanged only with "
               "enable_expert_parallel and data_parallel_size above 1 (it is {})",
               BackendName(in.config), in.dp());
         }},
    Rule{"dbo-backend", Severity::kError,
         [](const RuleInput& in) {
           return in.config.enable_dbo && in.exchanges() && !SplitsCalls(in.config);
         },
         [](const RuleInput& in) {
           return fmt::format(
               "enable_dbo with all2all_backend {}: expected one whose sending and receiving are "
               "apart (all2all, deepep_low_latency, deepep_high_throughput, nixl_ep)",
               BackendName(in.config));
         }},
    Rule{"dbo-nothing-to-overlap", Severity::kWarning,
         [](const RuleInput& in) { return in.config.enable_dbo && !in.exchanges(); },
         [](const RuleInput& in) {
           return fmt::format(
               "enable_dbo has no effect in {}: there is no exchange to hide, expected "
               "enable_expert_parallel and data_parallel_size above 1",
               ConfigName(in.config));
         }},
    Rule{"low-latency-hidden-rounded", Severity::kWarning,
         [](const RuleInput& in) {
           const int64_t size = LowLatencySize(in.model.hidden_size);
           return LowLatency(in) && size != 0 && size != in.model.hidden_size;
         },
         [](const RuleInput& in) {
           return fmt::format(
               "hidden_size {} is rounded up to {} by deepep_low_latency (2048, 2560, 3072, 4096, "
               "5120, 6144, 7168 or 8192)",
               in.model.hidden_size, LowLatencySize(in.model.hidden_size));
         }},
    Rule{"low-latency-hidden-range", Severity::kError,
         [](const RuleInput& in) {
           return LowLatency(in) && LowLatencySize(in.model.hidden_size) == 0;
         },
         [](const RuleInput& in) {
           return fmt::format("hidden_size is {}, expected at most {} for deepep_low_latency",
                              in.model.hidden_size, kLowLatencySizes.back());
         }},
    Rule{"placement-dense-model", Severity::kError,
         [](const RuleInput& in) {
           return !in.moe() && in.dp() > 1 &&
                  (in.config.dense_ffn == PartPlacement::kTp ||
                   in.config.lm_head == PartPlacement::kTp);
         },
         [](const RuleInput& in) {
           return fmt::format(
               "{} is tp for a dense model under data_parallel_size {}, expected dp: its copies "
               "are independent",
               in.config.dense_ffn == PartPlacement::kTp ? "dense_ffn" : "lm_head", in.dp());
         }},
    Rule{"placement-unused", Severity::kWarning,
         [](const RuleInput& in) {
           return in.dp() == 1 && (in.config.dense_ffn != PartPlacement::kAuto ||
                                   in.config.lm_head != PartPlacement::kAuto);
         },
         [](const RuleInput& in) {
           return fmt::format(
               "{} has no effect with data_parallel_size 1, expected a larger one",
               in.config.dense_ffn != PartPlacement::kAuto ? "dense_ffn" : "lm_head");
         }},
    Rule{"pp-ep-rocm", Severity::kInfo, [](const RuleInput& in) { return in.pp() > 1 && in.ep(); },
         [](const RuleInput& in) {
           return fmt::format(
               "pipeline_parallel_size {} with expert parallelism: EP is {} inside each stage "
               "(ROCm only: AMD calls this pair unstable without AITER; nothing here depends on "
               "it)",
               in.pp(), in.group());
         }},
};

constexpr std::array kMachine = {
    Rule{"pp-layers", Severity::kError,
         [](const RuleInput& in) { return in.pp() > in.model.num_layers; },
         [](const RuleInput& in) {
           return fmt::format("pipeline_parallel_size is {}, expected at most the {} layers",
                              in.pp(), in.model.num_layers);
         }},
    Rule{"pp-uneven", Severity::kInfo,
         [](const RuleInput& in) {
           return in.pp() <= in.model.num_layers && in.model.num_layers % in.pp() != 0;
         },
         [](const RuleInput& in) {
           return fmt::format("{} layers on pipeline_parallel_size {}: stages of {} and {}",
                              in.model.num_layers, in.pp(), in.model.num_layers / in.pp() + 1,
                              in.model.num_layers / in.pp());
         }},
    Rule{"world-nodes", Severity::kInfo,
         [](const RuleInput& in) { return in.config.num_nodes() > 1; },
         [](const RuleInput& in) {
           return fmt::format("{} GPUs are {} nodes of up to {}: one launch a node",
                              in.config.num_gpus(), in.config.num_nodes(), in.config.gpus_per_node);
         }},
    Rule{"nodes-uneven", Severity::kError,
         [](const RuleInput& in) { return in.config.num_gpus() % in.config.num_nodes() != 0; },
         [](const RuleInput& in) {
           return fmt::format(
               "{} GPUs (TP x DP x PP) on {} nodes of up to {} are not the same number on each: "
               "expected a multiple of {}",
               in.config.num_gpus(), in.config.num_nodes(), in.config.gpus_per_node,
               in.config.num_nodes());
         }},
    Rule{"tp-across-nodes", Severity::kWarning, TpCrossesNodes,
         [](const RuleInput& in) {
           return fmt::format(
               "tensor_parallel_size {} crosses nodes of {}: two all-reduces a layer over the "
               "network; expected a divisor of {}",
               in.tp(), in.config.gpus_per_node, in.config.gpus_per_node);
         }},
    Rule{"exchange-across-nodes", Severity::kInfo,
         [](const RuleInput& in) { return in.exchanges() && in.group() > in.config.gpus_per_node; },
         [](const RuleInput& in) {
           return fmt::format(
               "the expert group of {} crosses nodes of {}: dispatch and combine use the network",
               in.group(), in.config.gpus_per_node);
         }},
};

}  // namespace

std::span<const Rule> BackendRules() { return kBackendRules; }
std::span<const Rule> MachineRules() { return kMachine; }

}  // namespace moebius::layout
