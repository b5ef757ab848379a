// Embedding, residual add and cache writes: copies with a conversion.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"
#include "kernels/cuda/rows/rows.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

// Rows of a gathered source to rows of a scattered destination. The maps return a row, or negative:
// a source row of zeros, a destination that is skipped. scale: by source row, or null.
template <bool kFour, typename In, typename Out, typename FromRow, typename ToRow>
__global__ void CopyRowsKernel(const In* in, int64_t in_stride, Out* out, int64_t out_stride,
                               int64_t cols, FromRow from_row, ToRow to_row, const float* scale) {
  AwaitEarlier();
  const int64_t from = from_row(blockIdx.x);
  const int64_t to = to_row(blockIdx.x);
  if (to < 0) return;
  const float s = scale != nullptr && from >= 0 ? scale[from] : 1.0f;
  constexpr int kStep = kFour ? 4 : 1;
  const int64_t first = (blockIdx.y * int64_t{blockDim.x} + threadIdx.x) * kStep;
  for (int64_t c = first; c < cols; c += int64_t{gridDim.y} * blockDim.x * kStep) {
    if constexpr (kFour) {
      const float4 v = from < 0 ? make_float4(0, 0, 0, 0) : LoadFour(in + from * in_stride + c);
      StoreFour(out + to * out_stride + c, make_float4(v.x * s, v.y * s, v.z * s, v.w * s));
    } else {
      StoreElement(out + to * out_stride + c,
                   from < 0 ? 0.0f : LoadElement(in + from * in_stride + c) * s);
    }
  }
}

struct SameRow {
  __device__ int64_t operator()(int64_t t) const { return t; }
};
struct TableRow {
  const int32_t* tokens;
  int64_t vocab;
  __device__ int64_t operator()(int64_t t) const {
    const int32_t token = tokens[t];
    return token < 0 || token >= vocab ? -1 : token;
  }
};
struct CacheRow {
  const int64_t* rows;
  __device__ int64_t operator()(int64_t t) const { return rows[t]; }
};

template <typename FromRow, typename ToRow>
int CopyRows(const DeviceRows& in, const DeviceRows& out, int64_t rows, int64_t cols,
             FromRow from_row, ToRow to_row, const float* scale, cudaStream_t stream) {
  if (rows == 0 || cols == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  const bool known = WithElements(in.dtype, out.dtype, [&](auto* in_type, auto* out_type) {
    using In = std::remove_pointer_t<decltype(in_type)>;
    using Out = std::remove_pointer_t<decltype(out_type)>;
    const bool four = FitsFour(in, cols) && FitsFour(out, cols);
    const int64_t items = four ? cols / 4 : cols;
    const int threads = items >= 256 ? 256 : static_cast<int>((items + 31) / 32 * 32);
    const dim3 grid(static_cast<unsigned>(rows),
                    static_cast<unsigned>((items + 4 * threads - 1) / (4 * threads)));
    auto* kernel = four ? CopyRowsKernel<true, In, Out, FromRow, ToRow>
                        : CopyRowsKernel<false, In, Out, FromRow, ToRow>;
    error =
        LaunchEarly(kernel, grid, threads, 0, stream, static_cast<const In*>(in.data), in.stride,
                    static_cast<Out*>(out.data), out.stride, cols, from_row, to_row, scale);
  });
  return known ? error : cudaErrorInvalidValue;
}

template <bool kFour, typename T>
__global__ void AddKernel(float* x, int64_t x_stride, const T* y, int64_t y_stride, int64_t cols) {
  AwaitEarlier();
  constexpr int kStep = kFour ? 4 : 1;
  const int64_t first = (blockIdx.y * int64_t{blockDim.x} + threadIdx.x) * kStep;
  for (int64_t c = first; c < cols; c += int64_t{gridDim.y} * blockDim.x * kStep) {
    float* to = x + blockIdx.x * x_stride + c;
    const T* from = y + blockIdx.x * y_stride + c;
    if constexpr (kFour) {
      float4 a = LoadFour(to);
      const float4 b = LoadFour(from);
      a.x += b.x;
      a.y += b.y;
      a.z += b.z;
      a.w += b.w;
      StoreFour(to, a);
    } else {
      *to += LoadElement(from);
    }
  }
}

}  // namespace

int LaunchEmbed(const EmbedLaunch& args, CUstream_st* stream) {
  return CopyRows(args.table, args.out, args.rows, args.cols, TableRow{args.tokens, args.vocab},
                  SameRow{}, nullptr, stream);
}

int LaunchKvWrite(const KvWriteLaunch& args, CUstream_st* stream) {
  return CopyRows(args.x, args.cache, args.rows, args.cols, SameRow{}, CacheRow{args.cache_rows},
                  nullptr, stream);
}

int LaunchCopyRows(const DeviceRows& from, const DeviceRows& to, int64_t rows, int64_t cols,
                   const float* scale, CUstream_st* stream) {
  return CopyRows(from, to, rows, cols, SameRow{}, SameRow{}, scale, stream);
}

int LaunchAdd(const AddLaunch& args, CUstream_st* stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  const bool known = WithElement(args.y.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool four = FitsFour(args.y, args.cols) && FitsFour(args.x, args.x_stride, args.cols, 4);
    const int64_t items = four ? args.cols / 4 : args.cols;
    const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>((items + 1023) / 1024));
    auto* kernel = four ? AddKernel<true, T> : AddKernel<false, T>;
    error = LaunchEarly(kernel, grid, 256, 0, stream, args.x, args.x_stride,
                        static_cast<const T*>(args.y.data), args.y.stride, args.cols);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
