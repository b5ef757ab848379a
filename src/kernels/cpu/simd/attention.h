// Attention's inner kernel over Vec: scores of a tile of rows against a block of cached positions,
// the online softmax, and the sum of values. A row's arithmetic depends on its own positions alone:
// what it does not see has probability zero, and adding zero changes nothing.
#pragma once

#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd/math.h"
#include "kernels/cpu/simd/rows.h"
#include "kernels/cpu/simd/vec.h"

namespace moebius::kernels {
namespace {

// The four sums of lanes, each in the order of SumLanes.
inline __m128 SumLanes4(const Vec* x) {
#if defined(__AVX512F__)
  const Vec ab =
      Add(_mm512_shuffle_f32x4(x[0], x[1], 0x44), _mm512_shuffle_f32x4(x[0], x[1], 0xee));
  const Vec cd =
      Add(_mm512_shuffle_f32x4(x[2], x[3], 0x44), _mm512_shuffle_f32x4(x[2], x[3], 0xee));
  const Vec abcd = Add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  const Vec two = Add(abcd, _mm512_permute_ps(abcd, 0x4e));
  const Vec one = Add(two, _mm512_permute_ps(two, 0xb1));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  return _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, one));
#else
  const auto fold = [](Vec v) { return _mm256_add_ps(v.lo, v.hi); };
  const auto fold2 = [](__m256 a, __m256 b) {
    return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
  };
  const __m256 ab = fold2(fold(x[0]), fold(x[1]));
  const __m256 cd = fold2(fold(x[2]), fold(x[3]));
  const __m256 two =
      _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));
  const __m256 one = _mm256_add_ps(two, _mm256_permute_ps(two, 0xb1));  // a a c c | b b d d
  return _mm_unpacklo_ps(_mm_permute_ps(_mm256_castps256_ps128(one), 0x08),
                         _mm_permute_ps(_mm256_extractf128_ps(one, 1), 0x08));
#endif
}

#if defined(__AVX512F__)
constexpr int kScoreRows = 4;
constexpr int kValueRows = 4;
constexpr int kValueChunks = 4;
#else
constexpr int kScoreRows = 1;
constexpr int kValueRows = 2;
constexpr int kValueChunks = 2;
#endif
constexpr int kScoreKeys = 4;

template <typename D>
const typename D::Element* CacheRow(const void* const* rows, int64_t j) {
  return static_cast<const typename D::Element*>(rows[j]);
}

// Rows of a paged cache lie apart and are short: the hardware does not see the next one coming. The
// values of a block are asked for while its scores are computed, the next block's keys while its
// values are added; each by the first rows of the tile.
template <typename D>
void PrefetchRow(const void* row, int64_t elements) {
  const auto* p = static_cast<const char*>(row);
  const int64_t bytes = elements * static_cast<int64_t>(sizeof(typename D::Element));
  for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(p + i, _MM_HINT_T0);
}

// scores[r][j] for R rows from row r0 and all positions.
template <typename D, int R>
void Scores(const AttentionTile& t, int64_t r0) {
  const float* q = t.q + r0 * t.q_stride;
  const int64_t whole = t.head_dim / kLanes * kLanes;
  for (int64_t j0 = 0; j0 < t.count; j0 += kScoreKeys) {
    const typename D::Element* k[kScoreKeys];
    for (int64_t j = 0; j < kScoreKeys; ++j) {
      const int64_t row = j0 + j < t.count ? j0 + j : t.count - 1;
      k[j] = CacheRow<D>(t.k_rows, row);
      if (r0 == 0) PrefetchRow<D>(t.v_rows[row], t.v_head_dim);
    }
    Vec sums[R][kScoreKeys];
    for (int r = 0; r < R; ++r) {
      for (int j = 0; j < kScoreKeys; ++j) sums[r][j] = Zero();
    }
    const auto step = [&](int64_t d, auto get) {
      Vec keys[kScoreKeys];
#pragma GCC unroll 4
      for (int j = 0; j < kScoreKeys; ++j) keys[j] = get(k[j], d);
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const Vec x = Load(q + r * t.q_stride + d);
#pragma GCC unroll 4
        for (int j = 0; j < kScoreKeys; ++j) sums[r][j] = Fma(x, keys[j], sums[r][j]);
      }
    };
    for (int64_t d = 0; d < whole; d += kLanes) {
      step(d, [](const typename D::Element* p, int64_t i) { return D::Get(p, i); });
    }
    if (whole < t.head_dim) {
      step(whole, [&](const typename D::Element* p, int64_t i) {
        return D::GetN(p, i, t.head_dim - whole);
      });
    }
    for (int r = 0; r < R; ++r) {
      _mm_storeu_ps(t.scores + (r0 + r) * kAttentionBlock + j0, SumLanes4(sums[r]));
    }
  }
}

