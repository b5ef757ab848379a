// Up to eight rows of inputs of a product of few rows, as the tensor cores take them beside a tile
// of weights (gemm/weight_tile.cuh). Lane 4 g + t has the sums of weight rows g and inputs 2 t,
// 2 t + 1, then of weight rows g + 8.
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/cuda/gemm/e4m3.cuh"
#include "kernels/cuda/gemm/weight_tile.cuh"
#include "kernels/cuda/ptx/mma.cuh"

namespace moebius::kernels::cuda {

using moebius::cuda::ptx::MultiplyAdd;
using moebius::cuda::ptx::MultiplyAddE4m3;

// For weights in bfloat16: the rows as they lie.
class Bf16Inputs {
 public:
  static constexpr int kElements = 8;  // in 16 bytes of weights
  static constexpr bool kScaled = false;
  static size_t SharedBytes(int64_t /*rows*/, int64_t /*k*/) { return 0; }

  __device__ __forceinline__ Bf16Inputs(const __nv_bfloat16* a, int64_t stride, int rows, int k,
                                        void* /*shared*/)
      : row_(reinterpret_cast<const uint4*>(a + (Row() < rows ? Row() : 0) * stride)),
        units_(Row() < rows ? k / kElements : 0) {}

  // sums += the tile times the rows.
  template <bool kGated>
  __device__ __forceinline__ void Multiply(WeightTile<kScaled, kGated>& tile,
                                           float (&sums)[4]) const {
    uint4 next = Load(tile.first() * kPieceUnits);
    tile.ForEachPiece([&](int piece, const WeightPiece& w) {
#pragma unroll
      for (int i = 0; i < kPieceLoads; ++i) {
        const uint4 x = next;
        next = Load(i + 1 < kPieceLoads ? piece * kPieceUnits + 4 * (i + 1)
                                        : (piece + tile.step()) * kPieceUnits);
        MultiplyAdd(sums, {w.low[i].x, w.high[i].x, w.low[i].y, w.high[i].y}, x.x, x.y);
        MultiplyAdd(sums, {w.low[i].z, w.high[i].z, w.low[i].w, w.high[i].w}, x.z, x.w);
      }
    });
  }

 private:
  static __device__ __forceinline__ int Row() { return threadIdx.x % 32 / 4; }
  // Zero past the row, and for a row that is not there.
  __device__ __forceinline__ uint4 Load(int unit) const {
    unit += threadIdx.x % 4;
    return unit < units_ ? row_[unit] : make_uint4(0, 0, 0, 0);
  }

  const uint4* row_;
  int units_;
};

// For weights in fp8: the rows quantised by 128 columns, as gemm/quantize.h says, by the block's
// warps together, into shared memory as lanes read them.
class E4m3Inputs {
 public:
  static constexpr int kElements = 16;
  static constexpr bool kScaled = true;
  static size_t SharedBytes(int64_t rows, int64_t k) {
    return static_cast<size_t>(rows * (k + k / kPieceBytes * 4) + 15) / 16 * 16;
  }

  // k: whole pieces. All warps of the block call.
  __device__ __forceinline__ E4m3Inputs(const __nv_bfloat16* a, int64_t stride, int rows, int k,
                                        void* shared)
      : codes_(static_cast<uint4*>(shared)),
        scales_(reinterpret_cast<float*>(codes_ + rows * (k / 16))),
        rows_(rows) {
    const int blocks = rows * (k / kPieceBytes);
    for (int first = threadIdx.x / 32 * 8; first < blocks; first += blockDim.x / 4) {
      const int block = first + threadIdx.x % 32 / 4;  // of four lanes
      const int piece = block / rows;
      const int row = block - piece * rows;
      Quantise(a + row * stride + piece * kPieceBytes, block < blocks, piece, row);
    }
    __syncthreads();
  }

  template <bool kGated>
  __device__ __forceinline__ void Multiply(WeightTile<kScaled, kGated>& tile,
                                           float (&sums)[4]) const {
    const int quarter = threadIdx.x % 4;
    const bool is_there = threadIdx.x % 32 / 4 < rows_;
    tile.ForEachPiece([&](int piece, const WeightPiece& w) {
      float products[4] = {};
#pragma unroll
      for (int i = 0; i < kPieceLoads; ++i) {
        const uint4 x =
            is_there ? codes_[Place(piece, i) + threadIdx.x % 32] : make_uint4(0, 0, 0, 0);
        MultiplyAddE4m3(products, {w.low[i].x, w.high[i].x, w.low[i].y, w.high[i].y}, x.x, x.y);
        MultiplyAddE4m3(products, {w.low[i].z, w.high[i].z, w.low[i].w, w.high[i].w}, x.z, x.w);
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int row = 2 * quarter + j;
        const float scale = row < rows_ ? scales_[piece * rows_ + row] : 0;
        sums[j] = fmaf(products[j], scale * w.scales[0], sums[j]);
        sums[2 + j] = fmaf(products[2 + j], scale * w.scales[kGated ? 1 : 0], sums[2 + j]);
      }
    });
  }

 private:
  // Where the units of a load of a piece begin, those of row g's lane t at 4 g + t.
  __device__ __forceinline__ int Place(int piece, int load) const {
    return (piece * kPieceLoads + load) * rows_ * 4;
  }

  // 128 columns by four lanes, each the units that it multiplies.
  __device__ __forceinline__ void Quantise(const __nv_bfloat16* from, bool is_there, int piece,
                                           int row) {
    const int quarter = threadIdx.x % 4;
    constexpr int kWords = kElements / 2;  // two columns each
    uint32_t x[kPieceLoads][kWords] = {};
    __nv_bfloat162 largest = {};
#pragma unroll
    for (int i = 0; i < kPieceLoads; ++i) {
      const auto* at = reinterpret_cast<const uint4*>(from) + (4 * i + quarter) * 2;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 v = is_there ? at[half] : make_uint4(0, 0, 0, 0);
        x[i][4 * half] = v.x;
        x[i][4 * half + 1] = v.y;
        x[i][4 * half + 2] = v.z;
        x[i][4 * half + 3] = v.w;
      }
#pragma unroll
      for (const uint32_t word : x[i]) {
        largest = __hmax2(largest, __habs2(reinterpret_cast<const __nv_bfloat162&>(word)));
      }
    }
    float most = __bfloat162float(__hmax(__low2bfloat16(largest), __high2bfloat16(largest)));
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
      most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    }
    if (!is_there) return;
    const auto [scale, inverse] = moebius::cuda::E4m3ScaleOf(most);
    if (quarter == 0) scales_[piece * rows_ + row] = scale;
#pragma unroll
    for (int i = 0; i < kPieceLoads; ++i) {
      const auto codes = [&](int word) {
        const uint32_t a = x[i][word];
        const uint32_t b = x[i][word + 1];
        return moebius::cuda::E4m3Codes(
            __uint_as_float(a << 16) * inverse, __uint_as_float(a & 0xffff0000u) * inverse,
            __uint_as_float(b << 16) * inverse, __uint_as_float(b & 0xffff0000u) * inverse);
      };
      codes_[Place(piece, i) + row * 4 + quarter] =
          make_uint4(codes(0), codes(2), codes(4), codes(6));
    }
  }

  uint4* codes_;   // [pieces][kPieceLoads][rows][4]
  float* scales_;  // [pieces][rows]
  int rows_;
};

}  // namespace moebius::kernels::cuda
