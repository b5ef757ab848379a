// Each file of avx2/ and avx512/ fills its part of a table. Called once at start-up, and only on a
// machine that has the instruction set.
#pragma once

#include "kernels/cpu/kernels.h"

namespace moebius::kernels {

void FillAvx2Gemm(CpuKernels& kernels);
void FillAvx2Rows(CpuKernels& kernels);
void FillAvx2Attention(CpuKernels& kernels);

void FillAvx512Gemm(CpuKernels& kernels);
void FillAvx512Rows(CpuKernels& kernels);
void FillAvx512Attention(CpuKernels& kernels);

}  // namespace moebius::kernels
