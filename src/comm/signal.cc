#include "comm/signal.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <climits>
#include <ctime>

#include "comm/lost_time.h"

namespace moebius::comm {
namespace {

// An abort raises no signal: sleepers look for it that often.
constexpr auto kAbortPeriod = std::chrono::milliseconds(10);

static_assert(std::endian::native == std::endian::little, "a futex watches the low half");
static_assert(std::atomic<uint64_t>::is_always_lock_free);

uint32_t* FutexOf(Signal& signal) { return reinterpret_cast<uint32_t*>(&signal.word); }

// Returns after a wake, after kAbortPeriod, or without reason.
void Sleep(Signal& signal, uint32_t seen, Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - Clock::now());
  const auto most = std::chrono::duration_cast<std::chrono::nanoseconds>(kAbortPeriod);
  const auto wait = std::clamp(left, std::chrono::nanoseconds(0), most);
  timespec time{};
  time.tv_nsec = static_cast<long>(wait.count());
  // Not FUTEX_PRIVATE: ranks may be processes.
  syscall(SYS_futex, FutexOf(signal), FUTEX_WAIT, seen, &time, nullptr, 0);
}

// The deadline, or later where time was lost; that is asked only when it seems over.
Clock::time_point EndOf(const WaitBound& bound, Clock::time_point now) {
  return now < bound.deadline ? bound.deadline : bound.deadline + LostSince(bound.since);
}

template <typename IsOver>
WaitEnd Wait(Signal& signal, const WaitBound& bound, const IsOver& is_over) {
  for (int i = 0; i < bound.num_spins; ++i) {
    if (is_over(signal.word.load(std::memory_order_acquire))) return WaitEnd::kRaised;
    __builtin_ia32_pause();
  }
  while (true) {
    signal.num_waiters.fetch_add(1);  // before the look: Raise looks for us after its store
    const uint64_t word = signal.word.load();
    WaitEnd end = WaitEnd::kRaised;
    bool is_waiting = false;
    if (!is_over(word)) {
      if (bound.abort != nullptr && bound.abort->is_set()) {
        end = WaitEnd::kAborted;
      } else {
        const Clock::time_point now = Clock::now();
        const Clock::time_point deadline = EndOf(bound, now);
        if (now >= deadline) {
          end = WaitEnd::kDeadline;
        } else {
          Sleep(signal, SequenceOf(word), deadline);
          is_waiting = true;
        }
      }
    }
    signal.num_waiters.fetch_sub(1);
    if (!is_waiting) return end;
  }
}

// After the store that the waiters wait for.
void WakeAll(Signal& signal) {
  if (signal.num_waiters.load() == 0) return;
  syscall(SYS_futex, FutexOf(signal), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

void Raise(Signal& signal, uint32_t sequence, uint32_t payload) {
  signal.word.store(uint64_t{payload} << 32 | sequence);
  WakeAll(signal);
}

void Ring(Signal& signal) {
  signal.word.fetch_add(1);  // a bell has no payload, so the carry goes nowhere that matters
  WakeAll(signal);
}

bool AbortWord::Set(int seen_by, int culprit) {
  const auto low = static_cast<uint32_t>(seen_by + 1) | 1U << 31;
  uint64_t none = 0;
  return word.compare_exchange_strong(none,
                                      uint64_t{static_cast<uint32_t>(culprit + 1)} << 32 | low);
}

int AbortWord::seen_by() const {
  return static_cast<int>(static_cast<uint32_t>(word.load()) & ~(1U << 31)) - 1;
}

int AbortWord::culprit() const { return static_cast<int>(word.load() >> 32) - 1; }

WaitEnd WaitFor(Signal& signal, uint32_t sequence, uint32_t slack, const WaitBound& bound,
                uint32_t* payload) {
  return Wait(signal, bound, [&](uint64_t word) {
    if (SequenceOf(word) - sequence > slack) return false;
    if (payload != nullptr) *payload = PayloadOf(word);
    return true;
  });
}

WaitEnd WaitForChange(Signal& signal, uint32_t seen, const WaitBound& bound) {
  return Wait(signal, bound, [&](uint64_t word) { return SequenceOf(word) != seen; });
}

}  // namespace moebius::comm
