// RMS norm of whole rows with the residual add in it, whatever the rows are made of: a block a row,
// the row held in registers. Every kernel made of it gives a row the same bits: where a sum and a
// product may become one, the code says so.
//
// A source is what a row comes from: kMostThreads of a block and kBlocks of those a multiprocessor,
// as its registers allow; is_there() (else the residual alone is normed); Early(row): what it reads
// that the launch before did not write; and Load(that, row, first, step, cols, v): v[i] = the four
// columns from first + i * step on, or zeros where they begin at cols or behind.
#pragma once

#include <cuda_runtime.h>

#include "base/math.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {

// As RmsNormLaunch has them.
struct RowNorm {
  float* residual;
  int64_t residual_stride;
  const float* weight;
  float eps;
};

// Rows as they lie; null: none.
template <typename In>
struct RowsAsTheyAre {
  static constexpr int kMostThreads = 1024;
  static constexpr int kBlocks = 1;
  const In* x;
  int64_t stride;

  struct Nothing {};
  __device__ bool is_there() const { return x != nullptr; }
  __device__ Nothing Early(int64_t /*row*/) const { return {}; }
  template <int kFours>
  __device__ void Load(Nothing, int64_t row, int first, int step, int cols,
                       float4 (&v)[kFours]) const {
#pragma unroll
    for (int i = 0; i < kFours; ++i) {
      const int c = first + i * step;
      v[i] = x != nullptr && c < cols ? LoadFour(x + row * stride + c) : float4{};
    }
  }
};

__device__ __forceinline__ float SquaresOf(float4 v) {
  return fmaf(v.w, v.w, fmaf(v.z, v.z, fmaf(v.y, v.y, v.x * v.x)));
}

// One row by all threads of the block, which wait for earlier launches in it: `row` of the source
// and of norm.residual, to `out`. A thread takes four columns from `first` on, and again every
// `step`, kFours times (none from cols on).
template <int kFours, typename Source, typename Out>
__device__ __forceinline__ void NormRow(const Source& source, const RowNorm& norm, int64_t row,
                                        Out* out, int first, int step, int cols) {
  const auto weight = [&](int i) {
    const int c = first + i * step;
    return norm.weight != nullptr && c < cols ? LoadFour(norm.weight + c) : make_float4(1, 1, 1, 1);
  };
  // No launch writes weights: they are here before the row is, where registers hold both.
  constexpr bool kHolds = kFours <= 2;
  float4 held[kHolds ? kFours : 1];
  if constexpr (kHolds) {
#pragma unroll
    for (int i = 0; i < kFours; ++i) held[i] = weight(i);
  }
  const auto early = source.Early(row);
  moebius::cuda::AwaitEarlier();
  float* const residual =
      norm.residual != nullptr ? norm.residual + row * norm.residual_stride : nullptr;
  // All of the row is asked for before any of it is written.
  float4 kept[kFours];
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int c = first + i * step;
    kept[i] = residual != nullptr && c < cols ? LoadFour(residual + c) : float4{};
  }
  float4 v[kFours];
  source.Load(early, row, first, step, cols, v);
  float squares = 0;
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int c = first + i * step;
    const float4 r = kept[i];
    v[i] = make_float4(v[i].x + r.x, v[i].y + r.y, v[i].z + r.z, v[i].w + r.w);
    squares += SquaresOf(v[i]);
    if (residual != nullptr && source.is_there() && c < cols) StoreFour(residual + c, v[i]);
  }
  const float mean = BlockSum(squares) / static_cast<float>(cols);
  const float factor = rsqrtf(mean + norm.eps);
#pragma unroll
  for (int i = 0; i < kFours; ++i) {
    const int c = first + i * step;
    if (c >= cols) continue;
    const float4 w = kHolds ? held[i] : weight(i);
    StoreFour(out + c, make_float4(v[i].x * factor * w.x, v[i].y * factor * w.y,
                                   v[i].z * factor * w.z, v[i].w * factor * w.w));
  }
}

// A block a row, kFours x 4 columns a thread.
template <int kFours, typename Source, typename Out>
__global__ void __launch_bounds__(Source::kMostThreads, Source::kBlocks)
    RowNormKernel(Source source, RowNorm norm, Out* out, int64_t out_stride, int cols) {
  const int64_t row = blockIdx.x;
  NormRow<kFours>(source, norm, row, out + row * out_stride, static_cast<int>(threadIdx.x) * 4,
                  static_cast<int>(blockDim.x) * 4, cols);
}

// Host: whether RowNormKernel takes these rows; x may be another source.
inline bool FitsRowNorm(const RmsNormLaunch& args) {
  // Not a group that is the row: a rank with one head of many gives its bits.
  return args.group == 0 && args.cols <= 16384 && FitsFour(args.out, args.cols) &&
         (args.x.data == nullptr || FitsFour(args.x, args.cols)) &&
         (args.residual == nullptr ||
          FitsFour(args.residual, args.residual_stride, args.cols, 4)) &&
         (args.weight == nullptr || FitsFour(args.weight, 0, args.cols, 4));
}

// Host: two fours a thread keep enough loads in flight, wider rows take more.
inline int NormFours(int64_t cols) { return cols <= 8192 ? 2 : 4; }
inline int NormThreads(int64_t cols) {
  return static_cast<int>(CeilDiv(cols, int64_t{128} * NormFours(cols)) * 32);
}

// args: but for x, instead of which the source is; NormThreads of no more than the source's most.
// A row's threads follow from its width alone, and so its bits. (Clusters of four blocks for wide
// rows were quicker at up to 32 rows, a third slower at 4096, and where a product of few rows
// follows, they left it four multiprocessors late.)
template <typename Out, typename Source>
cudaError_t LaunchRowNorm(const RmsNormLaunch& args, const Source& source, cudaStream_t stream) {
  const RowNorm norm = {args.residual, args.residual_stride, args.weight, args.eps};
  auto* kernel = RowNormKernel<2, Source, Out>;
  if constexpr (Source::kMostThreads == 1024) {  // wider rows are for these alone
    if (NormFours(args.cols) == 4) kernel = RowNormKernel<4, Source, Out>;
  }
  return moebius::cuda::LaunchEarly(
      kernel, static_cast<unsigned>(args.rows), NormThreads(args.cols), 0, stream, source, norm,
      static_cast<Out*>(args.out.data), args.out.stride, static_cast<int>(args.cols));
}

}  // namespace moebius::kernels::cuda
