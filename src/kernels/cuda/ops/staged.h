// What operations on a GPU read of arguments that the CPU's have as host lists: made by the host
// from a step's plan (engine/cuda/step_inputs.h) and copied to the device before the step. Pointers
// are the device's. Plain values.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cuda/rows/sample.h"
#include "kernels/tuning/attention_splits.h"
#include "kernels/tuning/latent_passes.h"

namespace moebius::kernels::cuda {

// A step's attention, one for all its layers.
struct StagedAttention {
  const int32_t* block_table = nullptr;  // [seqs, max_blocks]
  int64_t max_blocks = 0;
  int block_size = 16;

  // For the tensor cores' kernels (AttentionForm kGqa and kMla): who does what.
  int max_queries = 1;  // of an item
  const AttentionSegment* segments = nullptr;
  int64_t num_segments = 0;
  const int32_t* worker_begin = nullptr;
  int num_workers = 0;
  const AttentionRow* combine = nullptr;  // kMla alone
  int64_t num_combine = 0;
  void* partials = nullptr;  // of pieces that are summed afterwards
  int64_t max_slots = 0;
  int32_t* arrivals = nullptr;  // kGqa: of blocks that wrote a piece, zero between launches

  // Of MlaPrefill: what AttentionBatch::expanded has, in passes.
  const LatentSequence* sequences = nullptr;
  const LatentTile* tiles = nullptr;
  std::span<const LatentPass> passes = {};  // host

  // For the kernel of any shape (kAny): one query each. With kGqa: tiles of prompts' chunks
  // (gqa_prefill.h), whose rows have no segments.
  const AttentionItem* items = nullptr;
  int64_t num_items = 0;
  int64_t num_tiled_keys = 0;  // positions of the contexts that tiles see
};

// A step's draws. What a row's lists hold beyond the plan's knowledge - the token that the step
// before drew - is added on the device.
struct StagedSample {
  SampleLaunch launch;  // but for logits, their stride and the vocabulary
};

}  // namespace moebius::kernels::cuda
