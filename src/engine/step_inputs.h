// A step's plan as one block of bytes that is copied to a device: rows, block table, who does what
// in attention, and the wishes of its draws. Everything here is host logic, without CUDA; the
// runner of a GPU owns the blocks. One thread.
#pragma once

#include <cstdint>
#include <span>

#include "engine/step_plan.h"
#include "kernels/cuda/rows/sample.h"
#include "kernels/tuning/attention_form.h"
#include "kernels/tuning/attention_splits.h"
#include "kernels/tuning/gqa_prefill.h"
#include "kernels/tuning/latent_passes.h"
#include "tensor/arena.h"

namespace moebius::engine {

// What attention is dealt to.
struct AttentionWorkers {
  kernels::AttentionForm form = kernels::AttentionForm::kAny;
  kernels::AttentionShape shape;
  int num_sms = 1;
  bool whole_rows = false;  // no row is cut: its bits depend on nothing but itself
  // Prompts' chunks attend in their own way where that pays:
  bool expands_latents = false;  // latent_passes.h
  bool tiles_prompts = false;    // gqa_prefill.h

  int MaxQueries(bool decode) const;  // of an item
  int Count(bool decode) const;       // workers of a launch
  // Bytes that the pieces' partial results take at most.
  size_t PartialBytes() const;
  // Numbers in which blocks count whose pieces are summed in place, at most.
  int64_t NumArrivals() const;
};

// How long each list of a block is.
struct StepSizes {
  int64_t rows = 0;
  int64_t seqs = 0;
  int64_t max_blocks = 0;  // of a row of the block table
  int64_t logit_rows = 0;
  int64_t segments = 0;
  int64_t workers = 0;
  int64_t combine = 0;
  int64_t items = 0;
  int64_t latent_sequences = 0;
  int64_t latent_tiles = 0;
  // Of draws, in a block of their own: a graph over the rows alone does not depend on their lists.
  int64_t samples = 0;
  int64_t bias = 0;
  int64_t seen = 0;
  int64_t output = 0;
  int64_t banned = 0;
  int64_t mask_words = 0;
};

// The lists, taken in one order from two arenas: those of the host and of the device give the same
// places. Both may be one arena: draws then follow the rows.
struct StepInputs {
  StepInputs(Arena& rows, Arena& draws, const StepSizes& sizes);
  struct Bytes {
    size_t rows = 0;
    size_t draws = 0;
  };
  static Bytes NumBytes(const StepSizes& sizes);

  std::span<TokenId> tokens;  // PreviousRow or kPaddingToken where they are negative
  std::span<Position> positions;
  std::span<int64_t> kv_rows;
  std::span<int32_t> logit_rows;
  std::span<int32_t> block_table;
  std::span<kernels::AttentionSegment> segments;
  std::span<int32_t> worker_begin;  // [workers + 1]
  std::span<kernels::AttentionRow> combine;
  std::span<kernels::AttentionItem> items;
  std::span<kernels::LatentSequence> latent_sequences;
  std::span<kernels::LatentTile> latent_tiles;

  std::span<kernels::cuda::DeviceSampleRow> wishes;
  std::span<int32_t> pending;  // kernels::cuda::ResolveLaunch
  std::span<int32_t> bias_tokens;
  std::span<float> bias_values;
  std::span<int32_t> seen_tokens;
  std::span<int32_t> output_tokens;
  std::span<int32_t> output_counts;
  std::span<int32_t> banned_tokens;
  std::span<uint32_t> allowed_masks;
};

// A plan ready to be written: its sizes, and attention's shares. With a bucket (rows >= the plan's)
// rows and draws are padded to it, and sizes but those of the draws' lists depend on it alone.
class StagedPlan {
 public:
  // bucket_rows 0: as many rows as there are. bucket_blocks likewise of the block table's rows.
  StagedPlan(const StepPlan& plan, const AttentionWorkers& workers, int64_t bucket_rows = 0,
             int64_t bucket_blocks = 0);

  const StepSizes& sizes() const { return sizes_; }
  int max_queries() const { return max_queries_; }
  // Sequences that attend expanded, and their passes: of the plan's life.
  std::span<const kernels::AttentionItem> expanded() const { return expanded_; }
  std::span<const kernels::LatentPass> latent_passes() const { return latents_.passes; }
  // Positions of the contexts whose queries attend in tiles.
  int64_t num_tiled_keys() const { return tiled_.num_keys; }
  int64_t num_decodes() const { return plan_.num_decodes(); }
  bool wants_logprobs() const { return wants_logprobs_; }
  // Whether draws have no lists and ask for no log probabilities.
  bool has_plain_draws() const { return has_plain_draws_; }
  // Whether a penalty's list waits for what the step before draws.
  bool has_open_lists() const { return has_open_lists_; }

  // Writes the block; `inputs` are of sizes().
  void Write(const StepInputs& inputs) const;

 private:
  void PlanAttention(const AttentionWorkers& workers, bool bucketed);
  void CountLists();
  void WriteRows(const StepInputs& inputs) const;
  void WriteAttention(const StepInputs& inputs) const;
  void WriteDraws(const StepInputs& inputs) const;

  const StepPlan& plan_;
  StepSizes sizes_;
  int max_queries_ = 1;
  bool wants_logprobs_ = false;
  bool has_open_lists_ = false;
  bool has_plain_draws_ = true;
  kernels::AttentionSplits splits_;
  std::vector<kernels::AttentionItem> items_;
  std::vector<kernels::AttentionItem> expanded_;
  kernels::LatentPasses latents_;
  kernels::GqaPrefillPlan tiled_;
};

// Whether a plan is one that graphs are made for: every sequence has one row, and every row a draw.
bool IsDecode(const StepPlan& plan);

// The bucket of `rows`: powers of two to 8, then steps of 8 to 64, of 32 to 256, of 64 above.
int64_t RowBucket(int64_t rows);
// Rows of a step at most: a plan has max_rows; one that only decodes, of max_seqs sequences at
// most, is padded to its bucket.
int64_t MaxStepRows(int64_t max_rows, int64_t max_seqs);
// Of a block table's row: the next power of two, at least 8.
int64_t BlockBucket(int64_t blocks);

}  // namespace moebius::engine
