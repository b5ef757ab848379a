// The graphs of steps that only decode, one a bucket: made when a bucket comes for the second time,
// as the first time loads kernels, which a capture does not allow. The runner owns them; the thread
// that queues steps calls.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <set>

#include "base/result.h"
#include "moe/exchange/mode.h"
#include "platform/cuda/graph.h"
#include "platform/cuda/stream.h"

namespace moebius::engine {

struct GraphKey {
  int64_t rows = 0;
  bool is_idle = false;   // all of them are padding
  int64_t blocks = 0;     // of a block table's row
  int64_t peer_rows = 0;  // of the fullest data-parallel rank
  int64_t slot = -1;      // whose copies are inside; negative: the forward pass alone is
  auto operator<=>(const GraphKey&) const = default;
};

class StepGraphs {
 public:
  // `work`, which says in *mode how its exchange was dealt: queued or replayed.
  Status Run(const GraphKey& key, const platform::cuda::Stream& stream,
             const std::function<Status()>& work, moe::ExchangeMode* mode);

  size_t size() const { return graphs_.size(); }
  int64_t num_replays() const { return num_replays_; }

 private:
  struct Captured {
    platform::cuda::Graph graph;
    moe::ExchangeMode mode = moe::ExchangeMode::kAuto;
  };

  std::map<GraphKey, Captured> graphs_;
  std::set<GraphKey> seen_keys_;
  int64_t num_replays_ = 0;
};

}  // namespace moebius::engine
