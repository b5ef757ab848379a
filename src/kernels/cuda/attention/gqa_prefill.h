// Grouped-query attention of prompts' chunks on Hopper's tensor cores (wgmma), straight from paged
// caches: tiles of 128 queries of one head (kernels/tuning/gqa_prefill.h says which sequences that
// pays for; all others are gqa.h's). A launch allocates nothing and waits for nothing; arguments
// are device pointers. The device thread of a rank calls it.
//
// Work: 4 x 128 x heads FLOP a query and visible position.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/gqa.h"

namespace moebius::kernels::cuda {

struct GqaPrefillArgs {
  // bfloat16, heads of 128; q, caches and strides aligned to 16 bytes; block_size a power of two,
  // 16 at least.
  GqaShape shape;
  int64_t num_rows = 0;                  // of q
  int64_t cache_rows = 0;                // of both caches, whole blocks
  const AttentionItem* tiles = nullptr;  // up to 128 queries each, those with most work first
  int num_tiles = 0;
  int64_t num_keys = 0;     // of all contexts together
  int32_t* next = nullptr;  // zero before the launch, and after it
  int num_sms = 1;
};
// 0, or the cudaError_t: cudaErrorInvalidValue for a shape it does not take. Rows of no tile stay
// as they are.
int LaunchGqaPrefill(const GqaPrefillArgs& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
