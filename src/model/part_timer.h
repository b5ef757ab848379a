// The parts of a forward pass: their times and names. Whoever runs a pass owns the times; its
// device thread writes them.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace moebius::model {

// Where a forward pass spends its time: seconds, by the clock of the device thread. What is neither
// (embedding, dense layers, norms) is not counted here, nor is what waits for other ranks.
struct PartTimes {
  double attention = 0;
  double dispatch = 0;  // to experts; of experts that are cut: gathering rows
  double experts = 0;   // routing, expert products, the shared expert
  double combine = 0;   // and sharing the results out
  double head = 0;      // logits
  // What the rank's waits add to (comm::GroupInfo); null: there is nobody to wait for.
  const std::atomic<int64_t>* waited_ns = nullptr;
  // Called with a part's name as it begins, with null as it ends: a profiler's. Null: nobody.
  void (*mark)(const char* part) = nullptr;

  static const char* NameOf(double PartTimes::* part) {
    if (part == &PartTimes::attention) return "attention";
    if (part == &PartTimes::dispatch) return "dispatch";
    if (part == &PartTimes::experts) return "experts";
    return part == &PartTimes::combine ? "combine" : "head";
  }
};

// Adds the time of its life to one part after the other; nothing and no clock where nobody wants to
// know.
class PartTimer {
 public:
  PartTimer(PartTimes* times, double PartTimes::* part) : times_(times), part_(part) {
    if (times_ == nullptr) return;
    begin_ = Now();
    Mark(PartTimes::NameOf(part_));
  }
  ~PartTimer() {
    if (times_ == nullptr) return;
    Take();
    Mark(nullptr);
  }
  PartTimer(const PartTimer&) = delete;
  PartTimer& operator=(const PartTimer&) = delete;

  // What follows is another part.
  void Next(double PartTimes::* part) {
    if (times_ == nullptr) return;
    Take();
    part_ = part;
    Mark(nullptr);
    Mark(PartTimes::NameOf(part_));
  }

 private:
  void Take() {
    const std::chrono::nanoseconds now = Now();
    times_->*part_ += std::chrono::duration<double>(now - begin_).count();
    begin_ = now;
  }
  void Mark(const char* part) const {
    if (times_->mark != nullptr) times_->mark(part);
  }
  // A clock that stands still while the rank waits for others.
  std::chrono::nanoseconds Now() const {
    const std::chrono::nanoseconds now = std::chrono::steady_clock::now().time_since_epoch();
    if (times_->waited_ns == nullptr) return now;
    return now - std::chrono::nanoseconds(times_->waited_ns->load(std::memory_order_relaxed));
  }

  PartTimes* times_;
  double PartTimes::* part_;
  std::chrono::nanoseconds begin_{};
};

}  // namespace moebius::model
