// The blocks that decoder layers are made of: weights as plain structs, and functions that run them
// on the rows of a step. Called by the device thread only; scratch comes from the step's arena and
// is given back before a function returns.
//
// The residual stream is float32. A block reads `normed` and writes `delta`; the next AddAndNorm
// adds delta to the stream (one fused pass), so a layer reads: norm, attention, norm, MLP. A block
// that knows what norm is next (Step::next_norm) may do that itself, with its own last pass.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "model/model.h"
#include "model/model_config.h"
#include "model/shard.h"
#include "model/weight_plan.h"
#include "moe/exchange/exchange.h"
#include "moe/expert_stats.h"
#include "moe/placement.h"
#include "moe/slot_table.h"
#include "tensor/arena.h"

namespace moebius::model {

struct Norm {
  Mat weight;  // [1, n] float32
  float eps = 1e-6f;
};

// One pass of layers over T rows, and the buffers that all its blocks share.
struct Step {
  Step(kernels::ExecContext& ctx, const ForwardBatch& batch, DType act, int64_t hidden_size);
  // Takes the same buffers from an arena that only counts.
  static void Reserve(Arena& arena, int64_t rows, DType act, int64_t hidden_size);

  Arena& arena() const { return *ctx.workspace; }

  kernels::ExecContext& ctx;
  const ForwardBatch& batch;
  DType act;
  int64_t rows;
  Mat stream;  // [T, H] float32
  Mat normed;  // [T, H] act
  Mat delta;   // [T, H] act
  bool has_delta = false;
  const Norm* next_norm = nullptr;  // of the AddAndNorm that follows this layer; null: none does
  const Norm* normed_by = nullptr;  // of the one that the last block has done; null: none
};

// stream += delta, if the last block left one; normed = norm(stream). Nothing if that is done.
void AddAndNorm(Step& step, const Norm& norm);
// out = norm(x) a row; weight.data null: without a weight, in groups of `group` columns (0: the
// whole row).
void NormRows(kernels::ExecContext& ctx, Mat x, const Norm& norm, Mat out, int64_t group = 0);

// out = a w^T.
void Project(kernels::ExecContext& ctx, Mat a, const kernels::PackedWeight& weight, Mat out);
void Project(kernels::ExecContext& ctx, Mat a, const Linear& linear, Mat out);

// A weight of which each rank of a group holds some outputs, or some inputs of all.
struct SplitWeight {
  kernels::PackedWeight weight;  // this rank's
  Split split;                   // of the outputs
};
// The same, whole on every rank afterwards. Collective.
void Project(kernels::ExecContext& ctx, Mat a, const SplitWeight& weight, Mat out);

// Where this rank's columns of `all` are computed, to be gathered from there: in `all`, or, as a
// GPU's kernels want rows without gaps, in a matrix of their own that lives with the arena's scope.
Mat OwnColumns(kernels::ExecContext& ctx, const Split& split, Mat all);

// By position; filled once when a model loads.
struct RopeTables {
  Mat rope;         // [max_position, rope_dim] float32: cos, sin
  Mat temperature;  // [max_position, 2]: scale, 0 (Llama 4); data null: queries keep their scale
};

// Grouped-query attention with its projections: this rank's heads.
struct GqaAttention {
  Linear qkv;   // queries, keys, values
  Split heads;  // the columns of the heads that `output` reads
  SplitWeight output;
  Norm q_norm;  // per head, where config.qk_norm says so
  Norm k_norm;
  LayerConfig layer;
};
// config: of this rank's heads.
void RunGqa(Step& step, const AttentionConfig& config, const RopeTables& tables,
            const GqaAttention& attention, const Model::KvLayer& cache);
// head_columns: those that its output reads.
void ReserveGqa(Arena& arena, int64_t rows, DType act, const AttentionConfig& config,
                int64_t head_columns);

struct Mlp {
  SplitWeight gate_up;
  SplitWeight down;
};
// out = down(silu(gate(in)) * up(in)), row by row.
void RunMlp(Step& step, const Mlp& mlp, Mat in, Mat out);
// The same; `mine` is what this rank has of it, and nothing is gathered or added.
void RunMlpSlice(kernels::ExecContext& ctx, const Mlp& mlp, Mat in, Mat mine);
// inner: the columns that its second half reads.
void ReserveMlp(Arena& arena, int64_t rows, DType act, int64_t inner);

// What all MoE layers of a model share.
struct MoeShared {
  MoeConfig config;
  Shard shard;
  int64_t num_slots = 0;  // of all ranks, empty ones too
  moe::Exchange* exchange = nullptr;
  // Where not the router decides: log probabilities [MoE layers, E], in the back end's memory.
  std::span<const float> forced_routing;
  moe::ExpertStats stats;
  // How experts are cut, and the shared one beside them: into columns, or both into parts of a sum.
  SplitPair experts;
  SplitPair shared_expert;
  // In the back end's memory: [2, MoE layers, E], what `stats` counts.
  std::span<int64_t> counts;
};

struct MoeLayer {
  int index = 0;  // among the MoE layers
  moe::Placement placement;
  moe::SlotTable slots;
  // Of `slots`, in the back end's memory.
  std::span<const int32_t> first_slot;  // [E]
  kernels::ReplicaTable replicas;       // empty: no expert has several copies
  kernels::PackedWeight router;
  Mat bias;  // [1, E] float32 for the choice; data null: none
  std::vector<kernels::PackedWeight>
      gate_up;  // by slot of this rank, but for empty ones at the end
  kernels::WeightFormat gate_up_format = kernels::WeightFormat::kF32;  // the same on every rank
  std::vector<kernels::PackedWeight> down;
  std::optional<Mlp> shared;
};
// delta = sum of the chosen experts, weighted, + the shared expert; or, where rows are whole on
// this rank as they are summed, the AddAndNorm that follows is done with that, and no delta left.
// Long prefills run it in chunks of rows, which bounds its buffers. Collective, with 0 rows too.
void RunMoe(Step& step, MoeShared& shared, const MoeLayer& layer);
// Chunks that a step of so many rows takes, of the data-parallel rank that has most.
int64_t NumMoeChunks(const MoeShared& shared, int64_t rows);
// Places that the expert products of a chunk of such a step have at most.
int64_t MoePlaces(const MoeShared& shared, int64_t rows);
void ReserveMoe(Arena& arena, int64_t rows, DType act, int64_t hidden_size,
                const MoeShared& shared);

}  // namespace moebius::model
