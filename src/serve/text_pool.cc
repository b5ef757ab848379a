#include "serve/text_pool.h"

#include <pthread.h>

#include <algorithm>
#include <string>
#include <utility>

namespace moebius::serve {
namespace {

// Parsing and tokenising together come to about 10 MB/s.
constexpr std::chrono::nanoseconds kTimePerByte{100};

}  // namespace

TextPool::TextPool(int num_threads, int64_t max_queued, size_t max_queued_bytes)
    : max_queued_(max_queued),
      max_queued_bytes_(max_queued_bytes),
      max_large_(std::max(1, num_threads - 1)) {
  for (int i = 0; i < num_threads; ++i) {
    threads_.emplace_back([this, i] {
      pthread_setname_np(pthread_self(), ("text-" + std::to_string(i)).c_str());
      Work();
    });
  }
}

TextPool::~TextPool() { Stop(); }

bool TextPool::TryPost(size_t bytes, Job job) {
  {
    const std::lock_guard lock(mutex_);
    const auto num_queued = static_cast<int64_t>(small_.size() + large_.size());
    if (is_stopping_ || num_queued >= max_queued_) return false;
    if (num_queued > 0 && queued_bytes_ + bytes > max_queued_bytes_) return false;
    queued_bytes_ += bytes;
    Queue& queue = bytes > kLargeBytes ? large_ : small_;
    queue.emplace(Clock::now() + static_cast<int64_t>(bytes) * kTimePerByte,
                  Waiting{bytes, std::move(job)});
  }
  posted_.notify_one();
  return true;
}

void TextPool::Post(Job job) {
  {
    const std::lock_guard lock(mutex_);
    if (is_stopping_) return;
    urgent_.push_back(std::move(job));
  }
  posted_.notify_one();
}

void TextPool::Stop() {
  std::vector<Job> dropped;  // outside the lock, and before the wait: their callers are told so
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
    for (Job& job : urgent_) dropped.push_back(std::move(job));
    for (Queue* queue : {&small_, &large_}) {
      for (auto& [due, waiting] : *queue) dropped.push_back(std::move(waiting.job));
      queue->clear();
    }
    urgent_.clear();
    queued_bytes_ = 0;
  }
  dropped.clear();
  posted_.notify_all();
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

int64_t TextPool::num_queued() const {
  const std::lock_guard lock(mutex_);
  return static_cast<int64_t>(urgent_.size() + small_.size() + large_.size());
}

TextPool::Queue* TextPool::NextQueue() {
  const bool may_large = !large_.empty() && num_large_running_ < max_large_;
  if (small_.empty()) return may_large ? &large_ : nullptr;
  if (!may_large) return &small_;
  return large_.begin()->first < small_.begin()->first ? &large_ : &small_;
}

void TextPool::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    Queue* queue = nullptr;
    posted_.wait(
        lock, [&] { return is_stopping_ || !urgent_.empty() || (queue = NextQueue()) != nullptr; });
    if (is_stopping_) return;
    Job job;
    const bool is_large = urgent_.empty() && queue == &large_;
    if (!urgent_.empty()) {
      job = std::move(urgent_.front());
      urgent_.pop_front();
    } else {
      auto next = queue->extract(queue->begin());
      queued_bytes_ -= next.mapped().bytes;
      job = std::move(next.mapped().job);
    }
    if (is_large) ++num_large_running_;
    lock.unlock();
    job();
    job = nullptr;  // what it owns goes outside the lock
    lock.lock();
    if (is_large) {
      --num_large_running_;
      posted_.notify_one();
    }
  }
}

}  // namespace moebius::serve
