#include "platform/cuda/device_memory_space.h"

#include <cuda_runtime_api.h>

#include <algorithm>
#include <utility>

#include "platform/cuda/device.h"
#include "platform/cuda/memory.h"

namespace moebius::platform::cuda {
namespace {

template <typename T>
class Allocation final : public Memory {
 public:
  explicit Allocation(T memory) : memory_(std::move(memory)) {}
  std::byte* data() const override { return memory_.data(); }
  size_t size() const override { return memory_.size(); }

 private:
  T memory_;
};

class Space final : public MemorySpace {
 public:
  bool on_host() const override { return false; }
  Result<std::unique_ptr<Memory>> Allocate(size_t num_bytes) override {
    MOEBIUS_ASSIGN(DeviceMemory memory, DeviceMemory::Allocate(num_bytes));
    return std::make_unique<Allocation<DeviceMemory>>(std::move(memory));
  }
  Result<std::unique_ptr<Memory>> AllocateStaging(size_t num_bytes) override {
    MOEBIUS_ASSIGN(PinnedMemory memory, PinnedMemory::Allocate(num_bytes));
    return std::make_unique<Allocation<PinnedMemory>>(std::move(memory));
  }
  // On the thread's default stream, which streams of steps do not wait for: a copy beside a running
  // step delays nothing but itself.
  Status Upload(void* to, const void* from, size_t num_bytes) override {
    if (num_bytes == 0) return {};
    // cudaMemcpy alone returns before the last bytes have come, if they are not in pinned memory.
    MOEBIUS_TRY(
        ToStatus(cudaMemcpyAsync(to, from, num_bytes, cudaMemcpyHostToDevice, cudaStreamPerThread),
                 "copying to the device"));
    return ToStatus(cudaStreamSynchronize(cudaStreamPerThread), "copying to the device");
  }
  Status Download(void* to, const void* from, size_t num_bytes) override {
    if (num_bytes == 0) return {};
    return ToStatus(cudaMemcpy(to, from, num_bytes, cudaMemcpyDeviceToHost),
                    "copying from the device");
  }
  Result<double> CopyRate() override {
    constexpr size_t kBytes = size_t{2} << 30;
    MOEBIUS_ASSIGN(const DeviceMemory from, DeviceMemory::Allocate(kBytes));
    MOEBIUS_ASSIGN(const DeviceMemory to, DeviceMemory::Allocate(kBytes));
    MOEBIUS_ASSIGN(const Stream stream, Stream::Create());
    MOEBIUS_ASSIGN(const Event begin, Event::Create(/*timing=*/true));
    MOEBIUS_ASSIGN(const Event end, Event::Create(/*timing=*/true));
    double best = 0;
    for (int i = 0; i < 6; ++i) {
      MOEBIUS_TRY(begin.Record(stream));
      MOEBIUS_TRY(CopyAsync(to.data(), from.data(), kBytes, stream));
      MOEBIUS_TRY(end.Record(stream));
      MOEBIUS_TRY(end.Synchronize());
      MOEBIUS_ASSIGN(const float milliseconds, end.MillisecondsSince(begin));
      best = std::max(best, 2e3 * static_cast<double>(kBytes) / static_cast<double>(milliseconds));
    }
    return best;
  }
  Result<uint64_t> AvailableBytes() override {
    size_t free_bytes = 0;
    size_t total_bytes = 0;
    MOEBIUS_TRY(
        ToStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "reading the device's free memory"));
    return free_bytes;
  }
};

}  // namespace

MemorySpace& DeviceMemorySpace() {
  static Space space;
  return space;
}

}  // namespace moebius::platform::cuda
