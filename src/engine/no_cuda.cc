// The twin of cuda/ in a build without CUDA.
#include "engine/device_runner.h"

namespace moebius::engine {
namespace {

tl::unexpected<Error> NoCuda() {
  return MakeError(
      ErrorCode::kUnsupported,
      "a model is on a device, but this build has no CUDA: build with the preset cuda");
}

}  // namespace

uint64_t DeviceWorkspaceBytes(const model::Model& /*model*/,
                              const ModelRunnerOptions& /*options*/) {
  return 0;
}

Result<std::unique_ptr<StepRunner>> MakeDeviceRunner(std::unique_ptr<model::Model> /*model*/,
                                                     std::unique_ptr<platform::ThreadPool> /*pool*/,
                                                     const ModelRunnerOptions& /*options*/) {
  return NoCuda();
}

Result<std::unique_ptr<StepRunner>> MakeSharedDeviceRunner(
    std::unique_ptr<model::Model> /*model*/, std::unique_ptr<platform::ThreadPool> /*pool*/,
    const ModelRunnerOptions& /*options*/, const DeviceRank& /*rank*/,
    std::unique_ptr<StepSync> /*sync*/) {
  return NoCuda();
}

Result<std::unique_ptr<DeviceFollower>> MakeDeviceFollower(
    std::unique_ptr<model::Model> /*model*/, std::unique_ptr<platform::ThreadPool> /*pool*/,
    const ModelRunnerOptions& /*options*/, const DeviceRank& /*rank*/) {
  return NoCuda();
}

}  // namespace moebius::engine
