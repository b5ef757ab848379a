// Sixteen floats, the width of a panel: one AVX-512 register or two AVX2 ones. Included only by the
// files of avx2/ and avx512/; all is in an unnamed namespace, so that no function compiled for one
// instruction set is visible to the linker (see cpu/kernels.h).
#pragma once

// GCC 12 takes the undefined registers inside its own intrinsics for a mistake of ours.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#include <cstddef>
#include <cstdint>

namespace moebius::kernels {
namespace {

#if defined(__AVX512F__)

using Vec = __m512;

inline Vec Zero() { return _mm512_setzero_ps(); }
inline Vec Set(float x) { return _mm512_set1_ps(x); }
inline __mmask16 Lanes(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
inline Vec Load(const float* p) { return _mm512_loadu_ps(p); }
inline Vec LoadN(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(Lanes(n), p); }
inline void Store(float* p, Vec x) { _mm512_storeu_ps(p, x); }
inline void StoreN(float* p, Vec x, int64_t n) { _mm512_mask_storeu_ps(p, Lanes(n), x); }

inline Vec Widen(__m256i bf16) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
}
inline Vec LoadBf16(const uint16_t* p) {
  return Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Vec LoadBf16N(const uint16_t* p, int64_t n) {
  return Widen(_mm256_maskz_loadu_epi16(Lanes(n), p));
}
// Round to nearest even; NaN stays NaN. (vcvtneps2bf16 would flush denormals.)
inline __m256i Narrow(Vec x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __m512i result = _mm512_mask_blend_epi32(nan, rounded, quiet);
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(result, 16));
}
inline void StoreBf16(uint16_t* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), Narrow(x));
}
inline void StoreBf16N(uint16_t* p, Vec x, int64_t n) {
  _mm256_mask_storeu_epi16(p, Lanes(n), Narrow(x));
}
inline Vec LoadHalf(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

inline Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// The second operand where one is NaN.
inline Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec Round(Vec a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// 2^n for whole n in [-126, 127].
inline Vec Pow2(Vec n) {
  const __m512i biased = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
}
// x where a >= b or either is NaN, else 0.
inline Vec WhereNotLess(Vec a, Vec b, Vec x) {
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), x);
}
inline uint32_t EqualLanes(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }

// A line of 16 outputs x 2 inputs of bfloat16: the even inputs and the odd ones.
inline void SplitBf16(const std::byte* line, Vec& even, Vec& odd) {
  const __m512i bits = _mm512_loadu_si512(line);
  even = _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
  odd = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(-0x10000)));
}

// 64 bytes of e4m3 (two lines of 16 outputs x 2 inputs) as half precision, times 2^-8: the bits fit
// as they are but for the exponent's bias, denormals too. out: per line 16 even, then 16 odd.
inline void Fp8ToHalf(const std::byte* in, uint16_t* out) {
  const __m512i mask = _mm512_set1_epi16(static_cast<int16_t>(0xbf80));
  const __m512i odd = _mm512_loadu_si512(in);
  const __m512i even = _mm512_slli_epi16(odd, 8);
  const __m512i half_even = _mm512_and_si512(_mm512_srai_epi16(even, 1), mask);
  const __m512i half_odd = _mm512_and_si512(_mm512_srai_epi16(odd, 1), mask);
  auto* lines = reinterpret_cast<__m256i*>(out);
  _mm256_store_si256(lines + 0, _mm512_castsi512_si256(half_even));
  _mm256_store_si256(lines + 1, _mm512_castsi512_si256(half_odd));
  _mm256_store_si256(lines + 2, _mm512_extracti64x4_epi64(half_even, 1));
  _mm256_store_si256(lines + 3, _mm512_extracti64x4_epi64(half_odd, 1));
}
// 16 bytes of e4m3, likewise times 2^-8.
inline Vec LoadFp8(const std::byte* p) {
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i half = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(wide, 8), 1),
                                        _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
  return _mm512_cvtph_ps(half);
}

#else

struct Vec {
  __m256 lo;
  __m256 hi;
};

