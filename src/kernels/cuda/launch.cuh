// Launches that need not wait for the launch before them to end (programmatic dependent launch): a
// kernel's blocks come up beside the last ones of the kernel before, wait there, and lose no time
// to start once it is done. Every kernel launched so calls AwaitEarlier, in all its threads, before
// it writes at all or reads what the launch before it writes; so a kernel that is done has all
// earlier ones done too.
#pragma once

#include <cuda_runtime.h>

namespace moebius::cuda {

// What an early launch may read before it waits: the work before the launch before it. That launch
// has let this one come up, in all its threads, after its own wait; or it is a library's, which may
// let it come up earlier, but not before what it waits for itself is done. By __ldcg or weights
// alone: the L1 cache may have what an address held before. Where work beside begins or ends
// (kernels/ops.h), the launch before is the last one of each stream that was waited for.
//
// Returns when all earlier work of the stream is done and its writes are seen, then lets the next
// launch come up. Plain loads only after it: what is read through the read-only path (__ldg) may be
// older.
__device__ __forceinline__ void AwaitEarlier() {
  asm volatile("griddepcontrol.wait;" ::: "memory");
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

// kernel<<<grid, threads, shared_bytes, stream>>>(args...), early. Returns the launch's error.
template <typename... Params, typename... Args>
cudaError_t LaunchEarly(void (*kernel)(Params...), dim3 grid, dim3 threads, size_t shared_bytes,
                        cudaStream_t stream, Args&&... args) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = threads;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Params>(args)...);
}

}  // namespace moebius::cuda
