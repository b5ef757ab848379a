#include "plan/step_time.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "base/math.h"
#include "plan/exchange_cost.h"
#include "plan/op_cost.h"

namespace moebius::plan {
namespace {

using layout::ExchangeBackend;
using layout::PartPlacement;

// How much of what could run beside something else does: the two share memory, and the throughput
// kernels of a prefill's exchange keep about a sixth of the multiprocessors.
constexpr double kDecodeOverlap = 0.8;
constexpr double kPrefillOverlap = 0.65;
// Time of the engine over that of the operations.
constexpr double kDecodeGaps = 0.2;
constexpr double kPrefillGaps = 0.1;

// Of a pipeline, assumed: every turn of a stage is a step of its own to the host (schedule, launch,
// receive, hand on), and turns differ with the requests and experts of a group (the stages wait for
// the slowest: a relative deviation, its largest of as many as there are stages).
constexpr double kTurnUs = 500;
constexpr double kStageSpread = 0.05;

enum Line : uint8_t {
  kNorms,
  kProjections,
  kAbsorb,
  kAttention,
  kOutput,
  kAttentionReduce,
  kRouter,
  kShared,
  kDispatch,
  kExpertsLine,
  kCombine,
  kMoeReduce,
  kTokenGather,
  kDense,
  kDenseCollective,
  kHead,
  kHeadCollective,
  kSampling,
  kSend,
  kNumLines
};

struct LineName {
  const char* name;
  OpGroup group;
};
constexpr std::array<LineName, kNumLines> kLineNames = {{
    {"norms and small kernels", OpGroup::kOther},
    {"projections", OpGroup::kDense},
    {"latent products", OpGroup::kAttention},
    {"attention", OpGroup::kAttention},
    {"output projection", OpGroup::kDense},
    {"attention all-reduce", OpGroup::kCollective},
    {"router", OpGroup::kDense},
    {"shared experts", OpGroup::kDense},
    {"dispatch", OpGroup::kCollective},
    {"experts", OpGroup::kExperts},
    {"combine", OpGroup::kCollective},
    {"MoE all-reduce", OpGroup::kCollective},
    {"token gather", OpGroup::kCollective},
    {"dense FFN", OpGroup::kDense},
    {"dense FFN collectives", OpGroup::kCollective},
    {"LM head", OpGroup::kDense},
    {"LM head collectives", OpGroup::kCollective},
    {"sampling", OpGroup::kOther},
    {"stage send", OpGroup::kCollective},
}};

// Drafted tokens of a request in a step.
int64_t Drafted(const StepInput& input) {
  if (input.phase != Phase::kDecode) return 0;
  return static_cast<int64_t>(std::ceil(std::max(0.0, input.mtp_tokens - 1) - 1e-9));
}

int64_t TokensOf(const StepInput& input, int64_t requests) {
  if (input.phase == Phase::kPrefill) return requests * std::max<int64_t>(1, input.prompt_tokens);
  return requests * (1 + Drafted(input));
}

// Layers of the stage that takes longest, as numbers (a share of the drafting layers with them).
struct StageLayers {
  double moe = 0;
  double dense = 0;
  double windowed = 0;  // share of all
  double all() const { return moe + dense; }
};

StageLayers LayersOf(const ModelShape& model, int stages, int64_t drafted) {
  const int64_t all = model.num_moe_layers + model.num_dense_layers;
  const int64_t in_stage = CeilDiv(all, stages);
  const double more = 1 + static_cast<double>(drafted) / static_cast<double>(all);
  StageLayers layers;
  layers.moe = static_cast<double>(std::min(model.num_moe_layers, in_stage)) * more;
  layers.dense = static_cast<double>(in_stage) * more - layers.moe;
  layers.windowed = static_cast<double>(model.num_windowed_layers) / static_cast<double>(all);
  return layers;
}

// The operations of one batch: every line is the cost of one layer of its kind (or of the step).
class Batch {
 public:
  Batch(const ModelShape& model, const layout::ParallelLayout& layout, const Device& device,
        const StepInput& input, int64_t requests)
      : model_(model),
        n_(model.numbers),
        layout_(layout),
        device_(device),
        input_(input),
        requests_(std::max<int64_t>(1, requests)),
        tokens_(TokensOf(input, requests_)),
        tp_(layout.config.tensor_parallel_size),
        dp_(layout.config.data_parallel_size) {
    AddAttention();
    AddNorms();
    if (model.num_moe_layers > 0) AddMoe();
    if (model.num_dense_layers > 0) AddDense();
    AddEnds();
  }

