// exp and what follows from it, over Vec, and moving runs of float32 or bfloat16. One function for
// every user: the same input gives the same bits in softmax, silu and sampling.
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd/vec.h"

namespace moebius::kernels {
namespace {

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2, and e^r by its series up to r^7 / 7!
// (whose tail is below 6e-9). Within 2 units in the last place; exact at 0; 0 below -87.33; what is
// above 88.37 counts as 88.37; NaN stays NaN.
inline Vec Exp(Vec x) {
  const Vec lowest = Set(-87.33f);
  const Vec clamped = Max(lowest, Min(Set(88.37f), x));
  const Vec n = Round(Mul(clamped, Set(1.44269504f)));
  // ln 2 in two parts: the first has zeros at its end, so that n times it is exact.
  const Vec r = Fma(n, Set(2.12194440e-4f), Fma(n, Set(-0.693359375f), clamped));
  constexpr float kSeries[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
  Vec series = Set(1.0f / 5040);
  for (const float c : kSeries) series = Fma(series, r, Set(c));
  return WhereNotLess(x, lowest, Mul(series, Pow2(n)));
}
inline Vec Sigmoid(Vec x) { return Div(Set(1.0f), Add(Set(1.0f), Exp(Sub(Zero(), x)))); }
inline Vec Silu(Vec x) { return Div(x, Add(Set(1.0f), Exp(Sub(Zero(), x)))); }

constexpr int64_t kLanes = 16;

inline Vec RoundToBf16(Vec x) {
  alignas(64) uint16_t lanes[kLanes];
  StoreBf16(lanes, x);
  return LoadBf16(lanes);
}

// Element access by dtype; Get and Put take up to 16 elements from `i`.
struct F32 {
  using Element = float;
  static Vec Get(const float* p, int64_t i) { return Load(p + i); }
  static Vec GetN(const float* p, int64_t i, int64_t n) { return LoadN(p + i, n); }
  static void Put(float* p, int64_t i, Vec x) { Store(p + i, x); }
  static void PutN(float* p, int64_t i, Vec x, int64_t n) { StoreN(p + i, x, n); }
};
struct BF16 {
  using Element = uint16_t;
  static Vec Get(const uint16_t* p, int64_t i) { return LoadBf16(p + i); }
  static Vec GetN(const uint16_t* p, int64_t i, int64_t n) { return LoadBf16N(p + i, n); }
  static void Put(uint16_t* p, int64_t i, Vec x) { StoreBf16(p + i, x); }
  static void PutN(uint16_t* p, int64_t i, Vec x, int64_t n) { StoreBf16N(p + i, x, n); }
};

// A typed run: Get(i, n) reads n <= 16 elements from i (the others are 0), Put writes them.
template <typename D>
struct Typed {
  typename D::Element* data;
  Vec Get(int64_t i, int64_t n) const {
    return n >= kLanes ? D::Get(data, i) : D::GetN(data, i, n);
  }
  void Put(int64_t i, Vec x, int64_t n) const {
    if (n >= kLanes) {
      D::Put(data, i, x);
    } else {
      D::PutN(data, i, x, n);
    }
  }
};

// Calls body with the run's type.
template <typename Body>
inline void WithType(Run run, const Body& body) {
  if (run.dtype == DType::kF32) {
    body(Typed<F32>{static_cast<float*>(run.data)});
  } else {
    body(Typed<BF16>{static_cast<uint16_t*>(run.data)});
  }
}

}  // namespace
}  // namespace moebius::kernels
