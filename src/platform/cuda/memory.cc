#include "platform/cuda/memory.h"

#include <cuda_runtime_api.h>
#include <fmt/format.h>

#include <utility>

#include "platform/cuda/device.h"

namespace moebius::platform::cuda {

Status AllocationStatus(int error, size_t num_bytes, const char* kind) {
  if (error == cudaSuccess) return {};
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  cudaMemGetInfo(&free_bytes, &total_bytes);
  return ToStatus(error, fmt::format("allocating {} bytes of {} memory ({} of {} on the device are "
                                     "free)",
                                     num_bytes, kind, free_bytes, total_bytes)
                             .c_str());
}

Result<DeviceMemory> DeviceMemory::Allocate(size_t num_bytes) {
  if (num_bytes == 0) return DeviceMemory();
  void* data = nullptr;
  MOEBIUS_TRY(AllocationStatus(cudaMalloc(&data, num_bytes), num_bytes, "device"));
  return DeviceMemory(static_cast<std::byte*>(data), num_bytes);
}

DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

DeviceMemory::~DeviceMemory() {
  if (data_ != nullptr) cudaFree(data_);
}

Result<PinnedMemory> PinnedMemory::Allocate(size_t num_bytes) {
  if (num_bytes == 0) return PinnedMemory();
  void* data = nullptr;
  MOEBIUS_TRY(AllocationStatus(cudaHostAlloc(&data, num_bytes, cudaHostAllocPortable), num_bytes,
                               "pinned host"));
  return PinnedMemory(static_cast<std::byte*>(data), num_bytes);
}

PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

Status CopyAsync(void* to, const void* from, size_t num_bytes, const Stream& stream) {
  if (num_bytes == 0) return {};
  return ToStatus(cudaMemcpyAsync(to, from, num_bytes, cudaMemcpyDefault, stream.get()),
                  "queueing a copy");
}

Status FillAsync(void* to, int value, size_t num_bytes, const Stream& stream) {
  if (num_bytes == 0) return {};
  return ToStatus(cudaMemsetAsync(to, value, num_bytes, stream.get()), "queueing a fill");
}

}  // namespace moebius::platform::cuda
