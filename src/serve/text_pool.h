// Threads for what takes long with text: parsing, templates, tokenising, whole answers. Owned by
// the server; any thread may post.
//
// Calls wait in the order of when they would be done if each had a thread of its own: arrival plus
// a time by its size. So a small call passes a large prompt that waits, and a large one is passed
// only by calls that arrive within its own expected duration. What already runs is not interrupted;
// therefore, with more than one thread, one is kept free of large calls.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace moebius::serve {

class TextPool {
 public:
  using Job = std::function<void()>;  // must not throw

  static constexpr size_t kLargeBytes = 64 << 10;

  TextPool(int num_threads, int64_t max_queued, size_t max_queued_bytes);
  ~TextPool();  // stops

  // A new call, of a body of that many bytes. False: too many wait (or too large ones), or it has
  // stopped; the job is dropped then.
  bool TryPost(size_t bytes, Job job);

  // What belongs to a call that was let in, or is due now: never refused, before all new calls.
  // Dropped after Stop.
  void Post(Job job);

  // Jobs that wait are dropped, those that run are waited for. Not on one of its threads.
  void Stop();

  int64_t num_queued() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Waiting {
    size_t bytes = 0;
    Job job;
  };
  using Queue = std::multimap<Clock::time_point, Waiting>;  // by when it is due

  void Work();
  Queue* NextQueue();  // null: none whose first may run now

  const int64_t max_queued_;
  const size_t max_queued_bytes_;
  const int max_large_;

  mutable std::mutex mutex_;
  std::condition_variable posted_;
  std::deque<Job> urgent_;
  Queue small_;
  Queue large_;
  size_t queued_bytes_ = 0;
  int num_large_running_ = 0;
  bool is_stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace moebius::serve
