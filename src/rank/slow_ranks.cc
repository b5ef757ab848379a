#include "rank/slow_ranks.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace moebius::rank {
namespace {

using engine::RankLoad;

double Busy(const RankLoad& load) { return load.seconds - load.parts.wait; }

RankLoad Difference(const RankLoad& now, const RankLoad& then) {
  RankLoad load = now;
  load.num_steps -= then.num_steps;
  load.num_rows -= then.num_rows;
  load.seconds -= then.seconds;
  load.parts.wait -= then.parts.wait;
  return load;
}

// What is no wait holds the others up, between its steps, too: who plans late does. But a stage
// that has no step waits for another one, until what was drawn comes home.
RankLoad OfWindow(RankLoad load, double window, bool is_stage) {
  if (is_stage) load.parts.wait = window - Busy(load);
  load.seconds = window;
  return load;
}

}  // namespace

std::string SlowRank::Describe() const {
  std::string where = fmt::format("data-parallel rank {}", load.dp);
  if (load.tp > 0) where += fmt::format(", tensor-parallel rank {}", load.tp);
  if (load.pp > 0) where += fmt::format(", stage {}", load.pp);
  return fmt::format(
      "rank {} ({}) holds up the others: of the last {:.1f} s they waited {:.1f} s, it waited "
      "{:.1f} "
      "s and was busy for {:.1f} s, with {} rows in {} steps (the fullest other one: {} rows)",
      load.rank, where, window, others_waited, load.parts.wait, Busy(load), load.num_rows,
      load.num_steps, rows);
}

std::vector<SlowRank> SlowRanks::Look(std::span<const RankLoad> loads,
                                      comm::Clock::time_point now) {
  std::vector<SlowRank> slow;
  if (last_.size() == loads.size() && now - last_look_ < options_.window) return slow;
  if (last_.size() == loads.size()) {
    std::map<int, std::vector<RankLoad>> groups;
    const double window = std::chrono::duration<double>(now - last_look_).count();
    const bool has_stages = std::ranges::any_of(loads, [](const auto& l) { return l.pp > 0; });
    for (size_t i = 0; i < loads.size(); ++i) {
      groups[together_ ? 0 : loads[i].dp].push_back(
          OfWindow(Difference(loads[i], last_[i]), window, has_stages));
    }
    for (const auto& [key, group] : groups) {
      const auto found = FindIn(group, window);
      if (!found) continue;
      comm::Clock::time_point& named = named_[static_cast<size_t>(found->load.rank)];
      if (named != comm::Clock::time_point() && now - named < options_.pause) continue;
      named = now;
      slow.push_back(*found);
    }
  }
  last_.assign(loads.begin(), loads.end());
  named_.resize(loads.size());
  last_look_ = now;
  return slow;
}

std::optional<SlowRank> SlowRanks::FindIn(std::span<const RankLoad> group, double window) const {
  if (group.size() < 2) return std::nullopt;
  const auto slowest = std::ranges::max_element(group, {}, Busy);
  SlowRank slow{.load = *slowest, .window = window};
  double second = 0;
  for (const RankLoad& load : group) {
    if (load.rank == slowest->rank) continue;
    second = std::max(second, Busy(load));
    slow.rows = std::max(slow.rows, load.num_rows);
    slow.others_waited += load.parts.wait / static_cast<double>(group.size() - 1);
  }
  const bool is_slow = Busy(*slowest) >= options_.factor * second &&
                       slow.others_waited - slowest->parts.wait >= options_.share * window;
  return is_slow ? std::optional(slow) : std::nullopt;
}

}  // namespace moebius::rank
