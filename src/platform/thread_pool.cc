#include "platform/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <chrono>

#include "base/log.h"

namespace moebius::platform {
namespace {

// A list follows the last within microseconds in a forward pass; a sleeper costs about 50 us to
// wake.
constexpr int kSpinIterations = 20000;

void Relax() { __builtin_ia32_pause(); }

void PinThisThread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (const int error = pthread_setaffinity_np(pthread_self(), sizeof(set), &set); error != 0) {
    LogWarning("cannot pin a worker to cpu {} (error {}); it runs unpinned", cpu, error);
  }
}

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
  return std::unique_ptr<ThreadPool>(new ThreadPool(cpus));
}

ThreadPool::ThreadPool(const std::vector<int>& cpus) {
  // Spinning threads that share cores starve each other (a barrier of 8 on 2 cores costs 13 ms).
  spin_ = cpus.size() <= AllowedCpus().size();
  for (size_t i = 1; i < cpus.size(); ++i) {
    workers_.emplace_back([this, cpu = cpus[i], thread_idx = static_cast<int>(i)] {
      PinThisThread(cpu);
      WorkerLoop(thread_idx);
    });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::RunOnAll(int64_t num_tasks, Trampoline trampoline, const void* task) {
  trampoline_ = trampoline;
  task_ = task;
  num_tasks_ = num_tasks;
  next_task_.store(0, std::memory_order_relaxed);
  num_running_.store(static_cast<int32_t>(workers_.size()), std::memory_order_relaxed);
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  Drain(0);
  int spins = 0;
  for (int32_t left = num_running_.load(std::memory_order_acquire); left != 0;
       left = num_running_.load(std::memory_order_acquire)) {
    if (spin_ && ++spins < kSpinIterations) {
      Relax();
    } else {
      num_running_.wait(left, std::memory_order_acquire);
    }
  }
}

void ThreadPool::Drain(int thread_idx) {
  for (int64_t i = next_task_.fetch_add(1, std::memory_order_relaxed); i < num_tasks_;
       i = next_task_.fetch_add(1, std::memory_order_relaxed)) {
    trampoline_(task_, i, thread_idx);
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
    if (num_running_.fetch_sub(1, std::memory_order_acq_rel) == 1) num_running_.notify_one();
  }
}

}  // namespace moebius::platform
