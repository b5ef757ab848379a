// Where a back end's operations find their operands: this process's memory, or a device's. Weights,
// tables, caches and workspaces are taken from a space; what is filled by the host reaches a device
// by Upload. One object a space, for the whole process; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"

namespace moebius::platform {

// An allocation; freed by destroying it.
class Memory {
 public:
  virtual ~Memory() = default;
  virtual std::byte* data() const = 0;
  virtual size_t size() const = 0;  // at least what was asked for
};

class MemorySpace {
 public:
  virtual ~MemorySpace() = default;

  // The host reads and writes it by pointer; Upload and Download are plain copies.
  virtual bool on_host() const = 0;
  // num_bytes > 0; aligned to a page. Host memory is zeroed, device memory is not initialised.
  // kOutOfMemory names the size.
  virtual Result<std::unique_ptr<Memory>> Allocate(size_t num_bytes) = 0;
  // Host memory that Upload copies from fastest.
  virtual Result<std::unique_ptr<Memory>> AllocateStaging(size_t num_bytes) = 0;
  // Host to space and back; done when they return.
  virtual Status Upload(void* to, const void* from, size_t num_bytes) = 0;
  virtual Status Download(void* to, const void* from, size_t num_bytes) = 0;
  // Bytes a second, read and written, that a large copy within the space moves; takes under a
  // second.
  virtual Result<double> CopyRate() = 0;
  // What a new allocation may take.
  virtual Result<uint64_t> AvailableBytes() = 0;
};

MemorySpace& HostMemory();

}  // namespace moebius::platform
