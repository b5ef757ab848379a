// What steps draw on a GPU and how it gets to where it is wanted: into the next step's rows on the
// device, and home through a step's pinned memory. The runner owns it, its stream orders all of it;
// the threads that queue steps and wait for them call.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "engine/step_inputs.h"
#include "engine/step_runner.h"
#include "kernels/ops.h"
#include "platform/cuda/memory.h"
#include "platform/cuda/stream.h"

namespace moebius::engine {

class StepDraws {
 public:
  // That the draws of a step take, on the device and in pinned memory.
  static size_t NumBytes(int64_t draws);

  // draws: of a step at most. is_on false: nothing is drawn here.
  // stream: of the steps; outlives this.
  Status Allocate(int64_t draws, bool is_on, const platform::cuda::Stream& stream);

  // What the step before drew, put in place on the device.
  Status QueueResolve(const StagedPlan& staged, const StepInputs& device);
  // From logits whose first row is the step's draw `first`.
  void Draw(kernels::ExecContext& context, const StepInputs& device, int64_t first, Mat logits);
  // num_samples: of the plan, without padding. to: NumBytes.
  Status QueueCopy(const StagedPlan& staged, int64_t num_samples,
                   const platform::cuda::PinnedMemory& to);
  // After the step.
  void Read(const StepPlan& plan, const platform::cuda::PinnedMemory& from,
            StepOutput* output) const;

 private:
  int64_t draws_ = 0;
  bool is_on_ = true;
  const platform::cuda::Stream* stream_ = nullptr;
  platform::cuda::DeviceMemory drawn_;
};

}  // namespace moebius::engine
