// How much of one call may wait for its reader: a reader that stops reading must not fill memory.
// Counted in the bytes that it will be said in, over all choices of the call. The engine's thread
// adds, the thread that polls takes away; both share it with the call.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "engine/engine_client.h"
#include "engine/request.h"

namespace moebius::frontend {

class ReadBudget {
 public:
  explicit ReadBudget(int64_t max_bytes) : max_bytes_(max_bytes) {}

  int64_t max_bytes() const { return max_bytes_; }
  int64_t unread_bytes() const { return unread_bytes_.load(std::memory_order_relaxed); }
  // An answer was ended because there was no more room.
  bool was_exceeded() const { return was_exceeded_.load(std::memory_order_relaxed); }

  // False: there is no room for so many; nothing is added.
  bool TryAdd(int64_t bytes);
  void Add(int64_t bytes) { unread_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  void Take(int64_t bytes) { unread_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

 private:
  const int64_t max_bytes_;
  std::atomic<int64_t> unread_bytes_{0};
  std::atomic<bool> was_exceeded_{false};
};

// What an output token costs, roughly what JSON takes: its text, and a line for itself and each of
// the likeliest ones if log probabilities are asked for. Those of the prompt cost nothing: they
// come once, with the first token, and cannot grow.
constexpr int64_t TokenBytes(bool has_logprobs, size_t num_top) {
  constexpr int64_t kText = 16;
  constexpr int64_t kLogprob = 128;
  return kText + (has_logprobs ? kLogprob * (1 + static_cast<int64_t>(num_top)) : 0);
}

// `sink` within the budget. What would go beyond it is not passed on: the request is cancelled, and
// `sink` hears that it failed. `engine` and `budget` outlive the request.
engine::TokenSink WithinBudget(std::shared_ptr<ReadBudget> budget, engine::EngineClient* engine,
                               engine::TokenSink sink);

}  // namespace moebius::frontend
