// The weighted sum of a token's expert rows: a block a piece of a row; or what follows it as well,
// the residual add and the norm, as rows/row_norm.cuh has them.
#include <cuda_runtime.h>

#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/rows/row_norm.cuh"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

// Of rows that are summed and normed at once: wider ones take longer in one block than two launches
// do, the sum of many blocks and the norm.
constexpr int64_t kMostWidth = 2048;

__device__ void AddScaled(float4& sum, float weight, float4 x) {
  sum.x = fmaf(weight, x.x, sum.x);
  sum.y = fmaf(weight, x.y, sum.y);
  sum.z = fmaf(weight, x.z, sum.z);
  sum.w = fmaf(weight, x.w, sum.w);
}

// What is left of v where it is stored.
template <typename T>
__device__ float4 Rounded(float4 v) {
  alignas(16) T stored[4];
  StoreFour(stored, v);
  return LoadFour(stored);
}

// Four columns, or one, as memory has them.
template <int kStep, typename T>
struct alignas(kStep * sizeof(T)) Piece {
  T at[kStep];

  __device__ float4 Widened() const {
    if constexpr (kStep == 4) return LoadFour(at);
    return make_float4(LoadElement(at), 0, 0, 0);
  }
};

// The sums of a token's rows, rounded as they are stored; a source of row_norm.cuh. Whole warps
// call Load. kStep: columns that are taken at a time, 4 or 1 (then the others of a four are
// nothing).
template <int kStep, typename T>
struct ExpertSum {
  const T* in;
  int64_t in_stride;
  const int32_t* places;
  const float* weights;
  int k;
  const T* shared;
  int64_t shared_stride;

  static constexpr int kMostThreads = 256;  // of a norm
  static constexpr int kBlocks = 3;

  // A lane's one of 32 choices; what is not there adds nothing times nothing.
  struct Choice {
    int32_t place;
    float weight;
  };
  __device__ Choice ChoiceOf(int64_t row, int begin) const {
    const int mine = begin + threadIdx.x % 32;
    // Before the wait: not what the L1 cache has from the layer before.
    const int32_t place = mine < k ? __ldcg(places + row * k + mine) : -1;
    const float weight = mine < k && weights != nullptr ? __ldcg(weights + row * k + mine) : 1.0f;
    return {place, place < 0 ? 0.0f : weight};
  }

  __device__ bool is_there() const { return true; }
  __device__ Choice Early(int64_t row) const { return ChoiceOf(row, 0); }
  template <int kCount>
  __device__ void Load(Choice choice, int64_t row, int first, int step, int cols,
                       float4 (&v)[kCount]) const {
    using Columns = Piece<kStep, T>;
    const auto at = [](const T* from) { return *reinterpret_cast<const Columns*>(from); };
    // Rows that are asked for before the first is added, as registers hold them.
    constexpr int kTogether = 32 / static_cast<int>(kCount * sizeof(T)) < 8
                                  ? 32 / static_cast<int>(kCount * sizeof(T))
                                  : 8;
    Columns last[kCount] = {};
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const int c = first + i * step;
      if (shared != nullptr && c < cols) last[i] = at(shared + row * shared_stride + c);
      v[i] = {};
    }
    for (int begin = 0; begin < k; begin += kTogether) {
      if (begin > 0 && begin % 32 == 0) choice = ChoiceOf(row, begin);
      Columns x[kTogether][kCount];
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        const int32_t there = __shfl_sync(~0u, choice.place, begin % 32 + j);
        const T* const from = in + there * in_stride + first;
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          x[j][i] = {};
          if (there >= 0 && first + i * step < cols) x[j][i] = at(from + i * step);
        }
      }
#pragma unroll
      for (int j = 0; j < kTogether; ++j) {
        const float scale = __shfl_sync(~0u, choice.weight, begin % 32 + j);
#pragma unroll
        for (int i = 0; i < kCount; ++i) AddScaled(v[i], scale, x[j][i].Widened());
      }
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      if (shared != nullptr) AddScaled(v[i], 1.0f, last[i].Widened());
      v[i] = Rounded<T>(v[i]);
    }
  }
};

template <int kStep, typename T>
ExpertSum<kStep, T> SumOf(const WeightedReduceLaunch& args) {
  return {
      static_cast<const T*>(args.in.data),     args.in.stride,    args.places, args.weights, args.k,
      static_cast<const T*>(args.shared.data), args.shared.stride};
}

template <int kStep, typename T>
__global__ void ReduceKernel(ExpertSum<kStep, T> source, T* out, int64_t out_stride, int cols) {
  const auto choice = source.Early(blockIdx.x);
  AwaitEarlier();
  const int c = (blockIdx.y * blockDim.x + threadIdx.x) * kStep;
  float4 sum[1];
  source.Load(choice, blockIdx.x, c, 0, cols, sum);
  if (c >= cols) return;
  T* to = out + blockIdx.x * out_stride + c;
  if constexpr (kStep == 4) {
    StoreFour(to, sum[0]);
  } else {
    StoreElement(to, sum[0].x);
  }
}

bool RowsFitFour(const WeightedReduceLaunch& args) {
  return FitsFour(args.in, args.cols) &&
         (args.shared.data == nullptr || FitsFour(args.shared, args.cols));
}

bool AreOfOneDtype(const WeightedReduceLaunch& args) {
  return args.out.dtype == args.in.dtype &&
         (args.shared.data == nullptr || args.shared.dtype == args.in.dtype);
}

}  // namespace

int LaunchWeightedReduce(const WeightedReduceLaunch& args, CUstream_st* stream) {
  if (args.rows == 0 || args.cols == 0) return cudaSuccess;
  if (!AreOfOneDtype(args)) return cudaErrorInvalidValue;
  cudaError_t error = cudaSuccess;
  const bool known = WithElement(args.in.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const bool four = RowsFitFour(args) && FitsFour(args.out, args.cols);
    const int64_t items = four ? args.cols / 4 : args.cols;
    const dim3 grid(static_cast<unsigned>(args.rows), static_cast<unsigned>((items + 255) / 256));
    auto* const out = static_cast<T*>(args.out.data);
    const auto cols = static_cast<int>(args.cols);
    error = four ? LaunchEarly(ReduceKernel<4, T>, grid, 256, 0, stream, SumOf<4, T>(args), out,
                               args.out.stride, cols)
                 : LaunchEarly(ReduceKernel<1, T>, grid, 256, 0, stream, SumOf<1, T>(args), out,
                               args.out.stride, cols);
  });
  return known ? error : cudaErrorInvalidValue;
}

bool FitsReduceAndNorm(const WeightedReduceLaunch& sum, const RmsNormLaunch& norm) {
  return AreOfOneDtype(sum) && norm.out.dtype == sum.in.dtype && RowsFitFour(sum) &&
         FitsRowNorm(norm) && norm.cols <= kMostWidth;
}

int LaunchReduceAndNorm(const WeightedReduceLaunch& sum, const RmsNormLaunch& norm,
                        CUstream_st* stream) {
  if (norm.rows == 0 || norm.cols == 0) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  const bool known = WithElement(sum.in.dtype, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    error = LaunchRowNorm<T>(norm, SumOf<4, T>(sum), stream);
  });
  return known ? error : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
