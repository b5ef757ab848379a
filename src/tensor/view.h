// Non-owning views: what operations take. A view is a pointer, a dtype, sizes and strides; it never
// owns and never checks lifetime. Plain values, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "tensor/dtype.h"

namespace moebius {

// A matrix [rows, cols]: elements of a row are adjacent, rows are `stride` elements apart (stride
// >= cols).
struct Mat {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  Mat() = default;
  Mat(void* data, DType dtype, int64_t rows, int64_t cols) : Mat(data, dtype, rows, cols, cols) {}
  Mat(void* data, DType dtype, int64_t rows, int64_t cols, int64_t stride)
      : data(data), dtype(dtype), rows(rows), cols(cols), stride(stride) {}

  std::byte* RowBytes(int64_t row) const {
    return static_cast<std::byte*>(data) + row * stride * static_cast<int64_t>(SizeOf(dtype));
  }
  template <typename T>
  T* Row(int64_t row) const {
    return reinterpret_cast<T*>(RowBytes(row));
  }
  // Rows [begin, begin + count); columns [begin, begin + count).
  Mat Rows(int64_t begin, int64_t count) const {
    return Mat(RowBytes(begin), dtype, count, cols, stride);
  }
  Mat Cols(int64_t begin, int64_t count) const {
    return Mat(static_cast<std::byte*>(data) + begin * static_cast<int64_t>(SizeOf(dtype)), dtype,
               rows, count, stride);
  }
};

// One element as float, whatever the floating dtype (scalar paths and tests; not for kernels).
// `data` need not be aligned: a checkpoint's tensors are where its header says.
inline float LoadFloat(const void* data, DType dtype, int64_t index) {
  const auto load = [&]<typename T>(T element) {
    std::memcpy(&element,
                static_cast<const std::byte*>(data) + index * static_cast<int64_t>(sizeof(T)),
                sizeof(T));
    return element;
  };
  switch (dtype) {
    case DType::kF32:
      return load(float{});
    case DType::kBF16:
      return ToFloat(load(BFloat16{}));
    case DType::kF16:
      return HalfToFloat(load(uint16_t{}));
    case DType::kF8E4M3:
      return F8E4M3ToFloat(load(uint8_t{}));
    default:
      MOEBIUS_CHECK(false && "LoadFloat wants a floating dtype");
      return 0;
  }
}
inline void StoreFloat(void* data, DType dtype, int64_t index, float value) {
  switch (dtype) {
    case DType::kF32:
      static_cast<float*>(data)[index] = value;
      return;
    case DType::kBF16:
      static_cast<BFloat16*>(data)[index] = ToBFloat16(value);
      return;
    case DType::kF16:
      static_cast<uint16_t*>(data)[index] = FloatToHalf(value);
      return;
    default:
      MOEBIUS_CHECK(false && "StoreFloat wants float32, bfloat16 or float16");
  }
}

}  // namespace moebius
