#include "kernels/cuda/attention/tensor_map.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/ptx/tensor_map.h"

namespace moebius::kernels::cuda {

namespace {

template <int kDims>
int EncodeMap(const void* data, const cuuint64_t (&dims)[kDims],
              const cuuint64_t (&strides)[kDims - 1], const cuuint32_t (&box)[kDims],
              CUtensorMap* map) {
  const moebius::cuda::ptx::TensorMapEncoder encode = moebius::cuda::ptx::FindTensorMapEncoder();
  if (encode == nullptr) return cudaErrorSymbolNotFound;
  cuuint32_t steps[kDims];
  for (cuuint32_t& step : steps) step = 1;
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, kDims, const_cast<void*>(data), dims, strides,
             box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

int MakeColumnsMap(const void* data, int64_t rows, int64_t row_bytes, int columns, int box_rows,
                   int box_columns, CUtensorMap* map) {
  return EncodeMap<3>(data, {64, static_cast<cuuint64_t>(rows), static_cast<cuuint64_t>(columns)},
                      {static_cast<cuuint64_t>(row_bytes), 128},
                      {64, static_cast<cuuint32_t>(box_rows), static_cast<cuuint32_t>(box_columns)},
                      map);
}

int MakeGroupsMap(const void* data, int64_t rows, int64_t row_bytes, int columns, int box_rows,
                  int box_columns, CUtensorMap* map) {
  const auto bytes = static_cast<cuuint64_t>(row_bytes);
  return EncodeMap<4>(
      data, {64, 8, static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows / 8)},
      {bytes, 128, 8 * bytes},
      {64, 8, static_cast<cuuint32_t>(box_columns), static_cast<cuuint32_t>(box_rows / 8)}, map);
}

}  // namespace moebius::kernels::cuda