inline Vec Zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Vec Set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline __m256i Lanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)),
                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vec Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Vec LoadN(const float* p, int64_t n) {
  return {_mm256_maskload_ps(p, Lanes(n)), _mm256_maskload_ps(p + 8, Lanes(n - 8))};
}
inline void Store(float* p, Vec x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
inline void StoreN(float* p, Vec x, int64_t n) {
  _mm256_maskstore_ps(p, Lanes(n), x.lo);
  _mm256_maskstore_ps(p + 8, Lanes(n - 8), x.hi);
}

inline __m256 Widen(__m128i bf16) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bf16), 16));
}
inline Vec LoadBf16(const uint16_t* p) {
  return {Widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          Widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}
inline Vec LoadBf16N(const uint16_t* p, int64_t n) {
  alignas(32) uint16_t lanes[16] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return LoadBf16(lanes);
}
inline __m256i RoundBits(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i result = _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(nan));
  return _mm256_srli_epi32(result, 16);
}
// Round to nearest even; NaN stays NaN.
inline __m256i Narrow(Vec x) {
  const __m256i mixed = _mm256_packus_epi32(RoundBits(x.lo), RoundBits(x.hi));
  return _mm256_permute4x64_epi64(mixed, 0xd8);
}
inline void StoreBf16(uint16_t* p, Vec x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), Narrow(x));
}
inline void StoreBf16N(uint16_t* p, Vec x, int64_t n) {
  alignas(32) uint16_t lanes[16];
  StoreBf16(lanes, x);
  for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}
inline Vec LoadHalf(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
}

inline Vec Add(Vec a, Vec b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline Vec Sub(Vec a, Vec b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline Vec Mul(Vec a, Vec b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline Vec Div(Vec a, Vec b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline Vec Fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
// The second operand where one is NaN.
inline Vec Max(Vec a, Vec b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline Vec Min(Vec a, Vec b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline Vec Round(Vec a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}
inline __m256 Pow2(__m256 n) {
  const __m256i biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
}
// 2^n for whole n in [-126, 127].
inline Vec Pow2(Vec n) { return {Pow2(n.lo), Pow2(n.hi)}; }
// x where a >= b or either is NaN, else 0.
inline Vec WhereNotLess(Vec a, Vec b, Vec x) {
  return {_mm256_and_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_NLT_UQ), x.lo),
          _mm256_and_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_NLT_UQ), x.hi)};
}
inline uint32_t EqualLanes(Vec a, Vec b) {
  const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ));
  const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
  return static_cast<uint32_t>(lo | (hi << 8));
}

// A line of 16 outputs x 2 inputs of bfloat16: the even inputs and the odd ones.
inline void SplitBf16(const std::byte* line, Vec& even, Vec& odd) {
  const __m256i mask = _mm256_set1_epi32(-0x10000);
  const __m256i lo = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line));
  const __m256i hi = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(line + 32));
  even = {_mm256_castsi256_ps(_mm256_slli_epi32(lo, 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(hi, 16))};
  odd = {_mm256_castsi256_ps(_mm256_and_si256(lo, mask)),
         _mm256_castsi256_ps(_mm256_and_si256(hi, mask))};
}

// As above: 64 bytes of e4m3 to half precision times 2^-8.
inline void Fp8ToHalf(const std::byte* in, uint16_t* out) {
  const __m256i mask = _mm256_set1_epi16(static_cast<int16_t>(0xbf80));
  auto* lines = reinterpret_cast<__m256i*>(out);
  for (int line = 0; line < 2; ++line) {
    const __m256i odd = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in) + line);
    const __m256i even = _mm256_slli_epi16(odd, 8);
    _mm256_store_si256(lines + 2 * line, _mm256_and_si256(_mm256_srai_epi16(even, 1), mask));
    _mm256_store_si256(lines + 2 * line + 1, _mm256_and_si256(_mm256_srai_epi16(odd, 1), mask));
  }
}
inline Vec LoadFp8(const std::byte* p) {
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i half = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(wide, 8), 1),
                                        _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(half)),
          _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1))};
}

#endif

// The sum of the lanes in a fixed order: lanes i and i + 8, then + 4, + 2, + 1 apart.
inline float SumLanes(Vec x) {
#if defined(__AVX512F__)
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
#else
  const __m256 eight = _mm256_add_ps(x.lo, x.hi);
#endif
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline float MaxLanes(Vec x) {
#if defined(__AVX512F__)
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
#else
  const __m256 eight = _mm256_max_ps(x.lo, x.hi);
#endif
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

}  // namespace
}  // namespace moebius::kernels
