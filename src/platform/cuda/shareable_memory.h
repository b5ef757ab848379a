// Device memory that other processes and other GPUs can address: made and mapped through the
// driver's virtual memory functions, handed on as a file descriptor. Every mapping keeps it alive,
// so it does not matter who gives it up, or ends, first. The destructor waits for the device, whose
// work may still use it, and unmaps it; the bytes may be used from any thread.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "platform/file_descriptor.h"

namespace moebius::platform::cuda {

class ShareableMemory {
 public:
  ShareableMemory() = default;
  // On the device that is current, which can address it. Not initialised. The size is rounded up to
  // whole pages of the device (2 MiB); 0 gives an empty object. kOutOfMemory says what is free.
  static Result<ShareableMemory> Allocate(size_t num_bytes);
  // What another process exported, for the device that is current; size: of the memory there.
  // (Within one process LetCurrentDevice is the way: a GPU that has memory mapped twice may see
  // through one address late what was written through the other.)
  static Result<ShareableMemory> Import(const FileDescriptor& descriptor, size_t size);

  ShareableMemory(ShareableMemory&& other) noexcept;
  ShareableMemory& operator=(ShareableMemory&& other) noexcept;
  ~ShareableMemory();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

  // For another process to import. The descriptor keeps the memory alive, too. An error: the
  // driver, or the container, shares none between processes.
  Result<FileDescriptor> Export() const;

 private:
  ShareableMemory(std::byte* data, size_t size, int device)
      : data_(data), size_(size), device_(device) {}
  static Result<ShareableMemory> Map(unsigned long long handle, size_t size, int device);

  std::byte* data_ = nullptr;
  size_t size_ = 0;
  int device_ = 0;  // whose address it is
};

// Lets the device that is current address the whole of a ShareableMemory of this process, wherever
// it lies; the GPUs must be linked (CheckLink).
Status LetCurrentDevice(std::byte* data, size_t size);

}  // namespace moebius::platform::cuda
