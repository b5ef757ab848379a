#include "platform/memory_space.h"

#include <algorithm>
#include <chrono>
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
  Result<double> CopyRate() override {
    constexpr size_t kBytes = size_t{256} << 20;
    MOEBIUS_ASSIGN(const Region from, Region::Allocate(kBytes));
    MOEBIUS_ASSIGN(const Region to, Region::Allocate(kBytes));
    double best = 0;
    for (int i = 0; i < 4; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      std::memcpy(to.data(), from.data(), kBytes);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
      best = std::max(best, 2 * static_cast<double>(kBytes) / seconds.count());
    }
    return best;
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
