// Compiled with -O3: plain loops over blocks that the compiler turns into vector code.
#include "comm/sum.h"

#include <algorithm>

#include "base/check.h"

namespace moebius::comm {
namespace {

constexpr int64_t kBlock = 1024;  // of running sums: they stay in the first-level cache

float Widen(float x) { return x; }
float Widen(BFloat16 x) { return ToFloat(x); }

void Narrow(float x, float& out) { out = x; }
// ToBFloat16 without its branch.
void Narrow(float x, BFloat16& out) {
  const auto u = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (u + 0x7fffU + ((u >> 16) & 1)) >> 16;
  const uint32_t quiet = (u >> 16) | 0x40;
  out.bits = static_cast<uint16_t>((u & 0x7fffffffU) > 0x7f800000U ? quiet : rounded);
}

template <typename T>
void Sum(std::span<const std::byte* const> parts, int64_t count, T* __restrict out) {
  float sums[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    std::fill_n(sums, n, 0.0F);
    for (const std::byte* part : parts) {
      const T* __restrict in = reinterpret_cast<const T*>(part) + begin;
      for (int64_t i = 0; i < n; ++i) sums[i] += Widen(in[i]);
    }
    for (int64_t i = 0; i < n; ++i) Narrow(sums[i], out[begin + i]);
  }
}

}  // namespace

void SumParts(std::span<const std::byte* const> parts, DType dtype, int64_t count, std::byte* out) {
  if (dtype == DType::kF32) {
    Sum(parts, count, reinterpret_cast<float*>(out));
  } else {
    MOEBIUS_CHECK(dtype == DType::kBF16);
    Sum(parts, count, reinterpret_cast<BFloat16*>(out));
  }
}

}  // namespace moebius::comm
