// How ranks wait for each other, threads or processes alike: a Signal is a word in memory that all
// of them see, an AbortWord the one that ends every wait of a deployment after its first failure.
// No wait is without a bound, and none spins for long: with more ranks than cores a spinning rank
// holds up the one it waits for. Any thread; a Signal has one writer, a doorbell may have many.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace moebius::comm {

using Clock = std::chrono::steady_clock;

// A sequence number (low half: what a futex watches) and a payload that comes with it.
struct alignas(64) Signal {
  std::atomic<uint64_t> word{0};
  std::atomic<uint32_t> num_waiters{0};
};

constexpr uint32_t SequenceOf(uint64_t word) { return static_cast<uint32_t>(word); }
constexpr uint32_t PayloadOf(uint64_t word) { return static_cast<uint32_t>(word >> 32); }

// Releases everything written before; wakes who waits.
void Raise(Signal& signal, uint32_t sequence, uint32_t payload = 0);

// The first failure of a deployment: sticky. 0: none.
struct alignas(64) AbortWord {
  std::atomic<uint64_t> word{0};

  bool is_set() const { return word.load(std::memory_order_acquire) != 0; }
  // By whom the failure was seen, and whose it is (-1: nobody's). The first caller wins: false for
  // the others.
  bool Set(int seen_by, int culprit);
  int seen_by() const;
  int culprit() const;
};

enum class WaitEnd { kRaised, kAborted, kDeadline };

// Time that is lost since then (comm/lost_time.h) moves the deadline.
struct WaitBound {
  Clock::time_point deadline;
  const AbortWord* abort = nullptr;        // null: the deadline alone
  int num_spins = 0;                       // before sleeping
  Clock::time_point since = Clock::now();  // when the deadline was set
};

// Until the signal's sequence is one of sequence ... sequence + slack (with slack 0 the writer may
// not go on before all have seen it); *payload (may be null) is what came with it.
WaitEnd WaitFor(Signal& signal, uint32_t sequence, uint32_t slack, const WaitBound& bound,
                uint32_t* payload);

// Until the signal's sequence is another one than `seen`: a doorbell.
WaitEnd WaitForChange(Signal& signal, uint32_t seen, const WaitBound& bound);

// Changes a doorbell's sequence. Many may ring one bell, and no ring is lost.
void Ring(Signal& signal);

}  // namespace moebius::comm
