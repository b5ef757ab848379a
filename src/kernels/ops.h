// The operations: everything a forward pass computes. Each function here checks its arguments once
// and calls the back end's kernel, which assumes them. Operations allocate nothing outside the
// context's workspace and wait for nothing but their own tasks. Call from the device thread only.
//
// T = rows (tokens) of the step, H = hidden size. Activations are float32 or bfloat16 ("act" below:
// all act arguments of one call have one dtype); accumulation is float32. Row invariance: a row's
// bits depend only on its own inputs, never on T, on the other rows or on how work was split.
// (That is the CPU's promise; a GPU's products may choose their order of sums by T.)
//
// On a back end whose memory the host cannot read, every pointer and span of the arguments is in
// that memory, except where a comment says host; calls queue work on the context's stream and
// return, and what they would check by reading is left unchecked.
#pragma once

#include <cstdint>
#include <span>
#include <utility>

#include "base/ids.h"
#include "kernels/tuning/attention_splits.h"
#include "kernels/weight.h"
#include "platform/thread_pool.h"
#include "tensor/arena.h"
#include "tensor/view.h"

namespace moebius::kernels {

struct Backend;

namespace cuda {
struct DeviceContext;    // kernels/cuda/ops/device_context.h
struct StagedAttention;  // kernels/cuda/ops/staged.h
struct StagedSample;
}  // namespace cuda

// Where operations run. One a rank; owned by its device thread.
struct ExecContext {
  const Backend* backend = nullptr;
  platform::ThreadPool* pool = nullptr;
  Arena* workspace = nullptr;  // scratch inside one operation; given back before it returns
  cuda::DeviceContext* device = nullptr;  // of a GPU: its stream and its first error
  // Another of the rank, whose operations may run at the same time as these; null: there is none.
  ExecContext* beside = nullptr;
};

// Between these two, what *ctx.beside is given runs beside what ctx is given: after all that ctx
// was given before the first, and before all that it is given after the second.
void BeginBeside(ExecContext& ctx);
void EndBeside(ExecContext& ctx);

// How much of the workspace one operation takes at most, whatever its number of rows, when
// arguments stay within these limits. head_dim and v_head_dim: the widest query and value head that
// attention sees (MLA: latent_dim + rope_dim and latent_dim). num_slots: also the experts of the
// router. vocab: 0 without Sample.
struct OpLimits {
  int num_threads = 1;
  int64_t num_slots = 0;
  int64_t head_dim = 0;
  int64_t v_head_dim = 0;
  int64_t vocab = 0;
  // What back ends that work on all rows at once also need to know.
  DType act = DType::kF32;
  int64_t rows = 0;    // of a dense product
  int64_t inputs = 0;  // its widest input, and the widest output of a gated one
  int64_t gated_width = 0;
  int64_t places = 0;         // rows of a grouped product ...
  int64_t expert_inputs = 0;  // ... their width, and the width of the gated products' outputs
  int64_t expert_width = 0;
  bool expands_latents = false;  // MlaPrefill is called
};
// Of the CPU back ends; Backend::workspace_bytes asks the right one.
size_t OpWorkspaceBytes(const OpLimits& limits);

// out[t] = table[tokens[t]] (converted). Tokens must be < table.rows.
struct EmbedArgs {
  std::span<const TokenId> tokens;
  Mat table;  // [vocab, H] float32, bfloat16 or float16
  Mat out;    // [T, H] float32 or bfloat16
};
void Embed(ExecContext& ctx, const EmbedArgs& args);

// With a residual: residual += x first, and what is normalised is the sum. out = v / sqrt(mean(v^2)
// + eps) * weight, in groups of `group` columns (0: the whole row; head_dim: per head), weight of
// that length (null data: no weight).
struct RmsNormArgs {
  Mat x;  // [T, C] float32 or bfloat16; data may be null with a residual: normalise the residual
          // alone
  Mat residual;  // [T, C] float32, updated; data null: none
  Mat weight;    // [1, group or C] float32
  float eps = 1e-6f;
  int64_t group = 0;
  Mat out;  // [T, C] float32 or bfloat16; may be x
};
void RmsNorm(ExecContext& ctx, const RmsNormArgs& args);

// x (residual stream, float32) += y (act), rows [T, C]. Where no norm follows at once.
struct AddArgs {
  Mat x;
  Mat y;
};
void Add(ExecContext& ctx, const AddArgs& args);

// to = from, of one dtype and shape; with a scale, float32 or bfloat16 rows times that.
struct CopyRowsArgs {
  Mat from;
  Mat to;
  std::span<const float> scale = {};  // by row; empty: as they are
};
void CopyRows(ExecContext& ctx, const CopyRowsArgs& args);
void CopyRowsOnHost(ExecContext& ctx, const CopyRowsArgs& args);

// Rotates `dim` columns from `offset` in each of `num_heads` heads of width `head_stride`, in
// place or into `out`, by the angles of the row's position: table row p holds cos (dim / 2 values)
// then sin. Interleaved: pairs (2i, 2i + 1); else (i, i + dim / 2). The interleaved form with
// `deinterleave` writes its results in the second order (as transformers' DeepSeek does; scores are
// the same either way as long as q and k agree). dim is at most kMaxRopeDim.
constexpr int64_t kMaxRopeDim = 1024;
struct RopeArgs {
  Mat x;  // [T, >= num_heads * head_stride] act
  int64_t num_heads = 1;
  int64_t head_stride = 0;
  int64_t offset = 0;
  int64_t dim = 0;
  bool interleaved = false;
  bool deinterleave = false;
  std::span<const Position> positions;  // T
  Mat table;                            // [max_position, dim] float32
  // [T, ..] act, rotated columns of head h from h * out_head_stride + out_offset on; data null: in
  // place.
  Mat out = {};
  int64_t out_head_stride = 0;
  int64_t out_offset = 0;
};
void Rope(ExecContext& ctx, const RopeArgs& args);

// out = a w^T (+ bias) (+ out, with accumulate and a float32 out). a [T, K] act; w [N, K] not
// gated; out [T, N] float32 or bfloat16; bias [1, N] float32 or null.
struct GemmArgs {
  Mat a;
  const PackedWeight* w = nullptr;
  Mat bias;
  Mat out;
  bool accumulate = false;
};
void Gemm(ExecContext& ctx, const GemmArgs& args);

// One matrix a head: out[:, h] = a[:, h] w[h]^T for `weights.size()` heads: a [T, heads *
// a_head_stride], head h at column h * a_head_stride, K wide; out likewise. (MLA's absorbed
// projections.)
struct HeadGemmArgs {
  Mat a;
  int64_t a_head_stride = 0;
  std::span<const PackedWeight> weights;  // host
  Mat out;
  int64_t out_head_stride = 0;
};
void HeadGemm(ExecContext& ctx, const HeadGemmArgs& args);

// out = silu(a gate^T) * (a up^T): the first half of a dense or shared-expert MLP. w gated; out [T,
// w.n] act.
struct SwiGluArgs {
  Mat a;
  const PackedWeight* w = nullptr;
  Mat out;
};
void SwiGlu(ExecContext& ctx, const SwiGluArgs& args);

// Both halves of such an MLP: first, then out = first.out down^T. first.out is undefined
// afterwards.
struct MlpArgs {
  SwiGluArgs first;
  const PackedWeight* down = nullptr;
  Mat out;  // [T, down.n] act
};
void Mlp(ExecContext& ctx, const MlpArgs& args);
// The same by the operations that it is made of, one after the other; so for the others below.
void MlpInSteps(ExecContext& ctx, const MlpArgs& args);

// Logits whose k best are a draw of k experts without replacement (the Gumbel-top-k trick: Kool et
// al., 2019): logits[t, e] = log_probabilities[e] + noise of (layer, token, position, e) alone
// (kernels/random.h), so that a token's choice does not depend on its batch. For benchmarks.
struct DrawLogitsArgs {
  std::span<const TokenId> tokens;           // T
  std::span<const Position> positions;       // T
  std::span<const float> log_probabilities;  // E
  int layer = 0;
  Mat logits;  // [T, E] float32
};
void DrawLogits(ExecContext& ctx, const DrawLogitsArgs& args);
void DrawLogitsOnHost(ExecContext& ctx, const DrawLogitsArgs& args);

// The router's choice from logits [T, E] float32: k experts a row, best first; ties go to the
// lowest id.
enum class RouterScore : uint8_t {
  kSoftmax,       // scores = softmax over all E (Qwen, DeepSeek-V2); with `normalize` also Mixtral
  kSigmoid,       // scores = sigmoid (DeepSeek-V3)
  kSigmoidOnTop,  // choose by logit, weight = sigmoid(logit) (Llama 4)
};
enum class GroupScore : uint8_t { kNone, kMax /* DeepSeek-V2 */, kTop2Sum /* DeepSeek-V3 */ };
struct RouteTopKArgs {
  Mat logits;
  RouterScore score = RouterScore::kSoftmax;
  Mat bias;  // [1, E] float32 added to scores for the choice only (e_score_correction_bias); null:
             // none
  GroupScore group_score = GroupScore::kNone;
  int num_groups = 1;      // E must divide
  int num_top_groups = 1;  // experts outside the best groups cannot be chosen
  int k = 1;
  bool normalize = false;      // weights divided by their sum (+ 1e-20 for sigmoid)
  float scale = 1.0f;          // routed_scaling_factor, applied last
  std::span<int32_t> experts;  // out [T, k]
  std::span<float> weights;    // out [T, k]
};
void RouteTopK(ExecContext& ctx, const RouteTopKArgs& args);

// Experts of which several slots hold a copy. Slot s is of rank s / slots_per_rank.
struct ReplicaTable {
  std::span<const int32_t> begin;  // [E + 1]: those of expert e are slots[begin[e] .. begin[e + 1])
  std::span<const int32_t> slots;  // [begin[E]] or more
  int32_t slots_per_rank = 1;
  int32_t home = 0;  // the rank that the tokens are on; negative: none is preferred

