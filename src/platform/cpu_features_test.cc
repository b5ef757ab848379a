#include "platform/cpu_features.h"

#include <gtest/gtest.h>

#include <initializer_list>

namespace moebius::platform {
namespace {

constexpr uint32_t Bits(std::initializer_list<int> bits) {
  uint32_t word = 0;
  for (const int bit : bits) word |= 1u << bit;
  return word;
}

// A Sapphire Rapids server with every state enabled.
CpuidRegisters SapphireRapids() {
  CpuidRegisters registers;
  registers.leaf1_ecx = Bits({12, 27, 28, 29});
  registers.leaf7_ebx = Bits({5, 16, 17, 30, 31});
  registers.leaf7_ecx = Bits({1, 11});
  registers.leaf7_edx = Bits({22, 23, 24, 25});
  registers.leaf7_1_eax = Bits({4, 5});
  registers.xcr0 = 0x602e7;
  return registers;
}

TEST(CpuFeatures, DecodesAllOfAServerCpu) {
  const CpuFeatures features = DecodeCpuid(SapphireRapids());
  EXPECT_EQ(features.Names(),
            "avx2 fma f16c avx_vnni avx512f avx512bw avx512vl avx512dq avx512_bf16 avx512_vnni "
            "avx512_vbmi avx512_fp16 amx_tile amx_bf16 amx_int8");
  EXPECT_EQ(BestIsa(features), Isa::kAvx512);
}

TEST(CpuFeatures, AStateThatTheSystemDoesNotSaveIsNotThere) {
  CpuidRegisters registers = SapphireRapids();
  registers.xcr0 = 0xe7;  // a container or kernel without AMX
  EXPECT_FALSE(DecodeCpuid(registers).amx_tile);
  EXPECT_FALSE(DecodeCpuid(registers).amx_bf16);
  EXPECT_TRUE(DecodeCpuid(registers).avx512_bf16);

  registers.xcr0 = 0x67;  // ZMM16-31 are not saved
  EXPECT_FALSE(DecodeCpuid(registers).avx512f);
  EXPECT_EQ(BestIsa(DecodeCpuid(registers)), Isa::kAvx2);

  registers.xcr0 = 0x3;
  EXPECT_EQ(DecodeCpuid(registers).Names(), "");
  EXPECT_EQ(BestIsa(DecodeCpuid(registers)), Isa::kRef);
}

TEST(CpuFeatures, Avx512WithoutBf16RunsTheAvx2Kernels) {
  CpuidRegisters registers = SapphireRapids();
  registers.leaf7_1_eax = 0;
  EXPECT_EQ(BestIsa(DecodeCpuid(registers)), Isa::kAvx2);
}

TEST(CpuFeatures, Avx2WithoutFmaRunsTheReference) {
  CpuidRegisters registers = SapphireRapids();
  registers.leaf1_ecx &= ~Bits({12});
  EXPECT_EQ(BestIsa(DecodeCpuid(registers)), Isa::kRef);
}

TEST(CpuFeatures, ThisMachineAgreesWithTheCompiler) {
  const CpuFeatures& features = DetectCpu();
  EXPECT_FALSE(features.model.empty());
  EXPECT_EQ(features.vendor.size(), 12u);
  EXPECT_EQ(features.avx2, __builtin_cpu_supports("avx2") != 0);
  EXPECT_EQ(features.fma, __builtin_cpu_supports("fma") != 0);
  EXPECT_EQ(features.avx512f, __builtin_cpu_supports("avx512f") != 0);
  EXPECT_EQ(features.avx512bw, __builtin_cpu_supports("avx512bw") != 0);
  EXPECT_EQ(features.avx512_bf16, __builtin_cpu_supports("avx512bf16") != 0);
  EXPECT_EQ(features.avx512_vbmi, __builtin_cpu_supports("avx512vbmi") != 0);
}

TEST(CpuFeatures, AmxIsRefusedWhereThereIsNone) {
  const Status status = RequestAmx();
  if (!DetectCpu().amx_tile) {
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code(), ErrorCode::kUnsupported);
  } else if (!status) {
    EXPECT_EQ(status.error().code(), ErrorCode::kUnavailable);  // a container may refuse
  }
}

}  // namespace
}  // namespace moebius::platform
