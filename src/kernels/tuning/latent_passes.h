// Which sequences of a step attend with their latents expanded to each head's keys and values, and
// in which passes. Absorbed, MLA's attention takes 2 x (576 + 512) FLOP a head, query and visible
// position; expanded 2 x (192 + 128), after 2 x 512 x 256 a head and position: worth it for
// prompts' chunks, not for decodes. A pass expands the latents of some sequences into a workspace
// of bounded size, as many heads at a time as fit, and attends. Pure functions of lengths that the
// scheduler knows: what the kernels read is uploaded with the step's inputs. No CUDA here; any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/tuning/attention_form.h"
#include "kernels/tuning/attention_splits.h"

namespace moebius::kernels {

constexpr int64_t kLatentTile = 128;  // of queries, and of positions
// What a pass takes at most of a workspace, and the longest context that is expanded: one head of
// it fits.
constexpr size_t kLatentPassBytes = size_t{384} << 20;
constexpr int64_t kMaxExpandedContext = 196608;

// A context in a pass: its latents, gathered from the cache's blocks, are rows [first_key,
// first_key + context), zeros behind them up to whole tiles. Layout shared with the kernels, as is
// that of the next.
struct LatentSequence {
  int32_t seq = 0;  // row of the block table
  int32_t context = 0;
  int32_t first_key = 0;
};

// Up to kLatentTile query rows of one sequence; the last one sees positions [0, context).
struct LatentTile {
  int32_t row = 0;
  int32_t queries = 0;
  int32_t context = 0;
  int32_t first_key = 0;
};

struct LatentPass {
  int32_t first_sequence = 0;
  int32_t num_sequences = 0;
  int32_t first_tile = 0;
  int32_t num_tiles = 0;
  int32_t num_keys = 0;   // whole tiles
  int32_t num_heads = 0;  // at a time
};

struct LatentPasses {
  std::vector<LatentSequence> sequences;
  std::vector<LatentTile> tiles;  // of a pass: those with most work first
  std::vector<LatentPass> passes;
};

// Whether there are kernels for it. shape.mla is set.
bool FitsExpanded(const AttentionShape& shape);

// Whether a sequence with so many rows in the step takes fewer operations expanded.
bool PaysExpanded(int64_t queries, int64_t context);

struct LatentPassOptions {
  int num_heads = 1;
  int num_sms = 1;                       // each has a head's tile of queries at a time
  size_t most_bytes = kLatentPassBytes;  // of a pass; one head of one sequence is always taken
};

// `expanded`: whole sequences, each within kMaxExpandedContext.
LatentPasses PlanLatentPasses(std::span<const AttentionItem> expanded,
                              const LatentPassOptions& options);

}  // namespace moebius::kernels
