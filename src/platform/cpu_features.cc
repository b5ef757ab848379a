#include "platform/cpu_features.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace moebius::platform {
namespace {

constexpr bool Bit(uint64_t word, int bit) { return ((word >> bit) & 1) != 0; }

// Sets of XCR0 bits: a state is usable only if the system saves all of its parts.
constexpr uint64_t kXcr0Avx = 0x6;      // SSE, AVX
constexpr uint64_t kXcr0Avx512 = 0xe6;  // and opmask, upper halves of ZMM0-15, ZMM16-31
constexpr uint64_t kXcr0Amx = 0x60000;  // XTILECFG, XTILEDATA
constexpr bool Has(uint64_t word, uint64_t bits) { return (word & bits) == bits; }

// Without -mxsave there is no intrinsic for it.
uint64_t ReadXcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

CpuidRegisters ReadCpuid() {
  CpuidRegisters registers;
  uint32_t eax = 0;
  uint32_t ebx = 0;
  uint32_t ecx = 0;
  uint32_t edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0) return registers;
  registers.leaf1_ecx = ecx;
  if (Bit(ecx, 27)) registers.xcr0 = ReadXcr0();  // OSXSAVE
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return registers;
  registers.leaf7_ebx = ebx;
  registers.leaf7_ecx = ecx;
  registers.leaf7_edx = edx;
  const uint32_t last_subleaf = eax;
  if (last_subleaf >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0) {
    registers.leaf7_1_eax = eax;
  }
  return registers;
}

std::string ReadVendor() {
  uint32_t eax = 0;
  uint32_t text[3] = {};
  if (__get_cpuid(0, &eax, &text[0], &text[2], &text[1]) == 0) return "unknown";
  return std::string(reinterpret_cast<const char*>(text), sizeof(text));
}

std::string ReadModel() {
  constexpr uint32_t kFirstBrandLeaf = 0x80000002;
  uint32_t text[12] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    uint32_t* part = text + 4 * i;
    if (__get_cpuid(kFirstBrandLeaf + i, &part[0], &part[1], &part[2], &part[3]) == 0) {
      return "unknown";
    }
  }
  const char* chars = reinterpret_cast<const char*>(text);
  std::string model(chars, strnlen(chars, sizeof(text)));
  model.erase(0, model.find_first_not_of(' '));
  model.erase(model.find_last_not_of(' ') + 1);
  return model.empty() ? "unknown" : model;
}

}  // namespace

CpuFeatures DecodeCpuid(const CpuidRegisters& registers) {
  CpuFeatures features;
  if (Has(registers.xcr0, kXcr0Avx) && Bit(registers.leaf1_ecx, 28)) {
    features.avx2 = Bit(registers.leaf7_ebx, 5);
    features.fma = Bit(registers.leaf1_ecx, 12);
    features.f16c = Bit(registers.leaf1_ecx, 29);
    features.avx_vnni = Bit(registers.leaf7_1_eax, 4);
  }
  if (Has(registers.xcr0, kXcr0Avx512) && Bit(registers.leaf7_ebx, 16)) {
    features.avx512f = true;
    features.avx512bw = Bit(registers.leaf7_ebx, 30);
    features.avx512vl = Bit(registers.leaf7_ebx, 31);
    features.avx512dq = Bit(registers.leaf7_ebx, 17);
    features.avx512_bf16 = Bit(registers.leaf7_1_eax, 5);
    features.avx512_vnni = Bit(registers.leaf7_ecx, 11);
    features.avx512_vbmi = Bit(registers.leaf7_ecx, 1);
    features.avx512_fp16 = Bit(registers.leaf7_edx, 23);
  }
  if (Has(registers.xcr0, kXcr0Amx) && Bit(registers.leaf7_edx, 24)) {
    features.amx_tile = true;
    features.amx_bf16 = Bit(registers.leaf7_edx, 22);
    features.amx_int8 = Bit(registers.leaf7_edx, 25);
  }
  return features;
}

std::string CpuFeatures::Names() const {
  const std::pair<bool, const char*> all[] = {
      {avx2, "avx2"},
      {fma, "fma"},
      {f16c, "f16c"},
      {avx_vnni, "avx_vnni"},
      {avx512f, "avx512f"},
      {avx512bw, "avx512bw"},
      {avx512vl, "avx512vl"},
      {avx512dq, "avx512dq"},
      {avx512_bf16, "avx512_bf16"},
      {avx512_vnni, "avx512_vnni"},
      {avx512_vbmi, "avx512_vbmi"},
      {avx512_fp16, "avx512_fp16"},
      {amx_tile, "amx_tile"},
      {amx_bf16, "amx_bf16"},
      {amx_int8, "amx_int8"},
  };
  std::string names;
  for (const auto& [present, name] : all) {
    if (!present) continue;
    if (!names.empty()) names += ' ';
    names += name;
  }
  return names;
}

const CpuFeatures& DetectCpu() {
  static const CpuFeatures features = [] {
    CpuFeatures detected = DecodeCpuid(ReadCpuid());
    detected.vendor = ReadVendor();
    detected.model = ReadModel();
    return detected;
  }();
  return features;
}

Isa BestIsa(const CpuFeatures& features) {
  if (!(features.avx2 && features.fma && features.f16c)) return Isa::kRef;
  const bool avx512 = features.avx512f && features.avx512bw && features.avx512vl &&
                      features.avx512dq && features.avx512_bf16;
  return avx512 ? Isa::kAvx512 : Isa::kAvx2;
}

Status RequestAmx() {
  if (!DetectCpu().amx_tile) {
    return MakeError(ErrorCode::kUnsupported, "this CPU or system has no AMX tiles");
  }
  constexpr long kArchReqXcompPerm = 0x1023;  // asm/prctl.h of newer kernels
  constexpr long kXfeatureXtileData = 18;
  if (syscall(SYS_arch_prctl, kArchReqXcompPerm, kXfeatureXtileData) != 0) {
    return MakeError(ErrorCode::kUnavailable, "the kernel refused AMX to this process: {}",
                     std::strerror(errno));
  }
  return {};
}

}  // namespace moebius::platform