  bool empty() const { return begin.empty(); }
};

// How a layer's experts are found in slots, and where they are counted.
struct SlotChoice {
  std::span<const int32_t> first_slot;  // [E]: the slot that serves an expert
  std::span<int64_t> counts;            // [E], added to; empty: nobody counts
  // [E], added to for rows from num_decodes on, which are prompts'; empty: they are not told apart.
  std::span<int64_t> prompt_counts;
  int64_t num_decodes = 0;
  // Instead of first_slot. With it the rows' positions, for the hash.
  ReplicaTable replicas;
  std::span<const Position> positions;  // [T]
};

// The slot that serves each (token, choice) pair: slots[p] = first_slot[experts[p]], and one more
// in counts[experts[p]]. A row whose token is negative (padding of a batch) gets slot -1 and does
// not count. Of several copies: the one on the token's own rank; else one on a rank that the token
// visits anyway; else by the hash of the token and its position, all copies alike. So the choice
// depends on the row, its rank and the table alone.
struct ChooseSlotsArgs {
  std::span<const int32_t> experts;  // [T * k]
  std::span<const TokenId> tokens;   // [T]
  int64_t k = 1;
  SlotChoice choice;
  std::span<int32_t> slots;  // out [T * k]
};
void ChooseSlots(ExecContext& ctx, const ChooseSlotsArgs& args);

// RouteTopK, then ChooseSlots of what it chose.
struct RouteToSlotsArgs {
  RouteTopKArgs route;
  std::span<const TokenId> tokens;  // [T]
  SlotChoice choice;
  std::span<int32_t> slots;  // out [T * k]
};
void RouteToSlots(ExecContext& ctx, const RouteToSlotsArgs& args);
void RouteToSlotsInSteps(ExecContext& ctx, const RouteToSlotsArgs& args);

// Groups the T * k (token, choice) pairs by slot, stably: pair p = t * k + j of slot s gets a place
// in [offsets[s], offsets[s + 1]). pairs[place] = p; places[p] = place. A negative slot is skipped
// (places[p] = -1).
struct GroupBySlotArgs {
  std::span<const int32_t> slots;  // [T * k]
  int64_t num_slots = 0;
  std::span<int32_t> offsets;  // out [num_slots + 1]
  std::span<int32_t> pairs;    // out [T * k]
  std::span<int32_t> places;   // out [T * k]
};
void GroupBySlot(ExecContext& ctx, const GroupBySlotArgs& args);

// RouteToSlots, then GroupBySlot of the slots that it gives: group.slots are route.slots. Experts
// of a row lie in slots of their own, as a placement has them.
struct RouteToPlacesArgs {
  RouteToSlotsArgs route;
  GroupBySlotArgs group;
};
void RouteToPlaces(ExecContext& ctx, const RouteToPlacesArgs& args);
void RouteToPlacesInSteps(ExecContext& ctx, const RouteToPlacesArgs& args);

// The first expert GEMM, for all slots in one list of tasks: out[p] = silu(a_r gate_s^T) * (a_r
// up_s^T), with r = the row of place p: pairs[p] / rows_per_pair (pairs empty: r = p). row_scale
// (by pair, or empty) multiplies the input row first (Llama 4). Places beyond offsets[num_slots]
// are not written. Rows may come in fp8 with a scale for each 128 columns, where the operation
// would make just that of them (cuda::QuantizesExpertRows), and by place: without pairs.
struct GroupedSwiGluArgs {
  Mat a;              // [T, K] act, or fp8
  Mat a_scales = {};  // of fp8: [K / 128, T] float32, with a stride of whole fours; data null: act
  std::span<const int32_t> offsets;       // [S + 1]
  std::span<const int32_t> pairs;         // by place
  int64_t rows_per_pair = 1;              // k
  std::span<const int32_t> places = {};   // by pair, beside pairs, as GroupBySlotArgs; or empty
  std::span<const float> row_scale;       // by pair
  std::span<const PackedWeight> weights;  // host [S]: gated, one format and shape
  Mat out;                                // [T * k, I] act
  // Host: how many of out's rows are probably places, where it is far from all; 0: all. Only speed
  // depends on it.
  int64_t likely_places = 0;
};
void GroupedSwiGlu(ExecContext& ctx, const GroupedSwiGluArgs& args);

// The second: out[p] = a[p] w_s^T for the places of each slot.
struct GroupedGemmArgs {
  Mat a;                                  // [places, K] act
  std::span<const int32_t> offsets;       // [S + 1]
  std::span<const PackedWeight> weights;  // host [S]
  Mat out;                                // [places, N] act
  int64_t likely_places = 0;              // as above
};
void GroupedGemm(ExecContext& ctx, const GroupedGemmArgs& args);

// Both, one after the other: first.out is undefined afterwards.
struct GroupedMlpArgs {
  GroupedSwiGluArgs first;
  std::span<const PackedWeight> down;  // host [S]
  Mat out;                             // [places, N] act
};
void GroupedMlp(ExecContext& ctx, const GroupedMlpArgs& args);
void GroupedMlpInSteps(ExecContext& ctx, const GroupedMlpArgs& args);

// out[t] = sum over j in order of weights[t, j] * rows[places[t * k + j]] (+ shared[t] last),
// float32 sums, rounded once. A negative place adds nothing. weights empty: all 1. A GPU reads
// places and weights early: another operation (the rows' own) comes between what wrote them and
// this one.
struct WeightedReduceArgs {
  Mat rows;                         // [places, H] act
  std::span<const int32_t> places;  // [T * k]
  std::span<const float> weights;   // [T * k]
  int64_t k = 1;
  Mat shared;  // [T, H] act or null
  Mat out;     // [T, H] act
};
void WeightedReduce(ExecContext& ctx, const WeightedReduceArgs& args);

// Both, one after the other; norm.x is sum.out, and undefined afterwards.
struct ReduceAndNormArgs {
  WeightedReduceArgs sum;
  RmsNormArgs norm;
};
void ReduceAndNorm(ExecContext& ctx, const ReduceAndNormArgs& args);
void ReduceAndNormInSteps(ExecContext& ctx, const ReduceAndNormArgs& args);

// KV rows live in paged caches: a cache is a Mat [num_blocks * block_size, width]; block b holds
// rows [b * block_size, (b + 1) * block_size). cache[rows[t]] = x[t] (converted to the cache's
// dtype); a negative row is skipped. MLA's cache may be fp8, [rows, LatentRow::bytes()]
// (kernels/latent_row.h); GPUs write that one in PrepareLatents alone.
struct KvWriteArgs {
  Mat x;                          // [T, width] act
  std::span<const int64_t> rows;  // T
  Mat cache;
  int64_t latent_dim = 0;  // of an fp8 cache: the columns of x that become e4m3
};
void KvWrite(ExecContext& ctx, const KvWriteArgs& args);

// What grouped-query attention does to its projected rows: RmsNorm of query and key heads (without
// weights: none), Rope of the whole heads, KvWrite of keys and values. qkv holds queries, keys and
// values; the queries are ready in place afterwards, the columns of the others undefined.
struct PrepareHeadsArgs {
  Mat qkv;  // [T, (num_heads + 2 num_kv_heads) * head_dim] act
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  Mat q_norm;  // [1, head_dim] float32; both null: no norm
  Mat k_norm;
  float eps = 1e-6f;
  bool interleaved = false;
  std::span<const Position> positions;  // T
  Mat table;                            // [max_position, head_dim] float32, as for Rope
  std::span<const int64_t> rows;        // T, of the caches
  Mat k_cache;                          // [cache rows, num_kv_heads * head_dim]
  Mat v_cache;
};
void PrepareHeads(ExecContext& ctx, const PrepareHeadsArgs& args);
void PrepareHeadsInSteps(ExecContext& ctx, const PrepareHeadsArgs& args);

// What latent attention does to its projected key rows, [latent | rope part]: RmsNorm of the
// latent, Rope of the rest, KvWrite of both; x is undefined afterwards. And RmsNorm of low-rank
// queries, in place.
struct PrepareLatentsArgs {
  Mat x;  // [T, latent_dim + rope_dim] act
  int64_t latent_dim = 0;
  Mat norm;  // [1, latent_dim] float32
  float eps = 1e-6f;
  bool interleaved = false;
  std::span<const Position> positions;  // T
  Mat table;                            // [max_position, rope_dim] float32, as for Rope
  std::span<const int64_t> rows;        // T, of the cache
  Mat cache;                            // [cache rows, latent_dim + rope_dim], or fp8
  Mat q = {};                           // [T, Q] act, none of it x; data null: none
  Mat q_norm = {};                      // [1, Q] float32
  float q_eps = 1e-6f;
};
void PrepareLatents(ExecContext& ctx, const PrepareLatentsArgs& args);
void PrepareLatentsInSteps(ExecContext& ctx, const PrepareLatentsArgs& args);

// The ragged batch that attention sees. Sequence s owns query rows [query_start[s], query_start[s +
// 1]); its context (cached rows, this step's included) is context_len[s]; query i sits at position
// context_len[s] - (number of its queries) + i and sees positions <= its own.
struct AttentionBatch {
  std::span<const int32_t> query_start;  // [S + 1]
  std::span<const int32_t> context_len;  // [S]
  std::span<const int32_t> block_table;  // [S, max_blocks], row-major
  int64_t max_blocks = 0;
  int64_t block_size = 16;
  const cuda::StagedAttention* staged = nullptr;  // host: what a GPU reads instead of the spans
  // Host: whole sequences, in the order of their rows, whose rows are MlaPrefill's and not
  // MlaAttention's (kernels/tuning/latent_passes.h). Only for back ends that have it.
  std::span<const AttentionItem> expanded = {};

