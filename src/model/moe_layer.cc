// The MoE block: route, dispatch, experts, combine. Of many ranks, those of a TP group each bring
// their part of the rows, and share the results out afterwards; or, of experts that are cut, each
// has a part of every row's results.
#include <algorithm>

#include "base/check.h"
#include "base/math.h"
#include "kernels/backend.h"
#include "model/layers.h"
#include "model/shared_expert.h"
#include "moe/exchange/local.h"

namespace moebius::model {
namespace {

// What routing a chunk of rows gives. Like all buffers here, taken in one order from a real arena
// or from one that only counts.
struct Routed {
  Routed(Arena& arena, int64_t rows, const MoeConfig& config)
      : logits(arena.AllocMat(DType::kF32, rows, config.num_experts)),
        experts(arena.Alloc<int32_t>(rows * config.top_k), Pairs(rows, config)),
        weights(arena.Alloc<float>(rows * config.top_k), Pairs(rows, config)),
        slots(arena.Alloc<int32_t>(rows * config.top_k), Pairs(rows, config)) {
    groups.slots = slots;
  }
  static size_t Pairs(int64_t rows, const MoeConfig& config) {
    return static_cast<size_t>(rows * config.top_k);
  }

  Mat logits;
  std::span<int32_t> experts;
  std::span<float> weights;
  std::span<int32_t> slots;
  kernels::GroupBySlotArgs groups;  // of the slots; with room, routing makes them
};

// What Dispatch would take for itself.
void TakeGroups(Arena& arena, const MoeShared& shared, Routed& routed) {
  if (!shared.exchange->only_groups()) return;
  routed.groups = moe::RoomForGroups(routed.slots, shared.num_slots, arena);
}

// The results of the expert products, by place; `out` of this rank's columns, or parts of sums.
struct ExpertRows {
  ExpertRows(Arena& arena, int64_t places, DType act, int64_t inner, int64_t outer)
      : hidden(arena.AllocMat(act, places, inner)), out(arena.AllocMat(act, places, outer)) {}

  Mat hidden;
  Mat out;
};

// The rows of all ranks in a chunk of experts that are cut.
struct GatheredRows {
  GatheredRows(Arena& arena, int64_t num_rows, DType act, int64_t hidden_size, int64_t k)
      : rows(arena.AllocMat(act, num_rows, hidden_size)),
        slots(arena.AllocMat(DType::kI32, num_rows, k)),
        weights(arena.AllocMat(DType::kF32, num_rows, k)),
        out(arena.AllocMat(act, num_rows, hidden_size)) {}

