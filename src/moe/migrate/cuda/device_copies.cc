#include "moe/migrate/cuda/device_copies.h"

#include <cstring>
#include <utility>

#include "kernels/cuda/moe/checksum.h"
#include "platform/cuda/device.h"
#include "platform/cuda/device_memory_space.h"

namespace moebius::moe {

using platform::cuda::CopyAsync;
using platform::cuda::Event;

namespace {

// A mover's thread begins without a device. It is asked once a thread: that takes longer than a
// small copy.
Status SelectOnce(int device) {
  thread_local int selected = -1;
  if (selected == device) return {};
  MOEBIUS_TRY(platform::cuda::SelectDevice(device));
  selected = device;
  return {};
}

}  // namespace

Result<std::unique_ptr<DeviceCopies>> DeviceCopies::Create(int device,
                                                           const platform::cuda::Stream& steps) {
  std::unique_ptr<DeviceCopies> copies(new DeviceCopies(device, steps));
  MOEBIUS_ASSIGN(copies->side_, platform::cuda::Stream::Create());
  MOEBIUS_ASSIGN(copies->queued_, Event::Create());
  MOEBIUS_ASSIGN(copies->done_, Event::Create());
  MOEBIUS_ASSIGN(copies->sum_, platform::cuda::DeviceMemory::Allocate(sizeof(uint64_t)));
  MOEBIUS_ASSIGN(copies->sum_on_host_, platform::cuda::PinnedMemory::Allocate(sizeof(uint64_t)));
  const uint64_t zero = 0;
  MOEBIUS_TRY(platform::cuda::DeviceMemorySpace().Upload(copies->sum_.data(), &zero, sizeof(zero)));
  // The driver loads a kernel when it is first launched, and steps that run then wait.
  copies->ChecksumOf({copies->sum_.data(), copies->sum_.size()});
  MOEBIUS_TRY(copies->status());
  return copies;
}

void DeviceCopies::Keep(const Status& status) {
  if (status) return;
  const std::lock_guard lock(mutex_);
  if (status_) status_ = status;
}

Status DeviceCopies::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

template <typename Work>
void DeviceCopies::QueueBeside(const Work& work) {
  const auto queue = [&]() -> Status {
    MOEBIUS_TRY(SelectOnce(device_));
    MOEBIUS_TRY(side_.WaitFor(queued_));
    return work();
  };
  Keep(queue());
}

void DeviceCopies::Copy(void* to, const void* from, size_t num_bytes) {
  QueueBeside([&] { return CopyAsync(to, from, num_bytes, side_); });
}

void DeviceCopies::Wait() {
  Keep(done_.Record(side_));
  Keep(done_.Synchronize());
}

uint64_t DeviceCopies::ChecksumOf(std::span<const std::byte> bytes) {
  QueueBeside([&]() -> Status {
    auto* const sum = reinterpret_cast<uint64_t*>(sum_.data());
    MOEBIUS_TRY(platform::cuda::ToStatus(
        kernels::cuda::LaunchChecksum(bytes.data(), bytes.size(), sum, side_.get()),
        "summing up an expert's bytes"));
    return CopyAsync(sum_on_host_.data(), sum, sizeof(uint64_t), side_);
  });
  Wait();
  uint64_t sum = 0;
  std::memcpy(&sum, sum_on_host_.data(), sizeof(sum));
  return sum - std::exchange(last_sum_, sum);
}

void DeviceCopies::Queue(void* to, const void* from, size_t num_bytes) {
  Keep(CopyAsync(to, from, num_bytes, steps_));
}

void DeviceCopies::EndOfQueue() { Keep(queued_.Record(steps_)); }

}  // namespace moebius::moe
