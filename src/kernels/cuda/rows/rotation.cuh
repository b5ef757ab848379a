// The rotation of one head's pairs by the angles of a row's position.
#pragma once

#include <cstdint>

namespace moebius::kernels::cuda {

constexpr int kMaxPairs = 16;  // a lane of the warp that has a head: dim up to 1024

struct Rotation {
  int half;  // dim / 2
  bool interleaved;
  bool deinterleave;
  const int32_t* positions;
  const float* table;

  // Where pair i is read from, and written to.
  __device__ int2 From(int i) const {
    return interleaved ? make_int2(2 * i, 2 * i + 1) : make_int2(i, i + half);
  }
  __device__ int2 To(int i) const {
    return interleaved && !deinterleave ? make_int2(2 * i, 2 * i + 1) : make_int2(i, i + half);
  }
  __device__ float2 Rotate(int64_t row, int i, float x, float y) const {
    const float* angles = table + int64_t{positions[row]} * 2 * half;
    const float cosine = angles[i];
    const float sine = angles[i + half];
    return make_float2(x * cosine - y * sine, y * cosine + x * sine);
  }
};

}  // namespace moebius::kernels::cuda