// Scores to probabilities of this block (relative to the running maximum), running values brought
// to the new maximum.
inline void SoftmaxRow(const AttentionTile& t, int64_t r) {
  float* scores = t.scores + r * kAttentionBlock;
  const float never = -__builtin_inff();
  const int64_t first = t.first[r] - t.begin;
  const int64_t last = t.last[r] - t.begin;
  const int64_t padded = (t.count + kLanes - 1) / kLanes * kLanes;
  for (int64_t j = 0; j < first && j < t.count; ++j) scores[j] = never;
  for (int64_t j = last + 1 > 0 ? last + 1 : 0; j < padded; ++j) scores[j] = never;
  float top = MaxOf(scores, padded);
  if (t.top[r] > top) top = t.top[r];
  const float shift = top == never ? 0.0f : top;
  if (t.top[r] != top) {
    const Vec factor = Exp(Set(t.top[r] - shift));
    alignas(64) float lanes[kLanes];
    Store(lanes, factor);
    t.sum[r] *= lanes[0];
    float* out = t.out + r * t.out_stride;
    for (int64_t d = 0; d < t.out_stride; d += kLanes) Store(out + d, Mul(Load(out + d), factor));
    t.top[r] = top;
  }
  t.sum[r] += ExpSum(scores, padded, shift, 1.0f, scores);
}

// out[r][d ..] += sum over j of p[r][j] v[j][d ..] for R rows and C chunks of 16 columns, the last
// of them n wide.
template <typename D, int R, int C>
void Values(const AttentionTile& t, int64_t r0, int64_t d, int64_t n, int64_t begin, int64_t end) {
  const float* p = t.scores + r0 * kAttentionBlock;
  float* out = t.out + r0 * t.out_stride + d;
  Vec sums[R][C];
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) sums[r][c] = Load(out + r * t.out_stride + c * kLanes);
  }
  for (int64_t j = begin; j < end; ++j) {
    const auto* v = CacheRow<D>(t.v_rows, j) + d;
    if (r0 == 0 && d == 0 && j < t.next_count) PrefetchRow<D>(t.next_k_rows[j], t.head_dim);
    Vec values[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) {
      const bool whole = C > 1 || n == kLanes;
      values[c] = whole ? D::Get(v, c * kLanes) : D::GetN(v, 0, n);
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      const Vec weight = Set(p[r * kAttentionBlock + j]);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sums[r][c] = Fma(weight, values[c], sums[r][c]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int c = 0; c < C; ++c) Store(out + r * t.out_stride + c * kLanes, sums[r][c]);
  }
}

template <typename D, int R>
void AllValues(const AttentionTile& t, int64_t r0, int64_t begin, int64_t end) {
  constexpr int64_t kWide = kValueChunks * kLanes;
  int64_t d = 0;
  for (; d + kWide <= t.v_head_dim; d += kWide) {
    Values<D, R, kValueChunks>(t, r0, d, kLanes, begin, end);
  }
  for (; d < t.v_head_dim; d += kLanes) {
    const int64_t n = t.v_head_dim - d < kLanes ? t.v_head_dim - d : kLanes;
    Values<D, R, 1>(t, r0, d, n, begin, end);
  }
}

template <typename D>
void Tile16(const AttentionTile& t) {
  int64_t r = 0;
  for (; r + kScoreRows <= t.rows; r += kScoreRows) Scores<D, kScoreRows>(t, r);
  for (; r < t.rows; ++r) Scores<D, 1>(t, r);
  int64_t begin = t.count;
  int64_t end = 0;
  for (r = 0; r < t.rows; ++r) {
    SoftmaxRow(t, r);
    const int64_t first = t.first[r] > t.begin ? t.first[r] - t.begin : 0;
    const int64_t last = t.last[r] - t.begin + 1 < t.count ? t.last[r] - t.begin + 1 : t.count;
    begin = first < begin ? first : begin;
    end = last > end ? last : end;
  }
  for (r = 0; r + kValueRows <= t.rows; r += kValueRows) AllValues<D, kValueRows>(t, r, begin, end);
  for (; r < t.rows; ++r) AllValues<D, 1>(t, r, begin, end);
}

inline void RunAttentionTile(const AttentionTile& tile) {
  if (tile.cache_dtype == DType::kF32) {
    Tile16<F32>(tile);
  } else {
    Tile16<BF16>(tile);
  }
}

inline void AttentionFinish(const float* in, float sum, int64_t n, Run out) {
  WithType(out, [&](auto to) {
    for (int64_t i = 0; i < n; i += kLanes) to.Put(i, Div(GetF32(in, i, n - i), Set(sum)), n - i);
  });
}

// The one magnitude above 448 is the code of NaN.
inline Vec WidenFp8(Vec x, float scale) {
  const Vec magnitude = Max(x, Sub(Zero(), x));
  const Vec nan = WhereNotLess(magnitude, Set(1.875f), Set(__builtin_nanf("")));
  return Add(Mul(x, Set(scale * 256)), nan);
}
inline void WidenE4m3(const std::byte* in, int64_t n, float scale, float* out) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) Store(out + i, WidenFp8(LoadFp8(in + i), scale));
  if (i == n) return;
  std::byte rest[kLanes] = {};
  for (int64_t j = i; j < n; ++j) rest[j - i] = in[j];
  StoreN(out + i, WidenFp8(LoadFp8(rest), scale), n - i);
}

inline void FillAttention(CpuKernels& kernels) {
  kernels.widen_e4m3 = WidenE4m3;
  kernels.attention_tile = RunAttentionTile;
  kernels.attention_finish = AttentionFinish;
}

}  // namespace
}  // namespace moebius::kernels
