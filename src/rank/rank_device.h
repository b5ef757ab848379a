// What a rank has on a GPU beside its engine: the stream of its steps, and the collectives on it
// that take the place of the host's. In a build without CUDA its twin (no_cuda.cc) says so.
#pragma once

#include <chrono>
#include <memory>

#include "base/result.h"
#include "comm/signal.h"
#include "engine/device_runner.h"
#include "model/shard.h"
#include "platform/thread_pool.h"
#include "rank/expert_mail.h"

namespace moebius::rank {

class Links;

class RankDevice {
 public:
  virtual ~RankDevice() = default;

  // Ranks that use one GPU, at most.
  virtual int num_sharers() const = 0;
  virtual engine::DeviceRank OfRunner() const = 0;
  // Gives the shard its communicators, its exchange and, where experts move, their copies.
  virtual void Complete(model::Shard* shard) const = 0;
  // Where experts move: through what memory. The mover's thread uses it.
  virtual MailMemory Mail() const = 0;

  // The device thread's. As Links has them.
  virtual void BeginStep(int64_t step, comm::Clock::time_point deadline) = 0;
  virtual Status status() const = 0;
};

// GPUs that ranks may take. kUnsupported without CUDA in this build; kUnavailable: none.
Result<int> NumRankDevices();

// Called by every rank's thread, which keeps the GPU as its current device: rank r takes GPU r
// modulo their number. Collective, on links.world(). A wait of a kernel lasts wait_limit at most.
// kUnsupported: GPUs that are not linked, processes that cannot map each other's memory.
Result<std::unique_ptr<RankDevice>> OpenRankDevice(Links& links,
                                                   std::chrono::milliseconds wait_limit,
                                                   platform::ThreadPool& pool);

}  // namespace moebius::rank
