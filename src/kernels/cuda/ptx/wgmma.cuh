// Warpgroup matrix multiply-accumulate (wgmma), both operands in shared memory, K-major tiles in
// the 128-byte swizzle that the copy engine writes. Device code only; all 128 threads of a
// warpgroup call together.
//
// Accumulator layout: thread t of the warpgroup holds, for every 8 columns j, d[4j..4j+3] = rows r,
// r, r + 8, r + 8 and columns 8j + c, 8j + c + 1, 8j + c, 8j + c + 1, with r = 16 * (t / 32) + (t %
// 32) / 4 and c = 2 * (t % 4).
#pragma once

#include <cstdint>

#include "kernels/cuda/ptx/mbarrier.cuh"

namespace moebius::cuda::ptx {

// Describes a tile whose rows are 128 bytes of K and whose start is 1024-byte aligned (plus 32
// bytes a step in K).
__device__ __forceinline__ uint64_t TileDescriptor(const void* tile) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  constexpr uint64_t kStrideOf8Rows = uint64_t{1024 >> 4} << 32;
  constexpr uint64_t kLeadingUnused = uint64_t{1} << 16;
  return kSwizzle128 | kStrideOf8Rows | kLeadingUnused | ((SharedAddress(tile) & 0x3FFFF) >> 4);
}

// One instruction covers 32 bytes of K: two units of 16 bytes further in the descriptor.
constexpr int kDescriptorStep = 2;

__device__ __forceinline__ void WgmmaFence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void WgmmaCommit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void WgmmaWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving uses of accumulators across a wait.
template <int kSize>
__device__ __forceinline__ void PinRegisters(float (&d)[kSize]) {
#pragma unroll
  for (int i = 0; i < kSize; ++i) {
    asm volatile("" : "+f"(d[i])::"memory");
  }
}

// Wgmma<Type, kN>::Run(d, a, b, accumulate): d[64 x kN] = a[64 x 32 bytes] * b[kN x 32 bytes]^T (+
// d).
struct E4m3 {};
struct Bf16 {};
template <class Type, int kN>
struct Wgmma;

// Accumulators in chunks of four: their names in the instruction, and the operands behind them.
#define MOEBIUS_NAMES_4 "%0, %1, %2, %3"
#define MOEBIUS_NAMES_8 ", %4, %5, %6, %7"
#define MOEBIUS_NAMES_16 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define MOEBIUS_NAMES_32                                                          \
  ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, " \
  "%31"
#define MOEBIUS_NAMES_48                                                          \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, " \
  "%47"
#define MOEBIUS_NAMES_64                                                          \
  ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, " \
  "%63"
#define MOEBIUS_NAMES_128                                                            \
  ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, "    \
  "%79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, " \
  "%95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, "  \
  "%109, %110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, "   \
  "%122, %123, %124, %125, %126, %127"
#define MOEBIUS_ACC4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define MOEBIUS_ACC8(i) MOEBIUS_ACC4(i), MOEBIUS_ACC4(i + 4)
#define MOEBIUS_ACC16(i) MOEBIUS_ACC8(i), MOEBIUS_ACC8(i + 8)
#define MOEBIUS_ACC32(i) MOEBIUS_ACC16(i), MOEBIUS_ACC16(i + 16)
#define MOEBIUS_ACC48(i) MOEBIUS_ACC32(i), MOEBIUS_ACC16(i + 32)
#define MOEBIUS_ACC64(i) MOEBIUS_ACC32(i), MOEBIUS_ACC32(i + 32)
#define MOEBIUS_ACC128(i) MOEBIUS_ACC64(i), MOEBIUS_ACC64(i + 64)

