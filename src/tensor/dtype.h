// Element types and their scalar conversions. Plain values, any thread.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace moebius {

enum class DType : uint8_t { kF32, kBF16, kF16, kF8E4M3, kI8, kI32, kI64 };

constexpr size_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
      return 2;
    case DType::kF8E4M3:
    case DType::kI8:
      return 1;
    case DType::kI64:
      return 8;
  }
  return 0;
}

// "float32", "bfloat16", ... (the names of --dtype and of config.json)
const char* DTypeName(DType dtype);

// bfloat16: the upper half of a float32.
struct BFloat16 {
  uint16_t bits = 0;
};
inline float ToFloat(BFloat16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}
// Round to nearest, ties to even; NaN stays NaN (quiet).
inline BFloat16 ToBFloat16(float x) {
  const uint32_t u = std::bit_cast<uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16)};
}

// IEEE half precision.
float HalfToFloat(uint16_t bits);
uint16_t FloatToHalf(float x);  // round to nearest even

// fp8 e4m3fn: sign, 4 exponent bits (bias 7), 3 mantissa bits; no infinity, 0x7f and 0xff are NaN,
// largest 448.
float F8E4M3ToFloat(uint8_t bits);
uint8_t FloatToF8E4M3(float x);  // round to nearest even, saturating at 448

}  // namespace moebius
