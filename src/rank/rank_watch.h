// The thread that starts the processes of a deployment, watches them, and cleans up behind them.
// Made and destroyed by whoever owns the deployment.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "rank/child_process.h"
#include "rank/control.h"

namespace moebius::rank {

struct WatchOptions {
  std::string program;
  int trace = -1;  // a descriptor that every rank inherits; -1: none. Stays the caller's
  SilenceBounds silence;
  std::chrono::milliseconds grace;
  std::chrono::milliseconds stop_timeout;
  // What an engine says of itself, by rank; OK for those that have none. Called by the thread.
  std::function<Status(int rank)> health;
  // The first failure: `error` names the rank. Called by the thread, once; must not wait.
  std::function<void(const Error& error)> on_failure;
  std::function<void()> on_look = [] {};  // now and then while there is no failure; likewise
};

class RankWatch {
 public:
  // sockets: a descriptor for each rank, taken. memory: stays the caller's. control outlives this.
  RankWatch(WatchOptions options, Control control, std::vector<int> sockets, int memory);
  // Returns when no process is left: those that do not end by themselves in time are killed.
  ~RankWatch();

  // To be called now and then until all ranks have come up: a process that was stopped too early
  // holds up the thread that should notice.
  void EndStuckStart() const;

  // From now on a rank may exit: with status 0 that is no failure.
  void Stop();

 private:
  using TimePoint = comm::Clock::time_point;
  struct Sign;

  void Run(const std::vector<int>& sockets, int memory);
  Status StartAll(const std::vector<int>& sockets, int memory);
  void Wait();
  void LookForFailure(TimePoint now);
  std::optional<Sign> FindSign(TimePoint now);
  std::optional<Sign> SignOfEnd(int rank, const ProcessEnd& end) const;
  std::optional<Sign> SignOfStop(int rank, TimePoint now) const;
  std::string NameOf(int rank) const;
  void Fail(int rank, const Error& error);

  const WatchOptions options_;
  const Control control_;

  // The thread's own.
  std::vector<ChildProcess> children_;
  TimePoint last_look_;
  TimePoint awake_;  // since when there was a look every now and then
  std::optional<TimePoint> first_sign_;
  bool has_failed_ = false;
  bool may_end_ = false;  // Stop was called
  std::optional<TimePoint> kill_at_;

  // What it starts just now.
  std::atomic<pid_t> starting_thread_{0};  // its own id; 0: nothing
  std::atomic<TimePoint> start_begin_{};

  std::mutex mutex_;
  bool is_stopping_ = false;
  int wake_;  // an eventfd
  std::thread thread_;
};

}  // namespace moebius::rank