#define MOEBIUS_WGMMA(kTag, kN, kShape, kTail, kNames, kAccs, kA, kB, kP)                  \
  template <>                                                                              \
  struct Wgmma<kTag, kN> {                                                                 \
    __device__ __forceinline__ static void Run(float (&d)[kN / 2], uint64_t a, uint64_t b, \
                                               int accumulate) {                           \
      asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " kP                                  \
                   ", 0;\n"                                                                \
                   "wgmma.mma_async.sync.aligned." kShape " {" kNames "}, " kA ", " kB     \
                   ", p, 1, 1" kTail ";\n}\n"                                              \
                   : kAccs                                                                 \
                   : "l"(a), "l"(b), "r"(accumulate));                                     \
    }                                                                                      \
  };

// clang-format off
MOEBIUS_WGMMA(E4m3, 8, "m64n8k32.f32.e4m3.e4m3", "",
              MOEBIUS_NAMES_4, MOEBIUS_ACC4(0), "%4", "%5", "%6")
MOEBIUS_WGMMA(Bf16, 8, "m64n8k16.f32.bf16.bf16", ", 0, 0",
              MOEBIUS_NAMES_4, MOEBIUS_ACC4(0), "%4", "%5", "%6")
MOEBIUS_WGMMA(E4m3, 16, "m64n16k32.f32.e4m3.e4m3", "",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8, MOEBIUS_ACC8(0), "%8", "%9", "%10")
MOEBIUS_WGMMA(Bf16, 16, "m64n16k16.f32.bf16.bf16", ", 0, 0",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8, MOEBIUS_ACC8(0), "%8", "%9", "%10")
MOEBIUS_WGMMA(E4m3, 32, "m64n32k32.f32.e4m3.e4m3", "",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16, MOEBIUS_ACC16(0), "%16", "%17", "%18")
MOEBIUS_WGMMA(Bf16, 32, "m64n32k16.f32.bf16.bf16", ", 0, 0",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16, MOEBIUS_ACC16(0), "%16", "%17", "%18")
MOEBIUS_WGMMA(E4m3, 64, "m64n64k32.f32.e4m3.e4m3", "",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16 MOEBIUS_NAMES_32, MOEBIUS_ACC32(0), "%32", "%33", "%34")
MOEBIUS_WGMMA(Bf16, 64, "m64n64k16.f32.bf16.bf16", ", 0, 0",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16 MOEBIUS_NAMES_32, MOEBIUS_ACC32(0), "%32", "%33", "%34")
MOEBIUS_WGMMA(E4m3, 96, "m64n96k32.f32.e4m3.e4m3", "",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16 MOEBIUS_NAMES_32 MOEBIUS_NAMES_48, MOEBIUS_ACC48(0), "%48", "%49", "%50")
MOEBIUS_WGMMA(Bf16, 96, "m64n96k16.f32.bf16.bf16", ", 0, 0",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16 MOEBIUS_NAMES_32 MOEBIUS_NAMES_48, MOEBIUS_ACC48(0), "%48", "%49", "%50")
MOEBIUS_WGMMA(E4m3, 128, "m64n128k32.f32.e4m3.e4m3", "",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16 MOEBIUS_NAMES_32 MOEBIUS_NAMES_48 MOEBIUS_NAMES_64, MOEBIUS_ACC64(0), "%64", "%65", "%66")
MOEBIUS_WGMMA(Bf16, 128, "m64n128k16.f32.bf16.bf16", ", 0, 0",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16 MOEBIUS_NAMES_32 MOEBIUS_NAMES_48 MOEBIUS_NAMES_64, MOEBIUS_ACC64(0), "%64", "%65", "%66")
MOEBIUS_WGMMA(Bf16, 256, "m64n256k16.f32.bf16.bf16", ", 0, 0",
              MOEBIUS_NAMES_4 MOEBIUS_NAMES_8 MOEBIUS_NAMES_16 MOEBIUS_NAMES_32 MOEBIUS_NAMES_48 MOEBIUS_NAMES_64 MOEBIUS_NAMES_128, MOEBIUS_ACC128(0), "%128", "%129", "%130")
// clang-format on
#undef MOEBIUS_NAMES_4
#undef MOEBIUS_NAMES_8
#undef MOEBIUS_NAMES_16
#undef MOEBIUS_NAMES_32
#undef MOEBIUS_NAMES_48
#undef MOEBIUS_NAMES_64
#undef MOEBIUS_NAMES_128
#undef MOEBIUS_ACC4
#undef MOEBIUS_ACC8
#undef MOEBIUS_ACC16
#undef MOEBIUS_ACC32
#undef MOEBIUS_ACC48
#undef MOEBIUS_ACC64
#undef MOEBIUS_ACC128
#undef MOEBIUS_WGMMA

}  // namespace moebius::cuda::ptx
