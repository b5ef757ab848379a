// How a model is spread over devices: from the sizes a user gives (TP, DP, PP, expert parallelism)
// to groups, and to what each part of the model becomes on a rank: sharded, split, copied or
// partitioned, with the collective around it. Knows nothing of models but a few numbers. Plain
// values and pure functions, any thread.
//
// Ranks: global rank = (dp * PP + pp) * TP + tp: the TP group is adjacent. Inside one pipeline
// stage the TP x DP ranks form the flattened expert group, f = dp * TP + tp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace moebius::layout {

// How tokens reach the experts' ranks. kAuto: chosen by cost.
enum class ExchangeBackend : uint8_t {
  kAuto,
  kAllGatherReduceScatter,  // every rank gets every token
  kAllToAll,                // each token once to each rank that holds one of its experts
};

// Whose kernels carry the all-to-all: legality and buffer sizes depend on it. kOwn is ours; the
// others are what vLLM's --all2all-backend names.
enum class ExchangeKernel : uint8_t {
  kOwn,
  kDeepEpLowLatency,
  kDeepEpHighThroughput,
  kNixl,
  kOther,    // FlashInfer's, MoRI's, DeepEP's second version
  kRemoved,  // pplx and naive: vLLM replaces them by gather and scatter
};

// Where a part that DP attention leaves free may live: kTp shards it over the whole flattened group
// (tokens are gathered for it), kDp keeps it with its DP rank's TP group. kAuto: by cost.
enum class PartPlacement : uint8_t { kAuto, kTp, kDp };

// The largest deployment there is a plan for, and the most second copies: rules.h turns down what
// is above, so that products of sizes that passed fit an int.
constexpr int kMaxGpus = 4096;
constexpr int kMaxRedundantExperts = 1 << 16;

// What the user asks for. Field names are vLLM's flags.
struct ParallelConfig {
  int tensor_parallel_size = 1;
  int data_parallel_size = 1;
  int pipeline_parallel_size = 1;
  int decode_context_parallel_size =
      1;  // DCP: in how many parts a TP group cuts copied KV, by token
  bool enable_expert_parallel = false;
  ExchangeBackend all2all_backend = ExchangeBackend::kAuto;
  ExchangeKernel exchange_kernel = ExchangeKernel::kOwn;
  bool enable_eplb = false;
  int num_redundant_experts = 0;
  bool enable_dbo = false;  // two-batch overlap
  PartPlacement dense_ffn = PartPlacement::kAuto;
  PartPlacement lm_head = PartPlacement::kAuto;
  // As Moebius's own ranks on CPUs run a layout (model/shard.h), not as GPU stacks do: no sum is
  // cut, so matrices are cut by their outputs and columns are gathered; whole experts are reached
  // through the exchange under TP alone, too; shared experts go with the routed ones, whole or cut.
  bool own_ranks = false;
  // Only the slots of experts are as Moebius's ranks hold them, as they do on GPUs, too: any
  // number, a rank at most one more than another, and what moves arrives in staging slots.
  bool own_slots = false;
  int gpus_per_node = 8;

  bool holds_own_slots() const { return own_ranks || own_slots; }
  // Of sizes that are at least 1, without overflow.
  int64_t wide_num_gpus() const {
    return int64_t{tensor_parallel_size} * data_parallel_size > kMaxGpus
               ? int64_t{tensor_parallel_size} * data_parallel_size
               : int64_t{tensor_parallel_size} * data_parallel_size * pipeline_parallel_size;
  }
  int num_gpus() const {
    return tensor_parallel_size * data_parallel_size * pipeline_parallel_size;
  }
  int expert_group() const { return tensor_parallel_size * data_parallel_size; }
  int num_nodes() const { return (num_gpus() + gpus_per_node - 1) / gpus_per_node; }
  // The flag has an effect only where the flattened group has more than one rank.
  bool expert_parallel_active() const { return enable_expert_parallel && expert_group() > 1; }
  bool operator==(const ParallelConfig&) const = default;
};

// "TP8", "DP8+EP", "TP4+DP2+EP", "PP2+TP4+EP"; "1 GPU" for a product of 1. The EP flag is named
// where it is given, active or not.
std::string ConfigName(const ParallelConfig& config);

// The value of --all2all-backend: "auto", "all2all", "allgather_reducescatter" or a name of vLLM's
// ("deepep_low_latency", "nixl_ep", "pplx", ...), into both of config's fields. kInvalidArgument
// names the known ones.
Status SetBackend(const std::string& name, ParallelConfig& config);
const char* BackendName(const ParallelConfig& config);

// "auto", "tp" or "dp"; `flag` ("--dense-ffn") begins the error.
Result<PartPlacement> ParsePartPlacement(const std::string& flag, const std::string& name);
const char* PartPlacementName(PartPlacement placement);

