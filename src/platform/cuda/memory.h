// Device memory, and host memory that the device copies from and to without a detour. Freed by the
// destructor; the bytes may be used from any thread.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "platform/cuda/stream.h"

namespace moebius::platform::cuda {

// On the device that was current at Allocate. Not initialised. num_bytes 0 gives an empty object.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  static Result<DeviceMemory> Allocate(size_t num_bytes);

  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  ~DeviceMemory();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  DeviceMemory(std::byte* data, size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Page-locked host memory.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  static Result<PinnedMemory> Allocate(size_t num_bytes);

  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  ~PinnedMemory();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  PinnedMemory(std::byte* data, size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// The error of an allocation of memory of a kind ("device"), as ToStatus has it (platform/cuda/
// device.h); how much is free stands in the message: that is what the user can act on.
Status AllocationStatus(int error, size_t num_bytes, const char* kind);

// Queues a copy between any two of host and device. Host memory should be pinned and stay as it is
// until the copy is done.
Status CopyAsync(void* to, const void* from, size_t num_bytes, const Stream& stream);
// Queues filling with one byte value.
Status FillAsync(void* to, int value, size_t num_bytes, const Stream& stream);

}  // namespace moebius::platform::cuda
