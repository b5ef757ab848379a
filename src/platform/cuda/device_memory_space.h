// The memory of a GPU as a space that weights and caches are taken from. Built only with CUDA.
#pragma once

#include "platform/memory_space.h"

namespace moebius::platform::cuda {

// The device that is current for the calling thread (device 0 unless one was selected).
MemorySpace& DeviceMemorySpace();

}  // namespace moebius::platform::cuda
