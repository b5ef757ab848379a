// Grouped expert GEMM on Hopper: out[r, :] = rows[r, :] * weights[slot(g)]^T for every row r of
// every group g.
//
// Rows of one group are adjacent; where each group begins is read on the device, so the host needs
// no row counts and a captured graph serves every batch. Weights are a pool of slots under one
// tensor map. Plain host functions without CUDA headers: any .cc may include this. A launch
// allocates nothing, waits for nothing, and may be captured in a graph. Callable from the thread
// that owns the stream; the arrays live in that stream's device memory until it has run.
#pragma once

#include <cstdint>

#include "kernels/tuning/grouped_gemm_tiles.h"

struct CUstream_st;

namespace moebius::cuda {

struct GroupedGemmArgs {
  tuning::GemmFormat format;
  const void* rows;            // [capacity, k], e4m3 or bf16, 16-byte aligned
  const float* row_scales;     // fp8: [k / 128, scale_stride]: scale of block b of row r at b *
                               // scale_stride + r
  int64_t scale_stride;        // at least capacity, a multiple of 4
  const void* weights;         // [num_slots * n, k], e4m3 or bf16, 16-byte aligned
  const float* weight_scales;  // fp8: [num_slots, n / 128, k / 128]
  void* out;  // [capacity, n] bf16, 16-byte aligned; rows outside every group stay as they are
  const int32_t* offsets;  // device: [num_groups + 1], not decreasing; group g has rows offsets[g]
                           // .. offsets[g + 1]; null: one group, of all `capacity` rows
  const int32_t* slots;    // device: [num_groups] slot of each group, or null for slot g
  int64_t capacity;        // rows that `rows` and `out` have room for
  int num_groups;
  int num_slots;
  int n;          // a multiple of 128
  int k;          // a multiple of 128
  int32_t* next;  // device: zero, and zero again after the launch: clusters of blocks ask it for
                  // their next tile, one launch at a time; null: each takes every n-th
  // Of tiles in parts, on the device: tuning::PartialFloats, and PartCounters that are zero, and
  // zero again after the launch; one launch at a time.
  float* partials = nullptr;
  int32_t* arrivals = nullptr;
};

// Launches on `stream` with `config` (tuning::ChooseGroupedGemm). Returns null, or a text that
// lives forever and says what was wrong with the arguments or what CUDA answered.
const char* LaunchGroupedGemm(const GroupedGemmArgs& args, const tuning::GroupedGemmConfig& config,
                              CUstream_st* stream);

}  // namespace moebius::cuda
