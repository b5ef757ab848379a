// The twin of cuda/cuda_runner.cc in a build without CUDA.
#include "engine/device_runner.h"

namespace moebius::engine {

uint64_t DeviceWorkspaceBytes(const model::Model& /*model*/,
                              const ModelRunnerOptions& /*options*/) {
  return 0;
}

Result<std::unique_ptr<StepRunner>> MakeDeviceRunner(std::unique_ptr<model::Model> /*model*/,
                                                     std::unique_ptr<platform::ThreadPool> /*pool*/,
                                                     const ModelRunnerOptions& /*options*/) {
  return MakeError(
      ErrorCode::kUnsupported,
      "a model is on a device, but this build has no CUDA: build with the preset cuda");
}

}  // namespace moebius::engine
