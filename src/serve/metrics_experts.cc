#include "serve/metrics_experts.h"

#include <algorithm>

namespace moebius::serve {
namespace {

constexpr double kSnapshotsAWindow = 12;
constexpr int kWindows = 3;

// What came between two counts since the start.
moe::ExpertStats Difference(moe::ExpertStats now, const moe::ExpertStats& then) {
  const std::span<int64_t> counts = now.counts();
  if (then.num_experts() != now.num_experts() || then.counts().size() != counts.size()) return now;
  for (size_t i = 0; i < counts.size(); ++i) counts[i] -= then.counts()[i];
  return now;
}

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

// Both may have been read while a rank wrote them: never below 0.
std::vector<int64_t> DecodeCounts(const moe::ExpertStats& counts, int layer) {
  const std::span<const int64_t> all = counts.Layer(layer);
  const std::span<const int64_t> prompts = counts.PromptLayer(layer);
  std::vector<int64_t> decode(all.size());
  for (size_t i = 0; i < all.size(); ++i) decode[i] = std::max<int64_t>(0, all[i] - prompts[i]);
  return decode;
}

ptrdiff_t ExpertWindow::PastAt(double uptime) const {
  ptrdiff_t at = std::ssize(past_) - 1;
  while (at >= 0 && past_[static_cast<size_t>(at)].uptime > uptime) --at;
  return at;
}

ExpertLoad ExpertWindow::Advance(const moe::ExpertStats& now, double uptime,
                                 const ExpertRows& rows) {
  const std::lock_guard lock(mutex_);
  while (past_.size() > 1 && past_[1].uptime <= uptime - kWindows * seconds_) past_.pop_front();

  ExpertLoad load{.seconds = uptime, .counts = now, .rows = rows, .earlier = {}};
  if (!past_.empty()) {
    ptrdiff_t at = std::max<ptrdiff_t>(0, PastAt(uptime - seconds_));
    const Past* begin = &past_[static_cast<size_t>(at)];
    load.seconds = uptime - begin->uptime;
    load.counts = Difference(now, begin->counts);
    load.rows = rows - begin->rows;
    for (int i = 2; i <= kWindows; ++i) {
      const ptrdiff_t before = PastAt(uptime - i * seconds_);
      if (before < 0 || before == at) break;
      const Past* const end = begin;
      begin = &past_[static_cast<size_t>(at = before)];
      load.earlier.push_back(Difference(end->counts, begin->counts));
    }
  }
  if (past_.empty() || uptime - past_.back().uptime >= seconds_ / kSnapshotsAWindow) {
    if (past_.empty()) past_.push_back({});  // the start: nothing counted yet
    past_.push_back({uptime, now, rows});
  }
  return load;
}

}  // namespace moebius::serve
