#include "kernels/cuda/attention/tensor_map.h"

#include <cuda_runtime_api.h>

#include "kernels/cuda/ptx/tensor_map.h"

namespace moebius::kernels::cuda {

int MakeColumnsMap(const void* data, int64_t rows, int64_t row_bytes, int columns, int box_rows,
                   int box_columns, CUtensorMap* map, int64_t column_bytes) {
  const moebius::cuda::ptx::TensorMapEncoder encode = moebius::cuda::ptx::FindTensorMapEncoder();
  if (encode == nullptr) return cudaErrorSymbolNotFound;
  const cuuint64_t dims[3] = {64, static_cast<cuuint64_t>(rows), static_cast<cuuint64_t>(columns)};
  const cuuint64_t strides[2] = {static_cast<cuuint64_t>(row_bytes),
                                 static_cast<cuuint64_t>(column_bytes)};
  const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(box_rows),
                             static_cast<cuuint32_t>(box_columns)};
  const cuuint32_t steps[3] = {1, 1, 1};
  const CUresult result =
      encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, const_cast<void*>(data), dims, strides, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace moebius::kernels::cuda