  const OpCost& line(Line line) const { return lines_[line]; }
  double busiest() const { return busiest_; }
  bool exchanges() const { return exchanges_; }

 private:
  void Add(Line line, const OpCost& cost) {
    OpCost& sum = lines_[line];
    if (sum.count == 0)
      sum = cost;
    else
      sum += cost;
  }
  double Bytes(int64_t rows, double element_bytes) const {
    return static_cast<double>(rows * n_.hidden_size) * element_bytes;
  }
  double WireBytes() const { return ActivationBytes(device_, model_.expert_weight_bytes); }

  AttentionShape Attention() const {
    AttentionShape a;
    a.requests = requests_;
    a.new_tokens = tokens_ / requests_;
    a.cached = input_.context;
    a.heads = CeilDiv(n_.num_heads, tp_);
    a.kv_heads = std::max<int64_t>(1, CeilDiv(n_.num_kv_heads, tp_));
    a.head_dim = n_.mla ? model_.qk_nope_head_dim + model_.qk_rope_head_dim : model_.head_dim;
    a.v_head_dim = n_.mla ? model_.v_head_dim : model_.head_dim;
    a.kv_lora_rank = model_.kv_lora_rank;
    a.rope_dim = model_.qk_rope_head_dim;
    a.kv_element_bytes = input_.kv_element_bytes;
    return a;
  }

  void AddProjection(Line line, int64_t rows, int64_t outputs, int64_t inputs) {
    Add(line, Gemm(device_, rows, outputs, inputs, model_.weight_bytes));
  }

  void AddAttention() {
    AttentionShape a = Attention();
    const bool prefill = input_.phase == Phase::kPrefill;
    if (n_.mla) {
      const int64_t latent = model_.kv_lora_rank + model_.qk_rope_head_dim;
      if (model_.q_lora_rank > 0) {
        AddProjection(kProjections, tokens_, model_.q_lora_rank + latent, n_.hidden_size);
        AddProjection(kProjections, tokens_, a.heads * a.head_dim, model_.q_lora_rank);
      } else {
        AddProjection(kProjections, tokens_, a.heads * a.head_dim + latent, n_.hidden_size);
      }
      if (prefill) {
        a.kv_heads = a.heads;
        AddProjection(kProjections, tokens_ + requests_ * input_.context,
                      a.heads * (model_.qk_nope_head_dim + a.v_head_dim), model_.kv_lora_rank);
      } else {
        Add(kAbsorb, MlaAbsorb(device_, a, tokens_, model_.qk_nope_head_dim));
      }
    } else {
      AddProjection(kProjections, tokens_, (a.heads + 2 * a.kv_heads) * a.head_dim, n_.hidden_size);
    }
    AddCore(a, prefill);
    AddProjection(kOutput, tokens_, n_.hidden_size, a.heads * a.v_head_dim);
    Add(kAttentionReduce, AllReduce(device_, tp_, device_.gpus_per_node, Bytes(tokens_, 2)));
  }

  // The mean layer where some see a window only.
  void AddCore(AttentionShape a, bool prefill) {
    const auto core = [&] {
      if (prefill) return ContextAttention(device_, a);
      return n_.mla ? MlaDecode(device_, a) : GqaDecode(device_, a);
    };
    OpCost cost = core();
    const double share = static_cast<double>(model_.num_windowed_layers) /
                         static_cast<double>(model_.num_moe_layers + model_.num_dense_layers);
    if (share > 0 && model_.window > 0) {
      a.window = model_.window;
      const OpCost windowed = core();
      cost.us += share * (windowed.us - cost.us);
      cost.flops += share * (windowed.flops - cost.flops);
      cost.bytes += share * (windowed.bytes - cost.bytes);
    }
    Add(kAttention, cost);
  }

  // Norms with residuals, rotation, cache write, quantisation of what enters a product, and for
  // prefill the expanded heads.
  void AddNorms() {
    const bool quantised = model_.weight_bytes < 2;
    const int64_t launches = 4 + (quantised ? 3 : 0);
    double bytes = Bytes(tokens_, 2) * (quantised ? 12 : 10);
    const AttentionShape a = Attention();
    bytes += static_cast<double>(tokens_ * a.heads * (2 * a.head_dim + a.v_head_dim)) * 4;
    Add(kNorms, Elementwise(device_, bytes, launches));
  }

