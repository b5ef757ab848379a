#include "kernels/cpu/simd/rows.h"

#include "kernels/cpu/tables.h"

namespace moebius::kernels {

void FillAvx512Rows(CpuKernels& kernels) { FillRows(kernels); }

}  // namespace moebius::kernels
