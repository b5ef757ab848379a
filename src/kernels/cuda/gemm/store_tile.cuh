// From accumulators to bf16 rows in device memory. Each warp turns its own part in its own piece of
// shared memory, so no barrier wider than a warp is needed, and stores 16 bytes a thread. Rows past
// the group's end are never written.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/ptx/sync.cuh"

namespace moebius::cuda {

// Tokens as the instruction's rows: this warp holds 16 token rows from `row` and kColumns columns
// from `column`.
template <int kColumns>
__device__ __forceinline__ void StoreRows(const float (&sums)[kColumns / 2], uint8_t* staging,
                                          __nv_bfloat16* out, int row, int row_end, int column,
                                          int n) {
  constexpr int kPitch = 144;  // 64 columns and 16 bytes against bank conflicts
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int chunk = 0; chunk < kColumns; chunk += 64) {
    if (column + chunk >= n || row >= row_end) {
      return;
    }
#pragma unroll
    for (int j = 0; j < 64; j += 16) {
      const float* d = sums + (chunk + j) / 2;
      const uint32_t matrices[4] = {ptx::PackBf16(d[0], d[1]), ptx::PackBf16(d[2], d[3]),
                                    ptx::PackBf16(d[4], d[5]), ptx::PackBf16(d[6], d[7])};
      ptx::StoreMatrix(staging + (lane % 16) * kPitch + (j + lane / 16 * 8) * 2, matrices);
    }
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i * 4 + lane / 8;
      const uint4 piece = *reinterpret_cast<const uint4*>(staging + r * kPitch + lane % 8 * 16);
      if (row + r < row_end) {
        __nv_bfloat16* to = out + static_cast<int64_t>(row + r) * n + column + chunk + lane % 8 * 8;
        *reinterpret_cast<uint4*>(to) = piece;
      }
    }
    __syncwarp();
  }
}

// Tokens as its columns: this warp holds 16 columns of the output from `column` for kColumns token
// rows from `row`.
template <int kColumns>
__device__ __forceinline__ void StoreColumns(const float (&sums)[kColumns / 2], uint8_t* staging,
                                             __nv_bfloat16* out, int row, int row_end, int column,
                                             int n) {
  constexpr int kPitch = 48;
  const int lane = threadIdx.x % 32;
  if (column >= n) {
    return;
  }
  if constexpr (kColumns == 8) {
    const uint32_t matrices[2] = {ptx::PackBf16(sums[0], sums[1]), ptx::PackBf16(sums[2], sums[3])};
    ptx::StoreMatrixTransposed(staging + lane % 8 * kPitch + lane / 8 % 2 * 16, matrices);
  } else {
#pragma unroll
    for (int j = 0; j < kColumns; j += 16) {
      const float* d = sums + j / 2;
      const uint32_t matrices[4] = {ptx::PackBf16(d[0], d[1]), ptx::PackBf16(d[2], d[3]),
                                    ptx::PackBf16(d[4], d[5]), ptx::PackBf16(d[6], d[7])};
      const int token = j + lane / 16 * 8 + lane % 8;
      ptx::StoreMatrixTransposed(staging + token * kPitch + lane / 8 % 2 * 16, matrices);
    }
  }
  __syncwarp();
#pragma unroll
  for (int first = 0; first < kColumns; first += 16) {
    const int token = first + lane / 2;
    if (token < kColumns && row + token < row_end) {
      __nv_bfloat16* to = out + static_cast<int64_t>(row + token) * n + column + lane % 2 * 8;
      *reinterpret_cast<uint4*>(to) =
          *reinterpret_cast<const uint4*>(staging + token * kPitch + lane % 2 * 16);
    }
  }
  __syncwarp();
}

}  // namespace moebius::cuda
