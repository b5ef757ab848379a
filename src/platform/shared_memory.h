// Memory that processes share by descriptor: anonymous (no name that could outlive a crash),
// zeroed, of one size for ever. Whoever makes it hands its descriptor to the processes that it
// starts; the last mapping and descriptor that go free it. The owner unmaps it by destroying it;
// the bytes may be used from any thread.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace moebius::platform {

class SharedMemory {
 public:
  SharedMemory() = default;
  // num_bytes > 0, rounded up to whole pages; `name` is for people who read /proc. The descriptor
  // is closed where a program is executed, unless it is passed on. kOutOfMemory names the size.
  static Result<SharedMemory> Create(const std::string& name, size_t num_bytes);

  // What another process created; takes the descriptor, whatever comes of it. kCorrupt: it is no
  // such memory.
  static Result<SharedMemory> Open(int descriptor);

  SharedMemory(SharedMemory&& other) noexcept;
  SharedMemory& operator=(SharedMemory&& other) noexcept;
  ~SharedMemory();

  std::span<std::byte> bytes() const { return {data_, size_}; }
  int descriptor() const { return descriptor_; }

 private:
  SharedMemory(int descriptor, std::byte* data, size_t size)
      : descriptor_(descriptor), data_(data), size_(size) {}
  static Result<SharedMemory> Map(int descriptor, size_t size);

  int descriptor_ = -1;
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace moebius::platform
