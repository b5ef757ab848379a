#include <array>

#include "layout/parallel_layout.h"

namespace moebius::layout {
namespace {

struct NamedBackend {
  const char* name;
  ExchangeBackend backend;
  ExchangeKernel kernel;
};
using enum ExchangeBackend;
using enum ExchangeKernel;
constexpr std::array<NamedBackend, 16> kBackends = {{
    {"auto", ExchangeBackend::kAuto, kOwn},
    {"all2all", kAllToAll, kOwn},
    {"shm", kAllToAll, kOwn},     // what carries it between processes of a machine,
    {"inproc", kAllToAll, kOwn},  // between threads of a process
    {"allgather_reducescatter", kAllGatherReduceScatter, kOwn},
    {"deepep_low_latency", kAllToAll, kDeepEpLowLatency},
    {"deepep_high_throughput", kAllToAll, kDeepEpHighThroughput},
    {"deepep_v2", kAllToAll, kOther},
    {"nixl_ep", kAllToAll, kNixl},
    {"flashinfer_nvlink_one_sided", kAllToAll, kOther},
    {"flashinfer_nvlink_two_sided", kAllToAll, kOther},
    {"flashinfer_all2allv", kAllToAll, kOther},
    {"mori_high_throughput", kAllToAll, kOther},
    {"mori_low_latency", kAllToAll, kOther},
    {"pplx", kAllGatherReduceScatter, kRemoved},
    {"naive", kAllGatherReduceScatter, kRemoved},
}};

}  // namespace

std::string ConfigName(const ParallelConfig& config) {
  std::string name;
  const auto add = [&](const char* letters, int size) {
    if (size > 1) name += fmt::format("{}{}{}", name.empty() ? "" : "+", letters, size);
  };
  add("PP", config.pipeline_parallel_size);
  add("TP", config.tensor_parallel_size);
  add("DP", config.data_parallel_size);
  add("DCP", config.decode_context_parallel_size);
  if (name.empty()) name = "1 GPU";
  if (config.enable_expert_parallel) name += "+EP";
  return name;
}

Status SetBackend(const std::string& name, ParallelConfig& config) {
  std::string known;
  for (const NamedBackend& backend : kBackends) {
    if (name == backend.name) {
      config.all2all_backend = backend.backend;
      config.exchange_kernel = backend.kernel;
      return {};
    }
    known += fmt::format("{}{}", known.empty() ? "" : ", ", backend.name);
  }
  return MakeError(ErrorCode::kInvalidArgument, "--all2all-backend: '{}', expected one of {}", name,
                   known);
}

const char* BackendName(const ParallelConfig& config) {
  for (const NamedBackend& backend : kBackends) {
    if (config.all2all_backend == backend.backend && config.exchange_kernel == backend.kernel) {
      return backend.name;
    }
  }
  return config.all2all_backend == kAllToAll ? "all2all" : "allgather_reducescatter";
}

Result<PartPlacement> ParsePartPlacement(const std::string& flag, const std::string& name) {
  for (const PartPlacement placement :
       {PartPlacement::kAuto, PartPlacement::kTp, PartPlacement::kDp}) {
    if (name == PartPlacementName(placement)) return placement;
  }
  return MakeError(ErrorCode::kInvalidArgument, "{}: '{}', expected auto, tp or dp", flag, name);
}

const char* PartPlacementName(PartPlacement placement) {
  switch (placement) {
    case PartPlacement::kAuto:
      return "auto";
    case PartPlacement::kTp:
      return "tp";
    case PartPlacement::kDp:
      return "dp";
  }
  return "unknown";
}

const char* PartName(Part part) {
  switch (part) {
    case Part::kAttention:
      return "attention";
    case Part::kRoutedExperts:
      return "routed experts";
    case Part::kSharedExperts:
      return "shared experts";
    case Part::kDenseFfn:
      return "dense FFN";
    case Part::kEmbedding:
      return "embedding";
    case Part::kLmHead:
      return "LM head";
    case Part::kKvCache:
      return "KV cache";
  }
  return "unknown";
}

const char* HoldingName(Holding holding) {
  switch (holding) {
    case Holding::kNone:
      return "none";
    case Holding::kWhole:
      return "whole";
    case Holding::kSharded:
      return "sharded";
    case Holding::kSplit:
      return "split";
    case Holding::kCopied:
      return "copied";
    case Holding::kPartitioned:
      return "partitioned";
  }
  return "unknown";
}

const char* CollectiveName(Collective collective) {
  switch (collective) {
    case Collective::kNone:
      return "none";
    case Collective::kAllReduce:
      return "all-reduce";
    case Collective::kAllGather:
      return "all-gather";
    case Collective::kReduceScatter:
      return "reduce-scatter";
    case Collective::kAllToAll:
      return "all-to-all";
    case Collective::kSendRecv:
      return "send/receive";
  }
  return "unknown";
}

}  // namespace moebius::layout