  Mat rows;
  Mat slots;
  Mat weights;
  Mat out;
};

// Of one rank, in a chunk of a step of so many rows.
int64_t ChunkRows(const MoeShared& shared, int64_t rows) {
  return std::min(MostMoeRows(shared.config, shared.shard), CeilDiv(rows, shared.shard.tp.size));
}

// What a TP rank brings into a chunk: of its part of a step's rows, a part.
RowRange RowsOfChunk(int64_t rows, const GroupPlace& tp, int64_t chunks, int64_t chunk) {
  const RowRange of_rank = PieceOf(rows, tp.size, tp.rank);
  const RowRange piece = PieceOf(of_rank.count, chunks, chunk);
  return {of_rank.begin + piece.begin, piece.count};
}

// Where the rows of a range find their slots and are counted.
kernels::SlotChoice ChoiceOf(const Step& step, const MoeShared& shared, const MoeLayer& layer,
                             const RowRange& range) {
  kernels::SlotChoice choice;
  choice.first_slot = layer.first_slot;
  choice.num_decodes = std::clamp<int64_t>(step.batch.num_decodes - range.begin, 0, range.count);
  choice.replicas = layer.replicas;
  choice.positions = step.batch.positions.subspan(static_cast<size_t>(range.begin),
                                                  static_cast<size_t>(range.count));
  if (!step.batch.counts_experts) return choice;
  const auto num_experts = static_cast<size_t>(shared.config.num_experts);
  const size_t first_count = static_cast<size_t>(layer.index) * num_experts;
  choice.counts = shared.counts.subspan(first_count, num_experts);
  choice.prompt_counts = shared.counts.subspan(shared.counts.size() / 2 + first_count, num_experts);
  return choice;
}

// Choices that a copy on this rank serves, of experts that have several.
int64_t NumHomeCopies(const kernels::ReplicaTable& table, const Routed& routed, int rank) {
  int64_t num = 0;
  for (size_t pair = 0; pair < routed.slots.size(); ++pair) {
    const int32_t slot = routed.slots[pair];
    if (slot < 0 || slot / table.slots_per_rank != rank) continue;
    const auto expert = static_cast<size_t>(routed.experts[pair]);
    num += table.begin[expert + 1] - table.begin[expert] > 1 ? 1 : 0;
  }
  return num;
}

void Route(Step& step, MoeShared& shared, const MoeLayer& layer, const RowRange& range,
           Routed& routed) {
  const MoeConfig& config = shared.config;
  const Mat rows = step.normed.Rows(range.begin, range.count);
  kernels::RouteTopKArgs args;
  args.logits = routed.logits;
  args.k = static_cast<int>(config.top_k);
  args.normalize = config.normalize;
  args.scale = static_cast<float>(config.scale);
  args.experts = routed.experts;
  args.weights = routed.weights;
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
  if (!shared.forced_routing.empty()) {
    // The wished distribution stands for the whole choice: no bias, no groups.
    const auto num_experts = static_cast<size_t>(config.num_experts);
    const auto first = static_cast<size_t>(range.begin);
    const auto count = static_cast<size_t>(range.count);
    kernels::DrawLogits(step.ctx, {.tokens = step.batch.tokens.subspan(first, count),
                                   .positions = step.batch.positions.subspan(first, count),
                                   .log_probabilities = shared.forced_routing.subspan(
                                       static_cast<size_t>(layer.index) * num_experts, num_experts),
                                   .layer = layer.index,
                                   .logits = routed.logits});
  } else {
    Project(step.ctx, rows, layer.router, routed.logits);
    args.bias = layer.bias;
    if (config.num_top_groups < config.num_groups) {
      args.group_score = config.router == RouterKind::kSigmoidBias ? kernels::GroupScore::kTop2Sum
                                                                   : kernels::GroupScore::kMax;
      args.num_groups = static_cast<int>(config.num_groups);
      args.num_top_groups = static_cast<int>(config.num_top_groups);
    }
  }
  const auto first = static_cast<size_t>(range.begin);
  const auto count = static_cast<size_t>(rows.rows);
  const kernels::RouteToSlotsArgs route = {.route = args,
                                           .tokens = step.batch.tokens.subspan(first, count),
                                           .choice = ChoiceOf(step, shared, layer, range),
                                           .slots = routed.slots};
  if (routed.groups.offsets.empty()) {
    kernels::RouteToSlots(step.ctx, route);
  } else {
    kernels::RouteToPlaces(step.ctx, {.route = route, .group = routed.groups});
  }
  if (const kernels::ReplicaTable copies = layer.slots.replicas();
      step.batch.num_home_copies != nullptr && !copies.empty()) {
    *step.batch.num_home_copies += NumHomeCopies(copies, routed, shared.shard.experts.rank);
  }
}

// Llama 4 scales what an expert reads, the others what it returns.
bool ScalesInput(const MoeConfig& config) { return config.router == RouterKind::kSigmoidInput; }
// Where the exchange does not bring weights, rows are scaled before they leave.
bool ScalesBefore(const MoeShared& shared) {
  return ScalesInput(shared.config) && !shared.exchange->brings_weights();
}

void RunExperts(Step& step, const MoeShared& shared, const MoeLayer& layer,
                const moe::DispatchedRows& work, const ExpertRows& buffers) {
  kernels::GroupedSwiGluArgs first;
  first.a = work.rows;
  first.a_scales = work.row_scales;
  first.offsets = work.offsets.first(layer.gate_up.size() + 1);
  first.pairs = work.pairs;
  first.rows_per_pair = work.rows_per_pair;
  first.places = work.places;
  if (ScalesInput(shared.config) && !ScalesBefore(shared)) first.row_scale = work.weights;
  first.likely_places = work.likely_places;
  first.weights = layer.gate_up;
  const Split& inner = shared.experts.inner;
  first.out = inner.Mine(buffers.hidden);
  if (inner.group.size == 1) {
    kernels::GroupedMlp(step.ctx, {.first = first, .down = layer.down, .out = buffers.out});
    return;
  }
  if (inner.count() > 0) kernels::GroupedSwiGlu(step.ctx, first);
  inner.Complete(buffers.hidden);
  if (buffers.out.cols == 0) return;
  kernels::GroupedGemm(step.ctx, {.a = buffers.hidden,
                                  .offsets = first.offsets,
                                  .weights = layer.down,
                                  .out = buffers.out,
                                  .likely_places = work.likely_places});
}

// The AddAndNorm that combine does with its sums; null: none.
const Norm* NormOfCombine(const Step& step, const MoeShared& shared) {
  const bool norms = !shared.shard.cut_experts && shared.exchange->norms();
  return norms ? step.next_norm : nullptr;
}

// Whole experts: rows travel to them and back. most_rows: that any rank has in the chunk.
void RunChunk(Step& step, MoeShared& shared, const MoeLayer& layer, const RowRange& range,
              int64_t most_rows, PartTimer& timer) {
  const ArenaScope scope(step.arena());
  const MoeConfig& config = shared.config;
  const Mat rows = step.normed.Rows(range.begin, range.count);
  Routed routed(step.arena(), range.count, config);
  TakeGroups(step.arena(), shared, routed);
  SharedExpert shared_expert(step, shared, layer, rows, rows.cols);
  Route(step, shared, layer, range, routed);
  timer.Next(&PartTimes::dispatch);
  Mat sent = rows;
  std::span<const float> weights = routed.weights;
  if (ScalesBefore(shared)) {
    MOEBIUS_CHECK_EQ(config.top_k, 1);
    sent = step.arena().AllocMat(step.act, range.count, rows.cols);
    kernels::CopyRows(step.ctx, {.from = rows, .to = sent, .scale = weights});
    weights = {};
  }
  const moe::DispatchedRows work = shared.exchange->Dispatch(step.ctx,
                                                             {.rows = sent,
                                                              .slots = routed.slots,
                                                              .weights = weights,
                                                              .k = config.top_k,
                                                              .num_slots = shared.num_slots,
                                                              .most_rows = most_rows,
                                                              .read_by = layer.gate_up_format,
                                                              .groups = routed.groups},
                                                             step.arena());
  timer.Next(&PartTimes::experts);
  const ExpertRows buffers(step.arena(), work.max_places, step.act, config.intermediate_size,
                           rows.cols);
  RunExperts(step, shared, layer, work, buffers);
  moe::CombineArgs combine;
  combine.expert_rows = buffers.out;
  combine.weighted = !ScalesInput(config);
  combine.shared = shared_expert.Take();
  combine.out = step.delta.Rows(range.begin, range.count);
  if (const Norm* norm = NormOfCombine(step, shared)) {
    combine.norm = {.x = combine.out,
                    .residual = step.stream.Rows(range.begin, range.count),
                    .weight = norm->weight,
                    .eps = norm->eps,
                    .out = rows};
  }
  timer.Next(&PartTimes::combine);
  shared.exchange->Combine(step.ctx, combine);
  timer.Next(&PartTimes::experts);
}

// Where each rank's rows of a chunk begin among those of all.
std::vector<int64_t> GatheredBegin(const Step& step, const Shard& shard, int64_t chunks,
                                   int64_t chunk) {
  const std::span<const int64_t> dp_rows = step.batch.dp_rows;
  MOEBIUS_CHECK(shard.data_parallel_size() == 1 || !dp_rows.empty());
  std::vector<int64_t> begin = {0};
  for (int rank = 0; rank < shard.experts.size; ++rank) {
    const GroupPlace tp = {.rank = rank % shard.tp.size, .size = shard.tp.size};
    const int64_t rows =
        dp_rows.empty() ? step.rows : dp_rows[static_cast<size_t>(rank / shard.tp.size)];
    begin.push_back(begin.back() + RowsOfChunk(rows, tp, chunks, chunk).count);
  }
  return begin;
}

// What this rank has of what all experts give for `rows`, which every rank of the group has, with
// their slots and weights: its columns, or its part of the sum.
void RunCutExperts(Step& step, MoeShared& shared, const MoeLayer& layer, Mat rows,
                   const kernels::GroupBySlotArgs& groups, std::span<const float> weights,
                   SharedExpert& shared_expert, Mat mine, PartTimer& timer) {
  const MoeConfig& config = shared.config;
  const moe::DispatchedRows work = shared.exchange->Dispatch(step.ctx,
                                                             {.rows = rows,
                                                              .slots = groups.slots,
                                                              .weights = weights,
                                                              .k = config.top_k,
                                                              .num_slots = shared.num_slots,
                                                              .groups = groups},
                                                             step.arena());
  timer.Next(&PartTimes::experts);
  const ExpertRows buffers(step.arena(), work.max_places, step.act, shared.experts.inner.columns(),
                           mine.cols);
  RunExperts(step, shared, layer, work, buffers);
  moe::CombineArgs combine;
  combine.expert_rows = buffers.out;
  combine.weighted = !ScalesInput(config);
  combine.shared = shared_expert.Take();
  combine.out = mine;
  timer.Next(&PartTimes::combine);
  if (mine.cols > 0) shared.exchange->Combine(step.ctx, combine);
}

// On a GPU, where a collective costs more than routing: the ranks of one TP group have the same
// rows, so each routes all of them. (Shards that sum are for GPUs, wherever tests run them.)
bool RoutesAllRows(const Step& step, const Shard& shard) {
  return shard.data_parallel_size() == 1 && (shard.sums || !step.ctx.backend->on_host);
}

void RunCutRows(Step& step, MoeShared& shared, const MoeLayer& layer, const RowRange& range,
                PartTimer& timer) {
  const ArenaScope scope(step.arena());
  Routed routed(step.arena(), range.count, shared.config);
  TakeGroups(step.arena(), shared, routed);
  // One of them counts.
  const std::span<int64_t> counts = shared.counts;
  if (shared.shard.tp.rank > 0) {
    const auto size = static_cast<int64_t>(counts.size());
    shared.counts = {step.arena().Alloc<int64_t>(size), counts.size()};
  }
  const Split& outer = shared.experts.outer;
  const Mat rows = step.normed.Rows(range.begin, range.count);
  const Mat out = step.delta.Rows(range.begin, range.count);
  const Mat mine = outer.Mine(out);
  SharedExpert shared_expert(step, shared, layer, rows, mine.cols);
  Route(step, shared, layer, range, routed);
  shared.counts = counts;
  RunCutExperts(step, shared, layer, rows, routed.groups, routed.weights, shared_expert, mine,
                timer);
  outer.Complete(out);
  timer.Next(&PartTimes::experts);
}

// Experts that are cut: every rank runs its columns of all of them for all ranks' rows. Each rank
// routes its own rows: what they were routed by (forced routing: tokens) is nowhere else.
void RunCutChunk(Step& step, MoeShared& shared, const MoeLayer& layer, int64_t chunks,
                 int64_t chunk, PartTimer& timer) {
  const ArenaScope scope(step.arena());
  const MoeConfig& config = shared.config;
  const Shard& shard = shared.shard;
  comm::Communicator& comm = *shard.experts.comm;
  const std::vector<int64_t> row_begin = GatheredBegin(step, shard, chunks, chunk);
  const int64_t num_rows = row_begin.back();
  const int64_t k = config.top_k;
  const RowRange mine = RowsOfChunk(step.rows, shard.tp, chunks, chunk);
  Routed routed(step.arena(), mine.count, config);
  Route(step, shared, layer, mine, routed);
  timer.Next(&PartTimes::dispatch);
  const GatheredRows all(step.arena(), num_rows, step.act, step.normed.cols, k);
  comm.AllGatherRows(step.normed.Rows(mine.begin, mine.count), all.rows, row_begin);
  comm.AllGatherRows(Mat(routed.slots.data(), DType::kI32, mine.count, k), all.slots, row_begin);
  comm.AllGatherRows(Mat(routed.weights.data(), DType::kF32, mine.count, k), all.weights,
                     row_begin);
  const size_t num_pairs = Routed::Pairs(num_rows, config);
  // After a failure nothing came: no pair has a slot then. (On a device it is so by itself.)
  if (step.ctx.backend->on_host && !comm.status()) {
    std::fill_n(all.slots.Row<int32_t>(0), num_pairs, -1);
  }
  const Split& outer = shared.experts.outer;
  kernels::GroupBySlotArgs ungrouped;
  ungrouped.slots = {all.slots.Row<int32_t>(0), num_pairs};
  const Mat own_columns = outer.Mine(all.out);
  SharedExpert shared_expert(step, shared, layer, all.rows, own_columns.cols);
  RunCutExperts(step, shared, layer, all.rows, ungrouped, {all.weights.Row<float>(0), num_pairs},
                shared_expert, own_columns, timer);
  if (outer.adds != nullptr && shard.tp.size == 1) {
    outer.adds->ReduceScatter(all.out, step.delta.Rows(mine.begin, mine.count), row_begin);
    timer.Next(&PartTimes::experts);
    return;
  }
  outer.Complete(all.out);
  // The rows of this data-parallel rank are on each of its TP ranks.
  const auto first = static_cast<size_t>(shard.experts.rank - shard.tp.rank);
  for (int peer = 0; peer < shard.tp.size; ++peer) {
    const RowRange theirs =
        RowsOfChunk(step.rows, {.rank = peer, .size = shard.tp.size}, chunks, chunk);
    const int64_t begin = row_begin[first + static_cast<size_t>(peer)];
    kernels::CopyRows(step.ctx, {.from = all.out.Rows(begin, theirs.count),
                                 .to = step.delta.Rows(theirs.begin, theirs.count)});
  }
  timer.Next(&PartTimes::experts);
}

}  // namespace

int64_t NumMoeChunks(const MoeShared& shared, int64_t rows) {
  const int64_t of_rank = CeilDiv(rows, shared.shard.tp.size);
  return std::max<int64_t>(1, CeilDiv(of_rank, MostMoeRows(shared.config, shared.shard)));
}

void RunMoe(Step& step, MoeShared& shared, const MoeLayer& layer) {
  PartTimer timer(step.batch.times, &PartTimes::experts);
  const std::span<const int64_t> dp_rows = step.batch.dp_rows;
  const int64_t most = dp_rows.empty() ? step.rows : std::ranges::max(dp_rows);
  const int64_t chunks =
      step.batch.moe_chunks > 0 ? step.batch.moe_chunks : NumMoeChunks(shared, most);
  const GroupPlace& tp = shared.shard.tp;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    if (shared.shard.cut_experts && RoutesAllRows(step, shared.shard)) {
      RunCutRows(step, shared, layer, PieceOf(step.rows, chunks, chunk), timer);
    } else if (shared.shard.cut_experts) {
      RunCutChunk(step, shared, layer, chunks, chunk, timer);
    } else {
      const int64_t of_rank = CeilDiv(most, tp.size);
      RunChunk(step, shared, layer, RowsOfChunk(step.rows, tp, chunks, chunk),
               CeilDiv(of_rank, chunks), timer);
    }
  }
  if (tp.size > 1 && !shared.shard.cut_experts) {
    timer.Next(&PartTimes::combine);
    const RowRange mine = PieceOf(step.rows, tp.size, tp.rank);
    tp.comm->AllGatherRows(step.delta.Rows(mine.begin, mine.count), step.delta,
                           comm::SplitEvenly(step.rows, tp.size));
  }
  step.normed_by = NormOfCombine(step, shared);
  step.has_delta = step.normed_by == nullptr;
}