  void AddMoe() {
    Add(kRouter, Gemm(device_, tokens_, n_.num_experts, n_.hidden_size, model_.other_bytes));
    Add(kRouter, Elementwise(device_, static_cast<double>(tokens_ * n_.num_experts) * 4, 1));
    if (IsCutByOutputs()) {
      AddCutExperts();
      return;
    }
    const bool cutting = layout_.token_cutting;
    const int64_t own = cutting ? CeilDiv(tokens_, tp_) : tokens_;
    if (n_.shared_intermediate_size > 0) {
      AddFfn(kShared, own, CeilDiv(n_.shared_intermediate_size, cutting ? 1 : tp_));
    }
    AddExperts(own);
    if (dp_ == 1 && !layout_.exchanges) {
      Add(kMoeReduce, AllReduce(device_, tp_, device_.gpus_per_node, Bytes(tokens_, 2)));
    } else if (layout_.expert_parallel_size > 1) {
      AddExchange(own);
      if (cutting) {
        Add(kTokenGather, AllGather(device_, tp_, device_.gpus_per_node, Bytes(tokens_, 2)));
      }
    } else {
      AddGather(tokens_ * dp_);
      Add(kMoeReduce, AllReduce(device_, tp_, device_.gpus_per_node, Bytes(tokens_, 2)));
    }
  }

  bool IsCutByOutputs() const {
    return layout_.config.own_ranks && layout_.expert_tensor_parallel_size > 1;
  }

  // Own ranks without EP: rows of all to all, columns between the two products and after them.
  void AddCutExperts() {
    const int group = layout_.config.expert_group();
    const int64_t all = tokens_ * dp_;
    if (n_.shared_intermediate_size > 0) {
      AddFfn(kShared, all, CeilDiv(n_.shared_intermediate_size, group));
    }
    AddExperts(all);
    const auto gather = [&](Line line, double elements) {
      Add(line, AllGather(device_, group, device_.gpus_per_node, elements * 2));
    };
    gather(kDispatch, static_cast<double>(all * n_.hidden_size));
    gather(kCombine, static_cast<double>(all * n_.top_k * n_.expert_intermediate_size));
    if (n_.shared_intermediate_size > 0) {
      gather(kCombine, static_cast<double>(all * n_.shared_intermediate_size));
    }
    gather(kCombine, static_cast<double>(all * n_.hidden_size));
  }

  void AddExperts(int64_t own) {
    const bool spread = layout_.expert_parallel_size > 1;
    const bool all_have_all = dp_ == 1 && !layout_.exchanges;  // the ranks of a TP group
    const int64_t tokens =
        spread ? own * layout_.expert_parallel_size / (all_have_all ? tp_ : 1) : tokens_ * dp_;
    const auto loads = LoadsOf(input_.imbalance, layout_, n_.num_experts, n_.top_k);
    busiest_ = spread ? loads->BusiestRank(tokens) : 1;
    ExpertsShape e;
    e.slots = loads->slots_per_rank();
    e.slots_hit = loads->SlotsHit(tokens, busiest_);
    e.rows = static_cast<double>(tokens * n_.top_k) * busiest_ /
             static_cast<double>(layout_.expert_parallel_size);
    e.hidden = n_.hidden_size;
    e.width = CeilDiv(n_.expert_intermediate_size, layout_.expert_tensor_parallel_size);
    e.weight_bytes = model_.expert_weight_bytes;
    Add(kExpertsLine, Experts(device_, e));
  }

  void AddExchange(int64_t own) {
    exchanges_ = true;
    ExchangeShape s;
    s.ranks = layout_.expert_parallel_size;
    s.gpus_per_node = device_.gpus_per_node;
    s.tokens = own;
    s.num_slots = n_.num_experts;
    s.top_k = n_.top_k;
    s.hidden = n_.hidden_size;
    s.by_node = input_.phase == Phase::kPrefill;
    s.load = busiest_;
    s.element_bytes = WireBytes();
    const OpCost dispatch = Dispatch(device_, s);
    s.element_bytes = 2;
    const OpCost combine = Combine(device_, s);
    const int64_t all = own * s.ranks;
    const OpCost gather = AllGather(device_, s.ranks, s.gpus_per_node, Bytes(all, WireBytes()));
    const OpCost scatter = ReduceScatter(device_, s.ranks, s.gpus_per_node, Bytes(all, 2));
    const ExchangeBackend backend = layout_.config.all2all_backend;
    const bool collectives = backend == ExchangeBackend::kAllGatherReduceScatter ||
                             (backend == ExchangeBackend::kAuto && !layout_.config.own_ranks &&
                              gather.us + scatter.us < dispatch.us + combine.us);
    Add(kDispatch, collectives ? gather : dispatch);
    Add(kCombine, collectives ? scatter : combine);
  }

