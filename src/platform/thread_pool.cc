#include "platform/thread_pool.h"

#include <fmt/core.h>
#include <pthread.h>
#include <sched.h>

#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "platform/binding.h"

namespace moebius::platform {
namespace {

// About 0.2 ms. A list follows the last within microseconds in a forward pass; a sleeper costs
// about 50 us to wake.
constexpr int kSpinIterations = 4000;

// The ticket's fields, from the lowest bit: next task, number of tasks, generation.
constexpr int kTaskBits = 24;
constexpr uint64_t kTaskMask = (uint64_t{1} << kTaskBits) - 1;
constexpr uint64_t MakeTicket(uint64_t generation, int64_t num_tasks) {
  return generation << (2 * kTaskBits) | static_cast<uint64_t>(num_tasks) << kTaskBits;
}
constexpr int64_t NextTask(uint64_t ticket) { return static_cast<int64_t>(ticket & kTaskMask); }
constexpr int64_t NumTasks(uint64_t ticket) {
  return static_cast<int64_t>((ticket >> kTaskBits) & kTaskMask);
}

void Relax() { __builtin_ia32_pause(); }

}  // namespace

std::vector<int> AllowedCpus() {
  std::vector<int> cpus;
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  return cpus;
}

std::unique_ptr<ThreadPool> ThreadPool::Create(std::vector<int> cpus) {
  if (cpus.empty()) cpus = AllowedCpus();
  const int num_threads = static_cast<int>(cpus.size());
  return std::unique_ptr<ThreadPool>(new ThreadPool({std::move(cpus), num_threads, false}, false));
}

std::unique_ptr<ThreadPool> ThreadPool::CreatePlanned(const PoolCpus& cpus) {
  return std::unique_ptr<ThreadPool>(new ThreadPool(cpus, true));
}

ThreadPool::ThreadPool(PoolCpus cpus, bool is_planned)
    : cpus_(std::move(cpus)), is_planned_(is_planned) {
  MOEBIUS_CHECK(cpus_.is_group || cpus_.cpus.size() == static_cast<size_t>(cpus_.num_threads));
  // Spinning threads that share cores starve each other (a barrier of 8 on 2 cores costs 13 ms).
  spin_ = !cpus_.is_group && cpus_.cpus.size() <= AllowedCpus().size();
  for (int thread_idx = 1; thread_idx < cpus_.num_threads; ++thread_idx) {
    workers_.emplace_back([this, thread_idx] {
      pthread_setname_np(pthread_self(), fmt::format("worker-{}", thread_idx).c_str());
      WorkerLoop(thread_idx);
    });
    const Status bound = BindThread(workers_.back().native_handle(), CpusOf(thread_idx),
                                    fmt::format("worker {}", thread_idx));
    if (!bound) LogWarning("{}", bound.error().message());
  }
}

std::vector<int> ThreadPool::CpusOf(int thread_idx) const {
  if (cpus_.is_group) return cpus_.cpus;
  return {cpus_.cpus[static_cast<size_t>(thread_idx)]};
}

Status ThreadPool::BindCaller(const std::string& who) {
  if (!is_planned_) return {};
  MOEBIUS_TRY(BindThread(pthread_self(), CpusOf(0), who));
  for (int thread_idx = 1; thread_idx < num_threads(); ++thread_idx) {
    const pthread_t worker = workers_[static_cast<size_t>(thread_idx) - 1].native_handle();
    MOEBIUS_TRY(CheckBinding("runs on cpus", CpusOfThread(worker), CpusOf(thread_idx),
                             fmt::format("worker {} of {}", thread_idx, who)));
  }
  return {};
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunOnAll(int64_t num_tasks, Trampoline trampoline, const void* task) {
  MOEBIUS_CHECK_LE(num_tasks, static_cast<int64_t>(kTaskMask));
  trampoline_ = trampoline;
  task_ = task;
  num_done_.store(0, std::memory_order_relaxed);
  const uint32_t generation = generation_.load(std::memory_order_relaxed) + 1;
  ticket_.store(MakeTicket(generation, num_tasks), std::memory_order_release);
  generation_.store(generation, std::memory_order_release);
  generation_.notify_all();
  Drain(0);
  int spins = 0;
  for (int32_t done = num_done_.load(std::memory_order_acquire); done != num_tasks;
       done = num_done_.load(std::memory_order_acquire)) {
    if (spin_ && ++spins < kSpinIterations) {
      Relax();
    } else {
      num_done_.wait(done, std::memory_order_acquire);
    }
  }
}

void ThreadPool::Drain(int thread_idx) {
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (NextTask(ticket) < NumTasks(ticket)) {
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    trampoline_(task_, NextTask(ticket), thread_idx);
    const int64_t num_tasks = NumTasks(ticket);
    if (num_done_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_tasks) num_done_.notify_one();
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::WorkerLoop(int thread_idx) {
  uint32_t seen = 0;
  while (true) {
    for (int spins = 0; spin_ && spins < kSpinIterations; ++spins) {
      if (generation_.load(std::memory_order_acquire) != seen) break;
      Relax();
    }
    generation_.wait(seen, std::memory_order_acquire);
    seen = generation_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    Drain(thread_idx);
  }
}

}  // namespace moebius::platform
