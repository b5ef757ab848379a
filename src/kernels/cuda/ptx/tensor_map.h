// Tensor maps: what the copy engine must know about an array in device memory. Host code of .cu
// files. The driver's encoder is looked up once, at run time, so nothing links against libcuda.
#pragma once

#include <cuda.h>

#include <cstdint>

namespace moebius::cuda::ptx {

using TensorMapEncoder = decltype(&cuTensorMapEncodeTiled);

// Null: the driver is older than CUDA 12.
TensorMapEncoder FindTensorMapEncoder();

struct TensorMapSpec {
  CUtensorMapDataType type;
  const void* base;  // 16-byte aligned
  uint64_t columns;  // contiguous dimension, elements
  uint64_t rows;
  uint64_t row_bytes;    // distance of rows, a multiple of 16
  uint32_t box_columns;  // at most 256; with a swizzle 128 bytes
  uint32_t box_rows;     // at most 256
  bool swizzle_128b;
};

// Fills `map`, of two dimensions. Returns null, or what went wrong (a string that lives forever).
const char* EncodeTensorMap(const TensorMapSpec& spec, CUtensorMap* map);

}  // namespace moebius::cuda::ptx