  // DP without EP: every rank works on a slice of every expert, for everyone's tokens. The ranks
  // of a DP group are TP apart.
  void AddGather(int64_t all) {
    exchanges_ = true;
    const int in_node = std::max(1, device_.gpus_per_node / tp_);
    Add(kDispatch, AllGather(device_, dp_, in_node, Bytes(all, WireBytes())));
    Add(kCombine, ReduceScatter(device_, dp_, in_node, Bytes(all, 2)));
  }

  void AddFfn(Line line, int64_t rows, int64_t width) {
    AddProjection(line, rows, 2 * width, n_.hidden_size);
    Add(line, Elementwise(device_, static_cast<double>(rows * width) * 7, 1));
    AddProjection(line, rows, n_.hidden_size, width);
  }

  // What DP attention leaves free; own ranks keep it with its DP rank.
  bool GoesOverGroup(PartPlacement placement) const {
    return dp_ > 1 && n_.num_experts > 0 && placement == PartPlacement::kTp &&
           !layout_.config.own_ranks;
  }

  void AddDense() {
    const bool over_group = GoesOverGroup(layout_.config.dense_ffn);
    const int64_t ways = over_group ? layout_.config.expert_group() : tp_;
    const int64_t rows = over_group ? tokens_ * dp_ : tokens_;
    AddFfn(kDense, rows, CeilDiv(n_.dense_intermediate_size, ways));
    if (over_group) {
      const int in_node = std::max(1, device_.gpus_per_node / tp_);
      Add(kDenseCollective, AllGather(device_, dp_, in_node, Bytes(rows, 2)));
      Add(kDenseCollective, ReduceScatter(device_, dp_, in_node, Bytes(rows, 2)));
    }
    Add(kDenseCollective, AllReduce(device_, tp_, device_.gpus_per_node, Bytes(tokens_, 2)));
  }

  // Embedding, head, sampling and what goes to the next stage: once a step.
  void AddEnds() {
    const bool over_group = GoesOverGroup(layout_.config.lm_head);
    const int64_t own = input_.phase == Phase::kPrefill ? requests_ : tokens_;
    const int64_t rows = over_group ? own * dp_ : own;
    const int64_t ways = over_group ? layout_.config.expert_group() : tp_;
    const int64_t columns = CeilDiv(n_.vocab_size, ways);
    Add(kHead, Gemm(device_, rows, columns, n_.hidden_size, model_.other_bytes));
    const double logits = static_cast<double>(own * n_.vocab_size) * 2;
    if (over_group) {
      Add(kHeadCollective,
          AllGather(device_, dp_, std::max(1, device_.gpus_per_node / tp_), Bytes(rows, 2)));
      Add(kHeadCollective,
          AllGather(device_, layout_.config.expert_group(), device_.gpus_per_node, logits));
    } else {
      Add(kHeadCollective, AllGather(device_, tp_, device_.gpus_per_node, logits));
    }
    Add(kSampling, Elementwise(device_, 4 * logits + Bytes(tokens_, 4), 6));
    if (layout_.config.pipeline_parallel_size > 1) {
      // Stages are TP ranks apart, DP ranks all stages.
      const bool far = tp_ * layout_.config.pipeline_parallel_size > device_.gpus_per_node;
      Add(kSend, SendRecv(device_, far, Bytes(tokens_, 2)));
    }
  }

