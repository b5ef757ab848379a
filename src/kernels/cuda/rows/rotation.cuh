// The rotation of one head's pairs by the angles of a row's position.
#pragma once

#include <cstdint>

namespace moebius::kernels::cuda {

constexpr int kMaxPairs = 16;  // a lane of the warp that has a head: dim up to 1024

// angle: cosine and sine. Roundings are written out: all kernels give the same bits.
__device__ __forceinline__ float2 Rotated(float2 angle, float2 pair) {
  return make_float2(fmaf(pair.x, angle.x, -(pair.y * angle.y)),
                     fmaf(pair.y, angle.x, pair.x * angle.y));
}

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
  // Cosine and sine.
  __device__ float2 AngleAt(int32_t position, int i) const {
    const float* angles = table + int64_t{position} * 2 * half;
    return make_float2(angles[i], angles[i + half]);
  }
  __device__ float2 Angle(int64_t row, int i) const { return AngleAt(positions[row], i); }
  __device__ float2 Rotate(int64_t row, int i, float x, float y) const {
    return Rotated(Angle(row, i), make_float2(x, y));
  }
};

}  // namespace moebius::kernels::cuda
