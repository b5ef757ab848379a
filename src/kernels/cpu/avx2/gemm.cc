#include "kernels/cpu/simd/gemm.h"

#include "kernels/cpu/tables.h"

namespace moebius::kernels {

void FillAvx2Gemm(CpuKernels& kernels) { FillGemm(kernels); }

}  // namespace moebius::kernels