  const ModelShape& model_;
  const layout::ModelNumbers& n_;
  const layout::ParallelLayout& layout_;
  const Device& device_;
  const StepInput& input_;
  int64_t requests_;
  int64_t tokens_;
  int tp_;
  int dp_;
  std::array<OpCost, kNumLines> lines_ = [] {
    std::array<OpCost, kNumLines> lines;
    for (OpCost& line : lines) line.count = 0;
    return lines;
  }();
  double busiest_ = 1;
  bool exchanges_ = false;
};

double TimesOf(Line line, const StageLayers& layers, int64_t drafted) {
  switch (line) {
    case kRouter:
    case kShared:
    case kDispatch:
    case kExpertsLine:
    case kCombine:
    case kMoeReduce:
    case kTokenGather:
      return layers.moe;
    case kDense:
    case kDenseCollective:
      return layers.dense;
    case kHead:
    case kHeadCollective:
    case kSampling:
      return 1.0 + static_cast<double>(drafted);
    case kSend:
      return 1;
    default:
      return layers.all();
  }
}

// Time of one MoE layer that hides behind something else.
double HiddenUs(const Batch& batch, const StepInput& input, bool two_batches, bool own_ranks) {
  if (!batch.exchanges() || input.plain_sum || own_ranks) return 0;  // own ranks: one by one
  const double share = input.phase == Phase::kDecode ? kDecodeOverlap : kPrefillOverlap;
  const double wire = batch.line(kDispatch).us + batch.line(kCombine).us;
  if (!two_batches) return share * std::min(wire, batch.line(kShared).us);
  double compute = 0;
  for (Line line :
       {kNorms, kProjections, kAbsorb, kAttention, kOutput, kRouter, kShared, kExpertsLine}) {
    compute += batch.line(line).us;
  }
  return 2 * share * std::min(wire, compute);
}

void AddTime(const char* name, OpGroup group, double us, Basis basis, StepTime& step) {
  if (us == 0) return;
  OpTime op;
  op.name = name;
  op.us = us;
  op.count = 0;
  op.group = group;
  op.basis = basis;
  step.total_us += us;
  step.ops.push_back(std::move(op));
}

}  // namespace

const char* OpGroupName(OpGroup group) {
  switch (group) {
    case OpGroup::kAttention:
      return "attention";
    case OpGroup::kDense:
      return "dense";
    case OpGroup::kExperts:
      return "experts";
    case OpGroup::kCollective:
      return "collectives";
    case OpGroup::kOther:
      return "other";
  }
  return "";
}

StepTime EstimateStep(const ModelShape& model, const layout::ParallelLayout& layout,
                      const Device& device, const StepInput& input) {
  const int64_t requests = std::max<int64_t>(1, input.requests_per_rank);
  const bool split = input.two_batch_overlap && !layout.config.own_ranks &&
                     layout.config.data_parallel_size > 1 && model.num_moe_layers > 0 &&
                     requests > 1;
  const Batch batch(model, layout, device, input, split ? CeilDiv(requests, 2) : requests);
  const int64_t drafted = Drafted(input);
  const StageLayers layers = LayersOf(model, layout.config.pipeline_parallel_size, drafted);

  StepTime step;
  step.busiest_rank = batch.busiest();
  step.ops.reserve(kNumLines + 2);
  for (size_t i = 0; i < kNumLines; ++i) {
    const auto line = static_cast<Line>(i);
    const OpCost& cost = batch.line(line);
    const double times = TimesOf(line, layers, drafted) * (split ? 2 : 1);
    if (cost.count == 0 || times <= 0) continue;
    OpTime op;
    op.name = kLineNames[i].name;
    op.group = kLineNames[i].group;
    op.us = cost.us * times;
    op.flops = cost.flops * times;
    op.bytes = cost.bytes * times;
    op.count = static_cast<int64_t>(std::lround(static_cast<double>(cost.count) * times));
    op.basis = cost.basis;
    step.total_us += op.us;
    step.ops.push_back(std::move(op));
  }
  AddTime("overlapped", OpGroup::kOther,
          -HiddenUs(batch, input, split, layout.config.own_ranks) * layers.moe, device.basis, step);
  if (input.plain_sum) return step;
  const double gaps = input.phase == Phase::kDecode ? kDecodeGaps : kPrefillGaps;
  AddTime("gaps and waiting", OpGroup::kOther, step.total_us * gaps, device.basis, step);
  const int stages = layout.config.pipeline_parallel_size;
  if (stages > 1) {
    const double spread = kStageSpread * LargestOf(static_cast<size_t>(stages));
    AddTime("stages: hand-over, slowest", OpGroup::kOther, kTurnUs + step.total_us * spread,
            Basis::kRoofline, step);
  }
  return step;
}

int64_t StepTokens(const StepInput& input) {
  return TokensOf(input, std::max<int64_t>(1, input.requests_per_rank));
}

double DecodeTpotMs(const StepTime& step, const StepInput& input) {
  return step.total_us / 1e3 / std::max(1.0, input.mtp_tokens);
}

double PrefillTokensPerSecPerGpu(const StepTime& step, const StepInput& input,
                                 const layout::ParallelLayout& layout) {
  return static_cast<double>(StepTokens(input)) / step.total_us * 1e6 /
         (layout.config.tensor_parallel_size * layout.config.pipeline_parallel_size);
}

}  // namespace moebius::plan
