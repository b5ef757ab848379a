// A pool of pinned threads that runs one list of tasks at a time. The caller takes part, so
// `num_threads == 1` starts no thread. Owned by a rank's device thread; Run is called from that one
// thread only.
// Workers spin briefly for the next list when every thread has its own core, then sleep on a futex.
// The caller waits for tasks, never for workers: one that gets no core in time takes no task, and
// the list ends without it.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"

namespace moebius::platform {

// Where the threads of a rank's pool run: thread i on cpus[i]; or as a group, each on any of them,
// which other ranks use, too.
struct PoolCpus {
  std::vector<int> cpus;
  int num_threads = 1;
  bool is_group = false;
};

class ThreadPool {
 public:
  // cpus: where to pin, one thread a cpu; the first is the caller's (it is not pinned here). Empty:
  // all allowed cpus of this process. A refused pin is a warning.
  static std::unique_ptr<ThreadPool> Create(std::vector<int> cpus = {});
  // As planned for a rank, the caller's thread included: BindCaller.
  static std::unique_ptr<ThreadPool> CreatePlanned(const PoolCpus& cpus);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Binds the calling thread, which will call Run, and asserts where all threads may run:
  // kUnavailable names the one that is elsewhere, with both. Of a pool that was not planned:
  // nothing.
  Status BindCaller(const std::string& who);

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls task(task_idx, thread_idx) once for each task_idx in [0, num_tasks), in any order, on any
  // thread; returns when all are done. Tasks are handed out one by one (dynamic), so uneven tasks
  // balance; keep a task above ~2 us.
  template <typename Task>
  void Run(int64_t num_tasks, const Task& task) {
    if (num_tasks <= 0) return;
    if (num_tasks == 1 || workers_.empty()) {
      for (int64_t i = 0; i < num_tasks; ++i) task(i, 0);
      return;
    }
    RunOnAll(num_tasks, &Invoke<Task>, &task);
  }

  // The same over [0, count) cut into ranges of at least `grain` elements: body(begin, end,
  // thread_idx).
  template <typename Body>
  void RunRanges(int64_t count, int64_t grain, const Body& body) {
    if (count <= 0) return;
    const int64_t max_tasks = static_cast<int64_t>(num_threads()) * 4;
    int64_t num_tasks = (count + grain - 1) / grain;
    if (num_tasks > max_tasks) num_tasks = max_tasks;
    Run(num_tasks, [&](int64_t task, int thread_idx) {
      body(count * task / num_tasks, count * (task + 1) / num_tasks, thread_idx);
    });
  }

 private:
  using Trampoline = void (*)(const void* task, int64_t task_idx, int thread_idx);
  template <typename Task>
  static void Invoke(const void* task, int64_t task_idx, int thread_idx) {
    (*static_cast<const Task*>(task))(task_idx, thread_idx);
  }

  ThreadPool(PoolCpus cpus, bool is_planned);
  std::vector<int> CpusOf(int thread_idx) const;
  void RunOnAll(int64_t num_tasks, Trampoline trampoline, const void* task);
  void WorkerLoop(int thread_idx);
  void Drain(int thread_idx);

  const PoolCpus cpus_;
  const bool is_planned_;

  // One list of tasks. Written between lists only: a task that is claimed and not yet done keeps
  // its list from ending, so whoever claimed one may read these.
  Trampoline trampoline_ = nullptr;
  const void* task_ = nullptr;

  // Generation, number of tasks and next task in one word, so that a claim is one compare-and-swap
  // that fails if the list is not the one that was looked at, or is used up.
  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int32_t> num_done_{0};
  alignas(64) std::atomic<uint32_t> generation_{0};  // a change means work (or stop)
  std::atomic<bool> stopping_{false};
  bool spin_ = false;
  std::vector<std::thread> workers_;
};

// The cpus this process may run on, one hardware thread a core first; at least one.
std::vector<int> AllowedCpus();

}  // namespace moebius::platform