  int64_t num_seqs() const { return static_cast<int64_t>(context_len.size()); }
};

// Grouped-query attention. Query head h reads kv head h / (num_heads / num_kv_heads). On GPUs the
// launch before it may still run while cached positions are read that are older than a sequence's
// rows of the step: no operation of the step may write those.
struct AttentionArgs {
  AttentionBatch batch;
  Mat q;        // [T, num_heads * head_dim] act
  Mat k_cache;  // [rows, num_kv_heads * head_dim] float32 or bfloat16
  Mat v_cache;  // [rows, num_kv_heads * v_head_dim]
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t v_head_dim = 0;
  float scale = 1.0f;
  int64_t window = 0;  // > 0: position p sees (p - window, p]
  int64_t chunk = 0;   // > 0: position p sees [p / chunk * chunk, p] (Llama 4)
  Mat out;             // [T, num_heads * v_head_dim] act
};
void Attention(ExecContext& ctx, const AttentionArgs& args);

// Multi-head latent attention, absorbed: scores = q_latent . c + q_rope . r over cache rows [c |
// r]; out = sum p c.
struct MlaAttentionArgs {
  AttentionBatch batch;
  Mat q;      // [T, num_heads * (latent_dim + rope_dim)] act: each head latent part, then rope part
  Mat cache;  // [rows, latent_dim + rope_dim] float32 or bfloat16; or fp8, rows as in LatentRow
  int64_t num_heads = 0;
  int64_t latent_dim = 0;
  int64_t rope_dim = 0;
  float scale = 1.0f;
  Mat out;  // [T, num_heads * latent_dim] act
};
void MlaAttention(ExecContext& ctx, const MlaAttentionArgs& args);

// The same attention for rows of prompts, the latents of batch.expanded's contexts expanded to each
// head's keys and values: scores = q_n . (c W_uk) + q_r . r; out = sum p (W_uv c). Other rows
// of out stay as they are. Optional: a back end may lack it.
struct MlaPrefillArgs {
  AttentionBatch batch;
  Mat q;      // [T, num_heads * (nope + rope_dim)] act, the latter rotated
  Mat cache;  // [rows, latent_dim + rope_dim], as above
  int64_t rope_dim = 0;
  std::span<const PackedWeight> w_uk;  // host, by head: [latent_dim, nope]
  std::span<const PackedWeight> w_uv;  // host, by head: [value, latent_dim]
  float scale = 1.0f;
  Mat out;  // [T, num_heads * value] act
};
void MlaPrefill(ExecContext& ctx, const MlaPrefillArgs& args);

constexpr float kGreedyTemperature = 1e-5f;

// One row's wishes. Applied in this order: bias, penalties, what is forbidden, temperature, top-k,
// top-p, min-p, draw. Token counts: ids seen in prompt or output (repetition) and in the output
// alone (presence, frequency).
struct SampleRow {
  float temperature = 1.0f;  // below kGreedyTemperature: greedy (ties to the lowest id)
  int32_t top_k = 0;         // 0: all
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  uint64_t seed = 0;     // the draw is a hash of (seed, position): alone or in a batch, the same
  int64_t position = 0;  // of the token to be drawn
  TokenId given = -1;    // >= 0: nothing is drawn, this is the token; only its log probability and
                         // the best ones are wanted, and the other wishes count for nothing
  std::span<const std::pair<TokenId, float>> logit_bias;  // added to the logits, in order
  std::span<const TokenId> seen_tokens;                   // distinct ids of prompt and output
  std::span<const TokenId> output_tokens;                 // distinct ids of the output ...
  std::span<const int32_t> output_counts;                 // ... and how often each came
  std::span<const TokenId> banned_tokens;                 // never drawn (min_tokens, a constraint)
  std::span<const uint32_t> allowed_mask;  // bit per token, empty: all (TokenConstraint)
  int32_t num_logprobs =
      -1;  // -1: none; n >= 0: the chosen token's and the n best (of the raw logits)
};
struct SampleResult {
  TokenId token = -1;  // stays -1 when no token may be drawn (all banned, or NaN)
  // With num_logprobs >= 0: the log softmax of the raw logits at `token`, and its place in their
  // order (best first, ties to the lowest id; 1 is the best).
  float logprob = 0.0f;
  int32_t rank = 0;
  std::span<TokenId> top_tokens;  // caller's space, num_logprobs long, best first
  std::span<float> top_logprobs;
};
struct SampleArgs {
  Mat logits;  // [S, vocab] float32; CPUs destroy them
  std::span<const SampleRow> rows;
  std::span<SampleResult> results;
  const cuda::StagedSample* staged = nullptr;  // host: what a GPU reads instead of the spans
};
void Sample(ExecContext& ctx, const SampleArgs& args);

}  // namespace moebius::kernels
