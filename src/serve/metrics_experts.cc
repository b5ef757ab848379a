#include "serve/metrics_experts.h"

#include <algorithm>

namespace moebius::serve {
namespace {

constexpr double kSnapshotsAWindow = 12;

}  // namespace

ExpertSpread SpreadOf(std::span<const int64_t> counts) {
  ExpertSpread spread;
  for (const int64_t count : counts) {
    spread.total += count;
    spread.max = std::max(spread.max, count);
    spread.num_active += count > 0;
  }
  if (!counts.empty()) {
    spread.mean = static_cast<double>(spread.total) / static_cast<double>(counts.size());
  }
  return spread;
}

ExpertLoad ExpertWindow::Advance(const moe::ExpertStats& now, double uptime) {
  const std::lock_guard lock(mutex_);
  while (past_.size() > 1 && past_[1].uptime <= uptime - seconds_) past_.pop_front();

  ExpertLoad load{uptime, now.num_layers(), now.num_experts(), {}};
  load.counts.reserve(static_cast<size_t>(load.num_layers) * load.num_experts);
  for (int layer = 0; layer < now.num_layers(); ++layer) {
    load.counts.insert(load.counts.end(), now.Layer(layer).begin(), now.Layer(layer).end());
  }
  if (!past_.empty()) {
    const Past& base = past_.front();
    load.seconds = uptime - base.uptime;
    const bool is_counted = base.counts.num_layers() == load.num_layers &&
                            base.counts.num_experts() == load.num_experts;
    for (int layer = 0; is_counted && layer < load.num_layers; ++layer) {
      const auto then = base.counts.Layer(layer);
      int64_t* const counts = load.counts.data() + static_cast<size_t>(layer) * load.num_experts;
      for (size_t expert = 0; expert < then.size(); ++expert) counts[expert] -= then[expert];
    }
  }
  if (past_.empty() || uptime - past_.back().uptime >= seconds_ / kSnapshotsAWindow) {
    if (past_.empty()) past_.push_back({0, {}});  // the start: nothing counted yet
    past_.push_back({uptime, now});
  }
  return load;
}

}  // namespace moebius::serve
