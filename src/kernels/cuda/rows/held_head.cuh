// A head in registers: what one of its lanes has of it, loaded and stored 16 bytes at a time, and
// its norm and rotation there.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/rows/access.cuh"

namespace moebius::kernels::cuda {

// Two runs of kCount elements of memory, in registers.
template <typename T, int kCount>
struct Runs {
  struct alignas(kCount * sizeof(T) < 16 ? kCount * sizeof(T) : 16) Run {
    T at[kCount];
  };
  Run runs[2];

  __device__ void Load(const T* first, int distance) {
    runs[0] = *reinterpret_cast<const Run*>(first);
    runs[1] = *reinterpret_cast<const Run*>(first + distance);
  }
  __device__ void Store(T* first, int distance) const {
    *reinterpret_cast<Run*>(first) = runs[0];
    *reinterpret_cast<Run*>(first + distance) = runs[1];
  }
  __device__ float operator[](int i) const { return LoadElement(&runs[i / kCount].at[i % kCount]); }
};

// What a lane has of a head: elements [kSpan l, kSpan (l + 1)) of either half. Half-split, element
// i of the first is a pair with element i of the second; interleaved, neighbours are: kSpan pairs.
//
// Kernels give a head the same bits: where a sum and a product may become one, the code says so.
template <int kSpan>
struct HeldHead {
  float x[2 * kSpan];

  template <typename T>
  __device__ explicit HeldHead(const Runs<T, kSpan>& raw) {
#pragma unroll
    for (int i = 0; i < 2 * kSpan; ++i) x[i] = raw[i];
  }
  __device__ float Squares() const {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < 2 * kSpan; ++i) squares = fmaf(x[i], x[i], squares);
    return squares;
  }
  __device__ void Scale(float factor, const Runs<float, kSpan>& weights) {
#pragma unroll
    for (int i = 0; i < 2 * kSpan; ++i) x[i] *= factor * weights[i];
  }
  template <bool kInterleaved>
  __device__ void Rotate(const Runs<float, kSpan / 2>& cosines,
                         const Runs<float, kSpan / 2>& sines) {
#pragma unroll
    for (int i = 0; i < kSpan; ++i) {
      float& first = x[kInterleaved ? 2 * i : i];
      float& second = x[kInterleaved ? 2 * i + 1 : i + kSpan];
      const float turned = fmaf(first, cosines[i], -(second * sines[i]));
      second = fmaf(second, cosines[i], first * sines[i]);
      first = turned;
    }
  }
  template <typename Out>
  __device__ void Store(Out* to, int half) const {
    Runs<Out, kSpan> out;
#pragma unroll
    for (int i = 0; i < 2 * kSpan; i += 4) {
      StoreFour(out.runs[i / kSpan].at + i % kSpan,
                make_float4(x[i], x[i + 1], x[i + 2], x[i + 3]));
    }
    out.Store(to, half);
  }
};

}  // namespace moebius::kernels::cuda
