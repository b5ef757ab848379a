// A named stretch of host time in the timeline of NVIDIA's profilers (NVTX). Free where none
// listens. Any thread; ranges of one thread nest.
#pragma once

namespace moebius::platform::cuda {

class TraceRange {
 public:
  // name: kept by the profiler as it is now.
  explicit TraceRange(const char* name);
  ~TraceRange();
  TraceRange(const TraceRange&) = delete;
  TraceRange& operator=(const TraceRange&) = delete;
};

// The same as calls: a range of this name begins; null: the last one ends.
void MarkTraceRange(const char* name);

}  // namespace moebius::platform::cuda
