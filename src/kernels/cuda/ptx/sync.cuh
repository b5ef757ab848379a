// Clusters, register budgets and matrix stores: the small Hopper instructions that C++ has no name
// for. Device code only.
#pragma once

#include <cstdint>

#include "kernels/cuda/ptx/mbarrier.cuh"

namespace moebius::cuda::ptx {

__device__ __forceinline__ uint32_t ClusterRank() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// A barrier of all threads of the cluster.
__device__ __forceinline__ void ClusterSync() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// The same place of block `rank` of this cluster, of shared memory.
template <typename T>
__device__ __forceinline__ T* InBlock(T* place, uint32_t rank) {
  T* there;
  asm("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(place), "r"(rank));
  return there;
}

// Stores a word at the same place of block `rank` of this cluster, and tells its barrier, which
// expects 4 bytes.
__device__ __forceinline__ void StoreAsync(int32_t* to, int32_t value, uint64_t* barrier,
                                           uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 place, barrier;\n"
      "mapa.shared::cluster.u32 place, %0, %3;\n"
      "mapa.shared::cluster.u32 barrier, %2, %3;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [place], %1, [barrier];\n"
      "}\n" ::"r"(SharedAddress(to)),
      "r"(value), "r"(SharedAddress(barrier)), "r"(rank)
      : "memory");
}

// The same of 8 bytes.
__device__ __forceinline__ void StoreAsync(uint64_t* to, uint64_t value, uint64_t* barrier,
                                           uint32_t rank) {
  asm volatile(
      "{\n"
      ".reg .b32 place, barrier;\n"
      "mapa.shared::cluster.u32 place, %0, %3;\n"
      "mapa.shared::cluster.u32 barrier, %2, %3;\n"
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.b64 [place], %1, [barrier];\n"
      "}\n" ::"r"(SharedAddress(to)),
      "l"(value), "r"(SharedAddress(barrier)), "r"(rank)
      : "memory");
}

// Words by which blocks of the device order their other memory.
__device__ __forceinline__ int32_t LoadAcquire(const int32_t* p) {
  int32_t value;
  asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}
__device__ __forceinline__ void StoreRelease(int32_t* p, int32_t value) {
  asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}

// A value that is the same in all lanes, said so that the compiler keeps what follows from it in
// uniform registers.
__device__ __forceinline__ int WarpUniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }

// Moves registers between warpgroups; every warp of the warpgroup calls it.
template <int kRegisters>
__device__ __forceinline__ void RaiseRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void LowerRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

__device__ __forceinline__ bool ElectOne() {
  uint32_t elected;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "elect.sync _|p, 0xffffffff;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}\n"
      : "=r"(elected));
  return elected != 0;
}

// Four 8x8 matrices of 16-bit values, lane i of matrix m = i / 8 giving the address of its row i
// % 8.
__device__ __forceinline__ void StoreMatrix(void* row, const uint32_t (&m)[4]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(SharedAddress(row)),
      "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
      : "memory");
}

// The same, each matrix transposed on its way: the row that a lane addresses is a column of the
// fragment.
__device__ __forceinline__ void StoreMatrixTransposed(void* row, const uint32_t (&m)[4]) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(
                   SharedAddress(row)),
               "r"(m[0]), "r"(m[1]), "r"(m[2]), "r"(m[3])
               : "memory");
}
__device__ __forceinline__ void StoreMatrixTransposed(void* row, const uint32_t (&m)[2]) {
  asm volatile(
      "stmatrix.sync.aligned.m8n8.x2.trans.shared.b16 [%0], {%1, %2};" ::"r"(SharedAddress(row)),
      "r"(m[0]), "r"(m[1])
      : "memory");
}

// Two floats to packed bf16, the first in the low half.
__device__ __forceinline__ uint32_t PackBf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

}  // namespace moebius::cuda::ptx
