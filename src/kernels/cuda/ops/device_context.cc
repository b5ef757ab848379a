#include "kernels/cuda/ops/device_context.h"

#include <utility>

#include "kernels/tuning/grouped_gemm_tiles.h"
#include "platform/cuda/device.h"
#include "platform/cuda/stream.h"
#include "tensor/arena.h"

namespace moebius::kernels::cuda {

size_t DeviceContext::MeetingBytes(int num_sms) {
  return static_cast<size_t>(1 + tuning::PartCounters(num_sms)) * sizeof(int32_t) +
         static_cast<size_t>(tuning::PartialFloats(num_sms)) * sizeof(float) +
         3 * Arena::kAlignment;
}

void DeviceContext::GiveMeetingRoom(void* zeroed) {
  Arena arena(zeroed, MeetingBytes(num_sms));
  next_work = arena.Alloc<int32_t>(1);
  arrivals = arena.Alloc<int32_t>(tuning::PartCounters(num_sms));
  partials = arena.Alloc<float>(tuning::PartialFloats(num_sms));
}

void DeviceContext::Check(int code, const char* op) {
  if (code == 0 || error) return;
  error = platform::cuda::ToStatus(code, op).error();
}

void DeviceContext::Check(const char* text, const char* op) {
  if (text == nullptr || error) return;
  error = Error(ErrorCode::kInternal, fmt::format("CUDA: {}: {}", op, text));
}

Status DeviceContext::TakeError() {
  if (!error) return {};
  return tl::unexpected(*std::exchange(error, std::nullopt));
}

void DeviceContext::ComeAfter(DeviceContext& other) {
  const Status ordered = platform::cuda::ComeAfter(stream, other.stream, other.given);
  if (!error && !ordered) error = ordered.error();
  if (!error) error = std::exchange(other.error, std::nullopt);
}

}  // namespace moebius::kernels::cuda
