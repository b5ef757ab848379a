// The inner kernels of row operations, over Vec. Sums run in the 16 lanes of two accumulators, then
// through SumLanes: an order that depends on the row's length alone.
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd/math.h"
#include "kernels/cpu/simd/vec.h"

namespace moebius::kernels {
namespace {

inline Vec GetF32(const float* p, int64_t i, int64_t n) {
  return n >= kLanes ? Load(p + i) : LoadN(p + i, n);
}
inline void PutF32(float* p, int64_t i, Vec x, int64_t n) {
  if (n >= kLanes) {
    Store(p + i, x);
  } else {
    StoreN(p + i, x, n);
  }
}

inline void Convert(Run in, int64_t n, Run out) {
  WithType(in, [&](auto from) {
    WithType(out, [&](auto to) {
      for (int64_t i = 0; i < n; i += kLanes) to.Put(i, from.Get(i, n - i), n - i);
    });
  });
}

inline void AddRow(float* x, Run y, int64_t n) {
  WithType(y, [&](auto from) {
    for (int64_t i = 0; i < n; i += kLanes) {
      PutF32(x, i, Add(GetF32(x, i, n - i), from.Get(i, n - i)), n - i);
    }
  });
}

// sqrt and division are exactly rounded, so this is one function of its input everywhere.
inline float InverseRms(float squares, int64_t n, float eps) {
  const __m128 mean = _mm_set_ss(squares / static_cast<float>(n) + eps);
  return 1.0f / _mm_cvtss_f32(_mm_sqrt_ss(mean));
}

template <typename In, typename Out>
void NormGroups(In in, const float* weight, float eps, int64_t cols, int64_t group, Out out) {
  for (int64_t begin = 0; begin < cols; begin += group) {
    Vec sums[2] = {Zero(), Zero()};
    for (int64_t i = 0; i < group; i += kLanes) {
      const Vec x = in.Get(begin + i, group - i);
      Vec& sum = sums[i / kLanes % 2];
      sum = Fma(x, x, sum);
    }
    const Vec factor = Set(InverseRms(SumLanes(Add(sums[0], sums[1])), group, eps));
    for (int64_t i = 0; i < group; i += kLanes) {
      Vec x = Mul(in.Get(begin + i, group - i), factor);
      if (weight != nullptr) x = Mul(x, GetF32(weight, i, group - i));
      out.Put(begin + i, x, group - i);
    }
  }
}

inline void RmsNormRow(Run x, float* residual, const float* weight, float eps, int64_t cols,
                       int64_t group, Run out) {
  if (residual != nullptr && x.data != nullptr) AddRow(residual, x, cols);
  const Run in = residual != nullptr ? Run{residual, DType::kF32} : x;
  WithType(in, [&](auto from) {
    WithType(out, [&](auto to) { NormGroups(from, weight, eps, cols, group, to); });
  });
}

inline void WeightedSum(const WeightedSumArgs& args, int64_t n, Run out) {
  WithType(args.rows, [&](auto rows) {
    WithType(out, [&](auto to) {
      for (int64_t i = 0; i < n; i += kLanes) {
        Vec sum = Zero();
        for (int64_t j = 0; j < args.count; ++j) {
          if (args.places[j] < 0) continue;
          auto row = rows;
          row.data += args.places[j] * args.stride;
          const Vec x = row.Get(i, n - i);
          sum = args.weights == nullptr ? Add(sum, x) : Fma(Set(args.weights[j]), x, sum);
        }
        if (args.shared.data != nullptr) {
          WithType(args.shared, [&](auto shared) { sum = Add(sum, shared.Get(i, n - i)); });
        }
        to.Put(i, sum, n - i);
      }
    });
  });
}

inline void RopeHalves(Run x, const float* table, int64_t half) {
  WithType(x, [&](auto low) {
    auto high = low;
    high.data += half;
    for (int64_t i = 0; i < half; i += kLanes) {
      const int64_t n = half - i;
      const Vec cosine = GetF32(table, i, n);
      const Vec sine = GetF32(table, half + i, n);
      const Vec a = low.Get(i, n);
      const Vec b = high.Get(i, n);
      low.Put(i, Sub(Mul(a, cosine), Mul(b, sine)), n);
      high.Put(i, Fma(b, cosine, Mul(a, sine)), n);
    }
  });
}

// Pairs go through a buffer: there are few of them (the rope part of a latent head).
inline void RopePairs(Run x, const float* table, int64_t half, bool deinterleave) {
  WithType(x, [&](auto run) {
    alignas(64) float in[1024];  // kMaxRopeDim
    alignas(64) float out[1024];
    for (int64_t i = 0; i < 2 * half; i += kLanes) Store(in + i, run.Get(i, 2 * half - i));
    for (int64_t i = 0; i < half; ++i) {
      const float a = in[2 * i];
      const float b = in[2 * i + 1];
      out[deinterleave ? i : 2 * i] = a * table[i] - b * table[half + i];
      out[deinterleave ? half + i : 2 * i + 1] = b * table[i] + a * table[half + i];
    }
    for (int64_t i = 0; i < 2 * half; i += kLanes) run.Put(i, Load(out + i), 2 * half - i);
  });
}

inline float MaxOf(const float* x, int64_t n) {
  const float lowest = -__builtin_inff();
  Vec top = Set(lowest);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) top = Max(Load(x + i), top);
  float result = MaxLanes(top);
  for (; i < n; ++i) result = x[i] > result ? x[i] : result;
  return result;
}

inline float ExpSum(const float* x, int64_t n, float shift, float factor, float* out) {
  Vec sum = Zero();
  for (int64_t i = 0; i < n; i += kLanes) {
    const Vec e = Exp(Mul(Sub(GetF32(x, i, n - i), Set(shift)), Set(factor)));
    PutF32(out, i, e, n - i);
    sum = Add(sum, GetF32(out, i, n - i));
  }
  return SumLanes(sum);
}

inline void SigmoidRow(const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) PutF32(out, i, Sigmoid(GetF32(x, i, n - i)), n - i);
}

inline void FillRows(CpuKernels& kernels) {
  kernels.rms_norm = RmsNormRow;
  kernels.add = AddRow;
  kernels.convert = Convert;
  kernels.weighted_sum = WeightedSum;
  kernels.rope_halves = RopeHalves;
  kernels.rope_pairs = RopePairs;
  kernels.max = MaxOf;
  kernels.exp_sum = ExpSum;
  kernels.sigmoid = SigmoidRow;
}

}  // namespace
}  // namespace moebius::kernels
