#include "engine/cuda/device_queue.h"

#include <utility>

#include "base/log.h"

namespace moebius::engine {

using platform::cuda::DeviceMemory;

Status DeviceQueue::Allocate(const platform::cuda::Stream& stream, const Options& options) {
  auto dense = kernels::cuda::DenseProducts::Create();
  if (dense) {
    dense_ = std::move(*dense);
  } else {
    LogWarning("dense products are slow: {}", dense.error().message());
  }
  MOEBIUS_ASSIGN(meeting_room_, DeviceMemory::Allocate(options.meeting_bytes));
  MOEBIUS_TRY(platform::cuda::FillAsync(meeting_room_.data(), 0, meeting_room_.size(), stream));
  MOEBIUS_ASSIGN(workspace_memory_, DeviceMemory::Allocate(options.workspace_bytes));
  workspace_ = Arena(workspace_memory_.data(), workspace_memory_.size());
  MOEBIUS_ASSIGN(given_, platform::cuda::Event::Create());
  device_.stream = stream.get();
  device_.given = given_.get();
  device_.num_sms = options.num_sms;
  device_.GiveMeetingRoom(meeting_room_.data());
  device_.dense = dense_.get();
  device_.deterministic = options.deterministic;
  context_ = {.backend = options.backend,
              .pool = options.pool,
              .workspace = &workspace_,
              .device = &device_};
  return {};
}

}  // namespace moebius::engine
