#include "platform/cuda/stream.h"

#include <cuda_runtime_api.h>

#include <utility>

#include "platform/cuda/device.h"

namespace moebius::platform::cuda {

Result<Stream> Stream::Create(bool high_priority) {
  int least = 0;
  int greatest = 0;
  MOEBIUS_TRY(
      ToStatus(cudaDeviceGetStreamPriorityRange(&least, &greatest), "reading stream priorities"));
  cudaStream_t stream = nullptr;
  MOEBIUS_TRY(ToStatus(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking,
                                                    high_priority ? greatest : least),
                       "creating a stream"));
  return Stream(stream);
}

Stream::Stream(Stream&& other) noexcept : stream_(std::exchange(other.stream_, nullptr)) {}

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(stream_, other.stream_);
  return *this;
}

Stream::~Stream() {
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Status Stream::Synchronize() const {
  return ToStatus(cudaStreamSynchronize(stream_), "waiting for a stream");
}

Status Stream::WaitFor(const Event& event) const {
  return ToStatus(cudaStreamWaitEvent(stream_, event.get(), 0), "waiting for an event");
}

Result<Event> Event::Create(bool timing) {
  cudaEvent_t event = nullptr;
  const unsigned flags = cudaEventBlockingSync | (timing ? 0u : cudaEventDisableTiming);
  MOEBIUS_TRY(ToStatus(cudaEventCreateWithFlags(&event, flags), "creating an event"));
  return Event(event);
}

Event::Event(Event&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(event_, other.event_);
  return *this;
}

Event::~Event() {
  if (event_ != nullptr) cudaEventDestroy(event_);
}

Status Event::Record(const Stream& stream) const {
  return ToStatus(cudaEventRecord(event_, stream.get()), "recording an event");
}

Status Event::Synchronize() const {
  return ToStatus(cudaEventSynchronize(event_), "waiting for an event");
}

Result<bool> Event::Done() const {
  const cudaError_t error = cudaEventQuery(event_);
  if (error == cudaErrorNotReady) return false;
  MOEBIUS_TRY(ToStatus(error, "asking an event"));
  return true;
}

Result<float> Event::MillisecondsSince(const Event& start) const {
  float milliseconds = 0;
  MOEBIUS_TRY(
      ToStatus(cudaEventElapsedTime(&milliseconds, start.event_, event_), "timing between events"));
  return milliseconds;
}

Status ComeAfter(CUstream_st* stream, CUstream_st* other, CUevent_st* event) {
  MOEBIUS_TRY(ToStatus(cudaEventRecord(event, other), "recording an event"));
  return ToStatus(cudaStreamWaitEvent(stream, event, 0), "waiting for an event");
}

}  // namespace moebius::platform::cuda
