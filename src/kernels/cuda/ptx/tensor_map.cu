#include "kernels/cuda/ptx/tensor_map.h"

#include <cuda_runtime_api.h>

namespace moebius::cuda::ptx {
namespace {

TensorMapEncoder LookUpEncoder() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                             12000, cudaEnableDefault, &found);
  if (error != cudaSuccess || found != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<TensorMapEncoder>(function);
}

}  // namespace

TensorMapEncoder FindTensorMapEncoder() {
  static const TensorMapEncoder encoder = LookUpEncoder();
  return encoder;
}

const char* EncodeTensorMap(const TensorMapSpec& spec, CUtensorMap* map) {
  const TensorMapEncoder encode = FindTensorMapEncoder();
  if (encode == nullptr) {
    return "the driver has no cuTensorMapEncodeTiled (CUDA 12 or newer is needed)";
  }
  const cuuint64_t dims[2] = {spec.columns, spec.rows};
  const cuuint64_t strides[1] = {spec.row_bytes};
  const cuuint32_t box[2] = {spec.box_columns, spec.box_rows};
  const cuuint32_t steps[2] = {1, 1};
  const CUresult result =
      encode(map, spec.type, 2, const_cast<void*>(spec.base), dims, strides, box, steps,
             CU_TENSOR_MAP_INTERLEAVE_NONE,
             spec.swizzle_128b ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? nullptr
                                : "the driver refused a tensor map (address, sizes or strides)";
}

}  // namespace moebius::cuda::ptx
