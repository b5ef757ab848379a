#include "moe/migrate/cuda/device_copies.h"

#include <cstring>

#include "kernels/cuda/moe/checksum.h"
#include "platform/cuda/device.h"

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
void DeviceCopies::RunBeside(const Work& work) {
  const auto run = [&]() -> Status {
    MOEBIUS_TRY(SelectOnce(device_));
    MOEBIUS_TRY(side_.WaitFor(queued_));
    MOEBIUS_TRY(work());
    MOEBIUS_TRY(done_.Record(side_));
    return done_.Synchronize();
  };
  Keep(run());
}

void DeviceCopies::Copy(void* to, const void* from, size_t num_bytes) {
  RunBeside([&] { return CopyAsync(to, from, num_bytes, side_); });
}

uint64_t DeviceCopies::ChecksumOf(std::span<const std::byte> bytes) {
  RunBeside([&]() -> Status {
    auto* const sum = reinterpret_cast<uint64_t*>(sum_.data());
    MOEBIUS_TRY(platform::cuda::ToStatus(
        kernels::cuda::LaunchChecksum(bytes.data(), bytes.size(), sum, side_.get()),
        "summing up an expert's bytes"));
    return CopyAsync(sum_on_host_.data(), sum, sizeof(uint64_t), side_);
  });
  uint64_t sum = 0;
  std::memcpy(&sum, sum_on_host_.data(), sizeof(sum));
  return sum;
}

void DeviceCopies::Queue(void* to, const void* from, size_t num_bytes) {
  Keep(CopyAsync(to, from, num_bytes, steps_));
}

void DeviceCopies::EndOfQueue() { Keep(queued_.Record(steps_)); }

}  // namespace moebius::moe