int64_t MoePlaces(const MoeShared& shared, int64_t rows) {
  const int64_t chunk = ChunkRows(shared, rows);
  const int64_t gathered = shared.shard.cut_experts ? chunk * shared.shard.experts.size : chunk;
  return shared.exchange->MaxPlaces(gathered, shared.config.top_k);
}

void ReserveMoe(Arena& arena, int64_t rows, DType act, int64_t hidden_size,
                const MoeShared& shared) {
  const MoeConfig& config = shared.config;
  const bool cut = shared.shard.cut_experts;
  int64_t chunk = ChunkRows(shared, rows);
  Routed(arena, cut ? chunk * shared.shard.tp.size : chunk, config);
  if (cut) {
    arena.Alloc<int64_t>(static_cast<int64_t>(shared.counts.size()));
    chunk *= shared.shard.experts.size;
    GatheredRows(arena, chunk, act, hidden_size, config.top_k);
  }
  if (ScalesBefore(shared)) arena.AllocMat(act, chunk, hidden_size);
  arena.Alloc(shared.exchange->ArenaBytes(chunk, config.top_k, shared.num_slots));
  const int64_t width = shared.experts.outer.count();
  ExpertRows(arena, MoePlaces(shared, rows), act, shared.experts.inner.columns(), width);
  if (config.shared_intermediate_size == 0) return;
  arena.AllocMat(act, chunk, width);
  ReserveMlp(arena, chunk, act, shared.shared_expert.inner.columns());
}

}  // namespace moebius::model
