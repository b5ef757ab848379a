// The runner of a back end whose memory is not the host's: a GPU. In a build without CUDA its twin
// (no_cuda.cc) says so.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "engine/model_runner.h"
#include "engine/step_runner.h"
#include "model/model.h"
#include "platform/thread_pool.h"

namespace moebius::engine {

// Device memory besides weights and KV caches.
uint64_t DeviceWorkspaceBytes(const model::Model& model, const ModelRunnerOptions& options);

// Takes a model that was loaded for that back end, allocates caches and workspaces and binds them.
// Steps are queued by the thread that calls Launch; the device works them off. kOutOfMemory;
// kUnsupported where the back end lacks something.
Result<std::unique_ptr<StepRunner>> MakeDeviceRunner(std::unique_ptr<model::Model> model,
                                                     std::unique_ptr<platform::ThreadPool> pool,
                                                     const ModelRunnerOptions& options);

}  // namespace moebius::engine
