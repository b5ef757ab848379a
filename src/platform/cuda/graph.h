// Graphs: a step's launches captured once, launched again and again. Owned by the device thread.
#pragma once

#include <functional>

#include "base/result.h"
#include "platform/cuda/stream.h"

struct CUgraphExec_st;

namespace moebius::platform::cuda {

class Graph {
 public:
  Graph() = default;
  // Runs `work`, which queues on `stream` (and on streams that it forks from and joins to it)
  // without executing; nothing in it may allocate or wait. Memory that the work uses must outlive
  // the graph. If work fails, its error is returned and the capture dropped.
  static Result<Graph> Capture(const Stream& stream, const std::function<Status()>& work);

  Graph(Graph&& other) noexcept;
  Graph& operator=(Graph&& other) noexcept;
  ~Graph();

  bool valid() const { return exec_ != nullptr; }
  // Queues the captured work.
  Status Launch(const Stream& stream) const;

 private:
  explicit Graph(CUgraphExec_st* exec) : exec_(exec) {}

  CUgraphExec_st* exec_ = nullptr;
};

}  // namespace moebius::platform::cuda
