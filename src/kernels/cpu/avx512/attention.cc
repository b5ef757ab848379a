#include "kernels/cpu/simd/attention.h"

#include "kernels/cpu/tables.h"

namespace moebius::kernels {

void FillAvx512Attention(CpuKernels& kernels) { FillAttention(kernels); }

}  // namespace moebius::kernels
