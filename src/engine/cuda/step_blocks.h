// Where steps' inputs lie: one block in the device's memory, and for each step that may be in
// flight one in pinned memory, which is copied to it. The runner owns them; the thread that queues
// steps calls.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "engine/step_inputs.h"
#include "engine/step_runner.h"
#include "platform/cuda/memory.h"
#include "platform/cuda/stream.h"

namespace moebius::engine {

class StepBlocks {
 public:
  // num_bytes: of a step whose draws have no lists. stream: of the steps; outlives this.
  Status Allocate(size_t num_bytes, const platform::cuda::Stream& stream);

  // A plan that was written, as the device will have it.
  struct Written {
    StepInputs device;
    size_t row_bytes = 0;
    size_t wish_bytes = 0;
    bool is_one = false;  // the wishes of its draws lie behind its rows: one copy takes both
  };
  // Into the pinned memory of `slot`, whose last step is over.
  Result<Written> Write(const StagedPlan& plan, int64_t slot);
  Status QueueCopy(const Written& inputs, int64_t slot);

 private:
  struct Pinned {
    platform::cuda::PinnedMemory rows;
    platform::cuda::PinnedMemory wishes;
  };

  Status GrowWishes(size_t num_bytes);

  const platform::cuda::Stream* stream_ = nullptr;
  platform::cuda::DeviceMemory rows_;
  platform::cuda::DeviceMemory wishes_;  // of draws with lists
  std::array<Pinned, kMaxStepsInFlight> pinned_;
};

}  // namespace moebius::engine
