// The MoE block: route, dispatch, experts, combine. Long prefills run it in chunks of rows, which
// bounds its buffers.
#include <algorithm>

#include "model/layers.h"

namespace moebius::model {
namespace {

// (token, choice) pairs a chunk may have: enough rows for each expert that the products stream
// well.
constexpr int64_t kMaxPairs = 16384;

// Everything a chunk of rows needs; taken in one order from a real arena or from one that only
// counts.
struct MoeBuffers {
  MoeBuffers(Arena& arena, int64_t rows, DType act, int64_t hidden_size, const MoeConfig& config)
      : logits(arena.AllocMat(DType::kF32, rows, config.num_experts)),
        experts(arena.Alloc<int32_t>(rows * config.top_k), Pairs(rows, config)),
        weights(arena.Alloc<float>(rows * config.top_k), Pairs(rows, config)),
        slots(arena.Alloc<int32_t>(rows * config.top_k), Pairs(rows, config)),
        expert_hidden(arena.AllocMat(act, rows * config.top_k, config.intermediate_size)),
        expert_out(arena.AllocMat(act, rows * config.top_k, hidden_size)) {
    if (config.shared_intermediate_size > 0) shared_out = arena.AllocMat(act, rows, hidden_size);
  }
  static size_t Pairs(int64_t rows, const MoeConfig& config) {
    return static_cast<size_t>(rows * config.top_k);
  }

  Mat logits;
  std::span<int32_t> experts;
  std::span<float> weights;
  std::span<int32_t> slots;
  Mat expert_hidden;
  Mat expert_out;
  Mat shared_out;
};

void Route(Step& step, MoeShared& shared, const MoeLayer& layer, int64_t begin, Mat rows,
           MoeBuffers& buffers) {
  const MoeConfig& config = shared.config;
  kernels::RouteTopKArgs args;
  args.logits = buffers.logits;
  args.k = static_cast<int>(config.top_k);
  args.normalize = config.normalize;
  args.scale = static_cast<float>(config.scale);
  args.experts = buffers.experts;
  args.weights = buffers.weights;
  switch (config.router) {
    case RouterKind::kSoftmax:
      args.score = kernels::RouterScore::kSoftmax;
      break;
    case RouterKind::kSigmoidBias:
      args.score = kernels::RouterScore::kSigmoid;
      break;
    case RouterKind::kSigmoidInput:
      args.score = kernels::RouterScore::kSigmoidOnTop;
      break;
  }
  if (shared.forced_routing != nullptr) {
    // The wished distribution stands for the whole choice: no bias, no groups.
    step.ctx.pool->RunRanges(rows.rows, 8, [&](int64_t from, int64_t to, int /*thread_idx*/) {
      const auto first = static_cast<size_t>(begin + from);
      const auto count = static_cast<size_t>(to - from);
      shared.forced_routing->FillLogits(layer.index, step.batch.tokens.subspan(first, count),
                                        step.batch.positions.subspan(first, count),
                                        buffers.logits.Rows(from, to - from));
    });
  } else {
    Project(step.ctx, rows, layer.router, buffers.logits);
    args.bias = layer.bias;
    if (config.num_top_groups < config.num_groups) {
      args.group_score = config.router == RouterKind::kSigmoidBias ? kernels::GroupScore::kTop2Sum
                                                                   : kernels::GroupScore::kMax;
      args.num_groups = static_cast<int>(config.num_groups);
      args.num_top_groups = static_cast<int>(config.num_top_groups);
    }
  }
  const auto num_experts = static_cast<size_t>(config.num_experts);
  kernels::RouteToSlots(
      step.ctx,
      {.route = args,
       .tokens =
           step.batch.tokens.subspan(static_cast<size_t>(begin), static_cast<size_t>(rows.rows)),
       .first_slot = shared.first_slot,
       .counts = shared.counts.subspan(static_cast<size_t>(layer.index) * num_experts, num_experts),
       .slots = buffers.slots});
}

void RunChunk(Step& step, MoeShared& shared, const MoeLayer& layer, int64_t begin,
              int64_t num_rows) {
  const ArenaScope scope(step.arena());
  const MoeConfig& config = shared.config;
  const Mat rows = step.normed.Rows(begin, num_rows);
  const Mat out = step.delta.Rows(begin, num_rows);
  MoeBuffers buffers(step.arena(), num_rows, step.act, rows.cols, config);
  Route(step, shared, layer, begin, rows, buffers);

  // Llama 4 scales what an expert reads, the others what it returns.
  const bool scale_input = config.router == RouterKind::kSigmoidInput;
  const moe::DispatchedRows work =
      shared.exchange->Dispatch(step.ctx,
                                {.rows = rows,
                                 .slots = buffers.slots,
                                 .k = config.top_k,
                                 .num_slots = shared.placement.num_slots()},
                                step.arena());
  kernels::GroupedSwiGluArgs first;
  first.a = work.rows;
  first.offsets = work.offsets;
  first.pairs = work.pairs;
  first.rows_per_pair = work.rows_per_pair;
  if (scale_input) first.row_scale = buffers.weights;
  first.weights = layer.gate_up;
  first.out = buffers.expert_hidden;
  kernels::GroupedMlp(step.ctx, {.first = first, .down = layer.down, .out = buffers.expert_out});
  if (layer.shared) RunMlp(step, *layer.shared, begin, buffers.shared_out);
  moe::CombineArgs combine;
  combine.expert_rows = buffers.expert_out;
  if (!scale_input) combine.weights = buffers.weights;
  if (layer.shared) combine.shared = buffers.shared_out;
  combine.out = out;
  shared.exchange->Combine(step.ctx, combine);
}

}  // namespace

int64_t MoeChunkRows(const MoeConfig& config, int64_t rows) {
  return std::min(rows, std::max<int64_t>(1, kMaxPairs / config.top_k));
}

void RunMoe(Step& step, MoeShared& shared, const MoeLayer& layer) {
  const PartTimer timer(step.batch.times, &PartTimes::experts);
  const int64_t chunk = MoeChunkRows(shared.config, step.rows);
  for (int64_t begin = 0; begin < step.rows; begin += chunk) {
    RunChunk(step, shared, layer, begin, std::min(chunk, step.rows - begin));
  }
  step.has_delta = true;
}

void ReserveMoe(Arena& arena, int64_t rows, DType act, int64_t hidden_size,
                const MoeShared& shared) {
  const MoeConfig& config = shared.config;
  const int64_t chunk = MoeChunkRows(config, rows);
  MoeBuffers(arena, chunk, act, hidden_size, config);
  arena.Alloc(shared.exchange->ArenaBytes(chunk * config.top_k, shared.placement.num_slots()));
  ReserveMlp(arena, chunk, act, config.shared_intermediate_size);
}

}  // namespace moebius::model
