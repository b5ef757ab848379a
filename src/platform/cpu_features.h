// What this CPU can do and what the operating system lets us use of it, and the instruction set
// that follows from both. Read once, then constant: any thread may call everything here.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace moebius::platform {

// A feature is true only if the CPU has it and the system saves its registers (XCR0).
struct CpuFeatures {
  std::string vendor;  // "GenuineIntel"
  std::string model;   // the brand string: "Intel(R) Xeon(R) ..."
  bool avx2 = false;
  bool fma = false;
  bool f16c = false;
  bool avx_vnni = false;
  bool avx512f = false;
  bool avx512bw = false;
  bool avx512vl = false;
  bool avx512dq = false;
  bool avx512_bf16 = false;
  bool avx512_vnni = false;
  bool avx512_vbmi = false;
  bool avx512_fp16 = false;
  bool amx_tile = false;  // also needs RequestAmx() before the first tile instruction
  bool amx_bf16 = false;
  bool amx_int8 = false;

  // The names of what is there, separated by spaces, in the order above: "avx2 fma f16c avx512f
  // ...".
  std::string Names() const;
};

// This machine's.
const CpuFeatures& DetectCpu();

// Instruction sets with kernels of their own, each including the one before it. Which one runs is
// kernels/backend.h's choice (MOEBIUS_ISA).
enum class Isa {
  kRef,     // scalar C++
  kAvx2,    // needs avx2, fma, f16c
  kAvx512,  // also avx512 f, bw, vl, dq and bf16
};

// The best instruction set that these features allow.
Isa BestIsa(const CpuFeatures& features);

// Asks the kernel once for the right to use AMX tiles in this process (Linux hands it out on
// demand). kUnsupported if the CPU has none, kUnavailable if the kernel or the container refuses:
// then use another instruction set.
Status RequestAmx();

// The registers that cpuid and xgetbv answer with, as far as they matter here; recorded ones drive
// the tests.
struct CpuidRegisters {
  uint32_t leaf1_ecx = 0;
  uint32_t leaf7_ebx = 0;
  uint32_t leaf7_ecx = 0;
  uint32_t leaf7_edx = 0;
  uint32_t leaf7_1_eax = 0;
  uint64_t xcr0 = 0;  // 0 if the system has not enabled xsave
};
// Intel SDM volume 2, CPUID; volume 1, chapter 13 (XCR0) and chapter 18 (AMX).
CpuFeatures DecodeCpuid(const CpuidRegisters& registers);

}  // namespace moebius::platform
