// Large memory for weights, KV blocks and workspaces, and how much of it this process may have.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"

namespace moebius::platform {

struct RegionOptions {
  bool huge_pages = true;  // advise transparent huge pages: fewer TLB misses in weight streams
  int numa_node =
      -1;  // bind the pages to this node; -1: the node of the thread that first touches them
};

// Anonymous memory, zeroed, paid for page by page as it is touched. The owner frees it by
// destroying the Region; the bytes may be used from any thread.
class Region {
 public:
  Region() = default;
  // num_bytes > 0, rounded up to whole pages; the start is aligned to 2 MiB if the region is that
  // large, else to a page. kOutOfMemory names the size. A refused binding (a container often
  // refuses it) is a warning; refused huge pages cost only speed.
  static Result<Region> Allocate(size_t num_bytes, const RegionOptions& options = {});

  Region(Region&& other) noexcept;
  Region& operator=(Region&& other) noexcept;
  ~Region();

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }  // bytes, the rounded size

 private:
  Region(std::byte* data, size_t size) : data_(data), size_(size) {}

  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// In bytes.
struct SystemMemory {
  uint64_t total = 0;  // of the machine
  uint64_t available =
      0;  // what a new allocation may take: MemAvailable, or what the cgroups leave if that is less
  uint64_t limit = 0;  // the tightest cgroup limit above this process; 0: none
};

// Reads /proc/meminfo and the cgroups (version 2 and 1) of this process under `root`, a path
// without trailing slash (empty: the real ones). kUnavailable if meminfo cannot be understood.
Result<SystemMemory> ReadSystemMemory(const std::string& root = "");

}  // namespace moebius::platform
