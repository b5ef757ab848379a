#include "platform/memory_space.h"

#include <cstring>
#include <utility>

#include "platform/memory.h"

namespace moebius::platform {
namespace {

class HostAllocation final : public Memory {
 public:
  explicit HostAllocation(Region region) : region_(std::move(region)) {}
  std::byte* data() const override { return region_.data(); }
  size_t size() const override { return region_.size(); }

 private:
  Region region_;
};

class HostSpace final : public MemorySpace {
 public:
  bool on_host() const override { return true; }
  Result<std::unique_ptr<Memory>> Allocate(size_t num_bytes) override {
    MOEBIUS_ASSIGN(Region region, Region::Allocate(num_bytes));
    return std::make_unique<HostAllocation>(std::move(region));
  }
  Result<std::unique_ptr<Memory>> AllocateStaging(size_t num_bytes) override {
    return Allocate(num_bytes);
  }
  Status Upload(void* to, const void* from, size_t num_bytes) override {
    std::memcpy(to, from, num_bytes);
    return {};
  }
  Status Download(void* to, const void* from, size_t num_bytes) override {
    return Upload(to, from, num_bytes);
  }
  Result<uint64_t> AvailableBytes() override {
    MOEBIUS_ASSIGN(const SystemMemory memory, ReadSystemMemory());
    return memory.available;
  }
};

}  // namespace

MemorySpace& HostMemory() {
  static HostSpace space;
  return space;
}

}  // namespace moebius::platform
