// What operations on a GPU run in: a stream, and all that they need beside their operands. A runner
// has one for its steps, and maybe one beside it.
#pragma once

#include <cstddef>
#include <memory>

#include "base/result.h"
#include "kernels/cuda/gemm/dense_products.h"
#include "kernels/cuda/ops/device_context.h"
#include "kernels/ops.h"
#include "platform/cuda/memory.h"
#include "platform/cuda/stream.h"
#include "tensor/arena.h"

namespace moebius::engine {

class DeviceQueue {
 public:
  struct Options {
    const kernels::Backend* backend = nullptr;
    platform::ThreadPool* pool = nullptr;
    int num_sms = 0;
    bool deterministic = false;
    size_t meeting_bytes = 0;
    size_t workspace_bytes = 0;
  };

  DeviceQueue() = default;
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  // stream outlives it.
  Status Allocate(const platform::cuda::Stream& stream, const Options& options);

  kernels::ExecContext& context() { return context_; }
  Arena& workspace() { return workspace_; }
  Status TakeError() { return device_.TakeError(); }

 private:
  std::unique_ptr<kernels::cuda::DenseProducts> dense_;
  platform::cuda::DeviceMemory meeting_room_;
  platform::cuda::DeviceMemory workspace_memory_;
  platform::cuda::Event given_;
  Arena workspace_;
  kernels::cuda::DeviceContext device_;
  kernels::ExecContext context_;
};

}  // namespace moebius::engine
