// A trace of what happens when, as Chrome's trace viewer and Perfetto read it: a JSON array of
// spans, each with a process (here: a rank) and a thread, in microseconds of the monotonic clock,
// which all processes of a machine share. Any number of processes and threads write to one file
// through one descriptor: whole lines, each batch of them at once at the file's end.
//
// A Trace belongs to one thread. It buffers until Flush, once a step; one that is off does nothing
// and asks no clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace moebius {

// Where to write, and as whom.
struct TraceTarget {
  int descriptor = -1;  // of a file that is appended to; -1: nowhere
  int rank = 0;
  bool is_on() const { return descriptor >= 0; }
};

// The file: begins the array, and ends it when it is destroyed, after all who write to it.
class TraceFile {
 public:
  // An old file of this name is gone. kInvalidArgument names what cannot be written.
  static Result<TraceFile> Create(const std::string& path);
  TraceFile(TraceFile&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  TraceFile& operator=(TraceFile&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~TraceFile();

  int descriptor() const { return descriptor_; }

 private:
  explicit TraceFile(int descriptor) : descriptor_(descriptor) {}
  int descriptor_;
};

enum class TraceThread : uint8_t { kEngine = 1, kDevice = 2 };

class Trace {
 public:
  using Clock = std::chrono::steady_clock;

  Trace() = default;
  Trace(const TraceTarget& target, TraceThread thread);
  Trace(const Trace&) = delete;
  Trace& operator=(const Trace&) = delete;
  ~Trace() { Flush(); }

  bool is_on() const { return target_.is_on(); }

  // A span from `begin` to now. plan, rows: -1: not said. `name`: no character that JSON escapes.
  void Add(std::string_view name, Clock::time_point begin, int64_t plan = -1, int64_t rows = -1);
  // A step's pass, with the seconds of its parts. step: as all ranks count; plan: its planner.
  void AddPass(Clock::time_point begin, int64_t step, int64_t plan, int64_t rows,
               std::initializer_list<std::pair<std::string_view, double>> parts);
  // Writes what was added. What cannot be written is lost, and nothing waits for it.
  void Flush();

 private:
  void Begin(std::string_view name, Clock::time_point begin);

  TraceTarget target_;
  TraceThread thread_ = TraceThread::kEngine;
  std::string lines_;
};

// Adds the time of its life. trace may be null.
class TraceSpan {
 public:
  TraceSpan(Trace* trace, std::string_view name) : trace_(trace), name_(name) {
    if (trace_ != nullptr && !trace_->is_on()) trace_ = nullptr;
    if (trace_ != nullptr) begin_ = Trace::Clock::now();
  }
  ~TraceSpan() {
    if (trace_ != nullptr) trace_->Add(name_, begin_);
  }
  TraceSpan(const TraceSpan&) = delete;
  TraceSpan& operator=(const TraceSpan&) = delete;

 private:
  Trace* trace_;
  std::string_view name_;
  Trace::Clock::time_point begin_;
};

}  // namespace moebius
