#include "kernels/cuda/gemm/quantize.h"

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/gemm/e4m3.cuh"
#include "kernels/cuda/launch.cuh"

namespace moebius::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlock = kScaleColumns;
constexpr int kLanes = kBlock / 8;  // 16 lanes of 8 columns each
constexpr int kTileRows = 8;        // scales of 8 rows fill one 32-byte sector
constexpr int kTileBlocks = kThreads / kLanes / kTileRows;

struct RowKernelParams {
  const __nv_bfloat16* in;
  const int32_t* num_rows;
  int64_t in_stride;
  int64_t scale_stride;
  int capacity;
  int columns;  // of the output
  void* out;
  float* scales;
};

__device__ __forceinline__ void Load8(const __nv_bfloat16* from, float (&x)[8]) {
  const uint4 raw = *reinterpret_cast<const uint4*>(from);
  const uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(words[i] << 16);
    x[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
  }
}

__device__ __forceinline__ void StoreBf16(const float (&x)[8], __nv_bfloat16* to) {
  uint32_t words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    words[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
}

// Quantises the 128 columns that 16 lanes hold together.
__device__ __forceinline__ uint2 Quantize8(const float (&x)[8], float* scale_out) {
  float largest = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    largest = fmaxf(largest, fabsf(x[i]));
  }
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
  }
  const auto [scale, inverse] = E4m3ScaleOf(largest);
  uint32_t words[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    words[i] = E4m3Codes(x[4 * i] * inverse, x[4 * i + 1] * inverse, x[4 * i + 2] * inverse,
                         x[4 * i + 3] * inverse);
  }
  *scale_out = scale;
  return make_uint2(words[0], words[1]);
}

template <bool kSwiGlu, bool kQuantize>
__global__ void __launch_bounds__(kThreads) RowKernel(const RowKernelParams p) {
  AwaitEarlier();
  const int num_rows = p.num_rows != nullptr ? *p.num_rows : p.capacity;
  const int num_blocks = p.columns / kBlock;
  const int column_tiles = (num_blocks + kTileBlocks - 1) / kTileBlocks;
  const int64_t num_tiles =
      static_cast<int64_t>((num_rows + kTileRows - 1) / kTileRows) * column_tiles;
  const int part = threadIdx.x / kLanes;
  const int lane = threadIdx.x % kLanes;
  for (int64_t tile = blockIdx.x; tile < num_tiles; tile += gridDim.x) {
    const int64_t row_tile = tile / column_tiles;
    const int row = static_cast<int>(row_tile) * kTileRows + part % kTileRows;
    const int block =
        static_cast<int>(tile - row_tile * column_tiles) * kTileBlocks + part / kTileRows;
    const bool exists = row < num_rows && block < num_blocks;
    const int column = block * kBlock + lane * 8;
    float x[8] = {};
    if (exists) {
      const __nv_bfloat16* from = p.in + row * p.in_stride + column;
      Load8(from, x);
      if constexpr (kSwiGlu) {
        float up[8];
        Load8(from + p.columns, up);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          x[i] = __fdividef(x[i], 1.0f + __expf(-x[i])) * up[i];
        }
      }
    }
    const int64_t at = static_cast<int64_t>(row) * p.columns + column;
    if constexpr (kQuantize) {
      // All lanes reduce; those without a row discard what they get.
      float scale;
      const uint2 packed = Quantize8(x, &scale);
      if (exists) {
        *reinterpret_cast<uint2*>(static_cast<uint8_t*>(p.out) + at) = packed;
        if (lane == 0) {
          p.scales[block * p.scale_stride + row] = scale;
        }
      }
    } else if (exists) {
      StoreBf16(x, static_cast<__nv_bfloat16*>(p.out) + at);
    }
  }
}

template <bool kSwiGlu, bool kQuantize>
const char* Launch(const RowsIn& in, void* out, float* scales, int64_t scale_stride,
                   CUstream_st* stream) {
  const int columns = kSwiGlu ? in.columns / 2 : in.columns;
  if (in.columns <= 0 || columns % kBlock != 0 || (kSwiGlu && in.columns % 2 != 0)) {
    return "row kernels: columns must be a positive multiple of 128 (of 256 for gate and up)";
  }
  if (in.stride % 8 != 0 || (in.stride != 0 && in.stride < in.columns)) {
    return "row kernels: stride must be a multiple of 8, at least columns, or 0";
  }
  if (in.capacity < 0 || (kQuantize && scale_stride < in.capacity)) {
    return "row kernels: capacity must not be negative, scale_stride at least capacity";
  }
  if (in.capacity == 0) {
    return nullptr;
  }
  int device = 0;
  int num_sms = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&num_sms, cudaDevAttrMultiProcessorCount, device);
  }
  if (error != cudaSuccess) {
    return cudaGetErrorString(error);
  }
  const int64_t tiles = (in.capacity + kTileRows - 1) / kTileRows *
                        ((columns / kBlock + kTileBlocks - 1) / kTileBlocks);
  const int blocks = static_cast<int>(std::min<int64_t>(tiles, num_sms * 8));
  const RowKernelParams params = {static_cast<const __nv_bfloat16*>(in.data),
                                  in.num_rows,
                                  in.stride != 0 ? in.stride : in.columns,
                                  scale_stride,
                                  static_cast<int>(in.capacity),
                                  columns,
                                  out,
                                  scales};
  error = LaunchEarly(RowKernel<kSwiGlu, kQuantize>, blocks, kThreads, 0, stream, params);
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

}  // namespace

const char* LaunchQuantizeRows(const RowsIn& in, const QuantizedRowsOut& out, CUstream_st* stream) {
  return Launch<false, true>(in, out.data, out.scales, out.scale_stride, stream);
}

const char* LaunchSwiGlu(const RowsIn& in, void* out_bf16, CUstream_st* stream) {
  return Launch<true, false>(in, out_bf16, nullptr, 0, stream);
}

const char* LaunchSwiGluQuantize(const RowsIn& in, const QuantizedRowsOut& out,
                                 CUstream_st* stream) {
  return Launch<true, true>(in, out.data, out.scales, out.scale_stride, stream);
}

}  // namespace moebius::cuda
