// How far long work has come, on standard error: one line that redraws itself on a terminal, a
// plain line every few seconds elsewhere, and nothing at all for work that is soon done. Made and
// destroyed by the thread that runs the work; Advance may be called by any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <mutex>
#include <string>

namespace moebius {

enum class ProgressUnit { kCount, kBytes };

struct ProgressOptions {
  ProgressUnit unit = ProgressUnit::kCount;
  std::FILE* out = stderr;
  bool is_terminal = false;        // of `out`; DefaultProgressOptions asks the system
  double quiet_seconds = 0.5;      // nothing is shown before
  double terminal_interval = 0.1;  // seconds between two redraws
  double line_interval = 5.0;      // seconds between two plain lines
  std::function<double()> clock;   // seconds, monotonic; empty: the steady clock
};
ProgressOptions DefaultProgressOptions(ProgressUnit unit = ProgressUnit::kCount);

class Progress {
 public:
  // label: "loading weights". total: how many units the work has; 0 if unknown (then no bar and no
  // percentage).
  Progress(std::string label, int64_t total, ProgressOptions options = DefaultProgressOptions());
  // Leaves a last line with what was done and how long it took, if anything was shown before.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `amount` more units are done. Cheap: a clock and an atomic; draws when it is time.
  void Advance(int64_t amount = 1);

 private:
  void Draw(double now);
  std::string Amounts(int64_t done) const;

  const std::string label_;
  const int64_t total_;
  const ProgressOptions options_;
  const double start_;
  std::atomic<int64_t> done_{0};
  std::atomic<double> next_draw_;
  std::mutex drawing_;  // guards `out` and the two below
  bool shown_ = false;
  size_t last_width_ = 0;  // of the line on the terminal, to blank what a shorter one leaves
};

}  // namespace moebius
