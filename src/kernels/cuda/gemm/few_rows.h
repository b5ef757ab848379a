// Products of a few rows, where reading the weights is all the work: all of the GPU's memory at
// work at once, weights straight into registers and the tensor cores (gemm/weight_tile.cuh). A
// launch allocates nothing, waits for nothing and may be captured in a graph; each returns 0 or its
// cudaError_t. The device thread of a rank calls them.
#pragma once

#include "kernels/cuda/rows/rows.h"
#include "kernels/tuning/few_rows.h"

namespace moebius::kernels::cuda {

using tuning::kMaxFewPlaces;
using tuning::kMaxFewRows;

// out[b] = a[b] w[b]^T for each b of a batch, sums in float32; a bfloat16, w bfloat16 or e4m3 (a is
// quantised first then, as gemm/quantize.h says), out float32 or bfloat16. gated: w has n rows for
// the gate, then n for up, and out = silu(a gate^T) * (a up^T). Strides in elements. The first
// weights are read before earlier launches of the stream are done: none of them writes weights
// (those of experts are written by copies, which all launches wait for).
struct FewRowsLaunch {
  DeviceRows a;  // [rows, k]
  int64_t a_batch = 0;
  const void* w = nullptr;  // [n or 2 n, k], without gaps
  int64_t w_batch = 0;
  // w is e4m3 then, with a scale for each block of 128 x 128, n and k whole blocks, batch 1.
  const float* scales = nullptr;
  DeviceRows out;  // [rows, n]
  int64_t out_batch = 0;
  int64_t rows = 0;
  int64_t n = 0;
  int64_t k = 0;
  int64_t batch = 1;
  bool gated = false;
  int num_sms = 132;
};
// Whether the launch takes these: at most kMaxFewRows rows, rows and weights of whole 16 bytes, fp8
// rows that fit into shared memory.
bool FitsFewRows(const FewRowsLaunch& args);
int LaunchFewRows(const FewRowsLaunch& args, CUstream_st* stream);

// The same by slots: place p < offsets[num_slots] is of the slot s with offsets[s] <= p < offsets[s
// + 1], and its input is row pairs[p] / rows_per_pair of a (pairs null: row p), times
// row_scale[pairs[p]] where that is given.
struct FewPlacesLaunch {
  DeviceRows a;                    // bfloat16
  const int32_t* pairs = nullptr;  // by place
  int64_t rows_per_pair = 1;
  const float* row_scale = nullptr;  // by pair
  const int32_t* offsets = nullptr;  // [num_slots + 1], on the device
  int num_slots = 0;
  const void* w = nullptr;        // [num_slots][n or 2 n, k], bfloat16 or e4m3, without gaps
  const float* scales = nullptr;  // of e4m3, as above, without gaps
  DeviceRows out;                 // [places, n], bfloat16
  int64_t places = 0;             // at most
  int64_t n = 0;
  int64_t k = 0;
  bool gated = false;
  int num_sms = 132;
  // The offsets were written before the launch before this one: then the first weights are read
  // before that one is done.
  bool places_known = false;
};
bool FitsFewPlaces(const FewPlacesLaunch& args);
int LaunchFewPlaces(const FewPlacesLaunch& args, CUstream_st* stream);

}  // namespace moebius::kernels::cuda
