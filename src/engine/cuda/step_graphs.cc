#include "engine/cuda/step_graphs.h"

#include <utility>

#include "platform/cuda/trace_range.h"

namespace moebius::engine {

using platform::cuda::TraceRange;

Status StepGraphs::Run(const GraphKey& key, const platform::cuda::Stream& stream,
                       const std::function<Status()>& work, moe::ExchangeMode* mode) {
  if (const auto it = graphs_.find(key); it != graphs_.end()) {
    const TraceRange range("replay graph");
    ++num_replays_;
    *mode = it->second.mode;
    return it->second.graph.Launch(stream);
  }
  GraphKey of_any_slot = key;
  of_any_slot.slot = -1;
  if (seen_keys_.insert(of_any_slot).second) return work();
  const TraceRange range("capture graph");
  MOEBIUS_ASSIGN(platform::cuda::Graph graph, platform::cuda::Graph::Capture(stream, work));
  const auto made = graphs_.emplace(key, Captured{std::move(graph), *mode}).first;
  return made->second.graph.Launch(stream);
}

}  // namespace moebius::engine