// The numbers of a model that legality and placement depend on.
struct ModelNumbers {
  std::string name;
  bool mla = false;  // latent KV: one head, copied in every rank of a TP group
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t vocab_size = 0;
  int64_t dense_intermediate_size = 0;  // 0: no dense layer
  int64_t num_experts = 0;              // 0: a dense model
  int64_t top_k = 0;
  int64_t expert_intermediate_size = 0;
  int64_t shared_intermediate_size = 0;  // 0: no shared expert
  int64_t fp8_block = 0;                 // rows and columns of a block of scales; 0: not fp8 blocks
};

enum class Part : uint8_t {
  kAttention,
  kRoutedExperts,
  kSharedExperts,
  kDenseFfn,
  kEmbedding,
  kLmHead,
  kKvCache
};
constexpr int kNumParts = 7;
const char* PartName(Part part);

// What one rank holds of a part.
enum class Holding : uint8_t {
  kNone,         // the model has no such part
  kWhole,        // all of it, on the only rank there is
  kSharded,      // a slice of every matrix ("1/8 of the heads", "all experts, each 1/8 wide")
  kSplit,        // whole units, each on one rank ("32 whole experts of 256")
  kCopied,       // all of it on every rank of the group
  kPartitioned,  // by request: a rank holds what its own requests need (KV under DP)
};
const char* HoldingName(Holding holding);

enum class Collective : uint8_t {
  kNone,
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kAllToAll,
  kSendRecv
};
const char* CollectiveName(Collective collective);

// One row of the layout's table.
struct PartLayout {
  Part part = Part::kAttention;
  Holding holding = Holding::kWhole;
  int ways = 1;    // in how many pieces (kSharded, kSplit, kPartitioned)
  int copies = 1;  // how many ranks of a pipeline stage hold the same bytes
  Collective before = Collective::kNone;
  Collective after = Collective::kNone;
  int group = 1;                        // ranks in those collectives
  Collective last = Collective::kNone;  // after `after`, inside the TP group: the sum of slices, or
  int last_group = 1;                   // the gather of cut tokens
  std::string text{};                   // one line for people
};

struct ParallelLayout {
  ParallelConfig config;
  int expert_parallel_size = 1;         // EP: ranks that share out whole experts
  int expert_tensor_parallel_size = 1;  // else: in how many slices each expert is cut
  bool exchanges = false;      // experts under EP with DP > 1 (own ranks: under any EP): dispatch
                               // and combine (all-to-all or gather and scatter)
  bool token_cutting = false;  // TP, DP and EP meet (own ranks: TP and EP): each TP rank takes 1/TP
                               // of the tokens into the MoE and gathers them afterwards; shared
                               // experts are then copied
  Collective between_stages = Collective::kNone;  // kSendRecv under PP
  std::vector<PartLayout> parts;                  // kNumParts, in the order of Part
  // Of a MoE layer, redundant ones included; by flattened rank.
  std::vector<int64_t> slots_per_rank;

  const PartLayout& part(Part p) const { return parts[static_cast<size_t>(p)]; }
};

// The layout of a legal choice (rules.h says which are). Never fails: an illegal one is a broken
// invariant. What is still kAuto counts as all-to-all and as kDp; plan/search.h settles it
// by cost first.
ParallelLayout MakeLayout(const ParallelConfig& config, const ModelNumbers& model);

// Contiguous blocks of experts, the first E mod EP ranks one more: 10 on 4 are 3, 3, 2, 2.
std::vector<int64_t> ExpertsPerRank(int64_t num_experts, int expert_parallel_size);

// The experts [begin, end) that the linear placement gives to a rank of the flattened group.
struct ExpertRange {
  int64_t begin = 0;
  int64_t end = 0;
};
ExpertRange ExpertsOfRank(int64_t num_experts, int expert_parallel_size, int flattened);

// The layers [begin, end) of a pipeline stage: as even as they go; what is left over goes to
// the stages before the last, which has the head to compute.
struct StageLayers {
  int64_t begin = 0;
  int64_t end = 0;
};
StageLayers LayersOfStage(int64_t num_layers, int pipeline_parallel_size, int stage);

// Where a global rank stands, and the ranks of its groups.
struct RankPlace {
  int tp = 0;
  int dp = 0;
  int pp = 0;
  int flattened = 0;  // in the expert group of its stage
};
RankPlace PlaceOf(const ParallelConfig& config, RankId rank);
std::vector<RankId> TpGroup(const ParallelConfig& config, RankId rank);
std::vector<RankId> DpGroup(const ParallelConfig& config, RankId rank);      // same tp and pp
std::vector<RankId> PpGroup(const ParallelConfig& config, RankId rank);      // same tp and dp
std::vector<RankId> ExpertGroup(const ParallelConfig& config, RankId rank);  // same pp

}  // namespace moebius::layout
