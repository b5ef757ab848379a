#include "rank/rebalancer.h"

#include <pthread.h>

#include <algorithm>
#include <string>
#include <utility>

#include "base/log.h"

namespace moebius::rank {
namespace {

using comm::Clock;

// After so many plans in a row that came to nothing the time between two grows no more.
constexpr int kMostDoublings = 6;

void ShowStart(const BalanceBoard& board, const BalanceLayout& layout) {
  std::vector<LayerUpdate> all;
  for (int layer = 0; layer < layout.num_layers(); ++layer) {
    all.push_back({layer, layout.experts[static_cast<size_t>(layer)]});
  }
  board.Show(0, all);
}

}  // namespace

Rebalancer::Rebalancer(const BalanceBoard& board, BalanceLayout layout, RebalancerOptions options)
    : board_(board),
      options_(std::move(options)),
      choice_((ShowStart(board, layout), std::move(layout)), options_.choice),
      thread_([this] { Run(); }) {}

Rebalancer::~Rebalancer() {
  is_stopping_.store(true);
  comm::Ring(board_.planner_bell());
  thread_.join();
}

bool Rebalancer::is_ending() const {
  return is_stopping_.load() || (options_.abort != nullptr && options_.abort->is_set());
}

void Rebalancer::WaitUntil(const std::function<bool()>& is_over, Clock::time_point deadline) {
  comm::Signal& bell = board_.planner_bell();
  while (true) {
    const uint32_t seen = comm::SequenceOf(bell.word.load());  // before the looks below
    const Clock::time_point now = Clock::now();
    if (is_over() || is_ending() || now >= deadline) return;
    // Steps ring no bell.
    comm::WaitForChange(
        bell, seen,
        {.deadline = std::min(deadline, now + options_.period), .abort = options_.abort});
  }
}

void Rebalancer::Run() {
  pthread_setname_np(pthread_self(), "rebalancer");
  int64_t last_step = 0;
  uint64_t number = board_.published();
  while (true) {
    const int64_t interval = options_.step_interval << std::min(drops_in_a_row_, kMostDoublings);
    WaitUntil([&] { return options_.num_steps() - last_step >= interval; },
              Clock::time_point::max());
    if (is_ending()) return;
    last_step = options_.num_steps();
    choice_.AddWindow(options_.load(), last_step);
    BalancePlan plan{.number = number + 1, .updates = choice_.Choose()};
    if (plan.updates.empty()) continue;
    ++number;
    SeeThrough(plan);
    if (is_ending()) return;
  }
}

bool Rebalancer::AreAll(std::atomic<uint64_t> BalanceCell::* word, uint64_t number) const {
  for (int rank = 0; rank < board_.shape().num_ranks; ++rank) {
    if ((board_.CellOf(rank).*word).load() != number) return false;
  }
  return true;
}

int Rebalancer::FirstFailed(uint64_t number) const {
  for (int rank = 0; rank < board_.shape().num_ranks; ++rank) {
    if (board_.CellOf(rank).failed.load() == number) return rank;
  }
  return -1;
}

// Ranks step together: all wait for the slowest.
int64_t Rebalancer::LongestFlip() const {
  int64_t longest = 0;
  for (int rank = 0; rank < board_.shape().num_ranks; ++rank) {
    longest = std::max(longest, board_.CellOf(rank).flip_ns.load());
  }
  return longest;
}

std::string Rebalancer::WhyNotReady(uint64_t number) const {
  if (const int rank = FirstFailed(number); rank >= 0) {
    return fmt::format("rank {}: {}", rank, board_.CellOf(rank).reason.Get());
  }
  std::string ranks;
  for (int rank = 0; rank < board_.shape().num_ranks; ++rank) {
    if (board_.CellOf(rank).ready.load() == number) continue;
    ranks += fmt::format("{}{}", ranks.empty() ? "" : ", ", rank);
  }
  const auto deadline = std::chrono::duration_cast<std::chrono::milliseconds>(options_.deadline);
  // The last one may have been a moment late.
  return ranks.empty() ? fmt::format("not all ranks ready within {} ms", deadline.count())
                       : fmt::format("not ready within {} ms: rank {}", deadline.count(), ranks);
}

void Rebalancer::SeeThrough(const BalancePlan& plan) {
  const Clock::time_point begin = Clock::now();
  const int64_t first_step = options_.num_steps();
  const uint64_t number = plan.number;
  BalanceCounters& counters = board_.counters();
  board_.Publish(plan);
  WaitUntil([&] { return AreAll(&BalanceCell::ready, number) || FirstFailed(number) >= 0; },
            begin + options_.deadline);
  counters.busy_ns += (Clock::now() - begin) / std::chrono::nanoseconds(1);
  counters.busy_steps += options_.num_steps() - first_step;
  if (AreAll(&BalanceCell::ready, number) && !is_ending()) {
    drops_in_a_row_ = 0;
    counters.num_slots += choice_.Accept(plan.updates);
    ++counters.num_committed;
    board_.Show(number, plan.updates);
    board_.Commit(number);
    LogDebug("balancing: plan {} of {} layers is committed", number, plan.updates.size());
    WaitForAll(&BalanceCell::epoch, number, "used");
    if (AreAll(&BalanceCell::epoch, number)) counters.stall_ns += LongestFlip();
    return;
  }
  const std::string reason = is_ending() ? "" : WhyNotReady(number);
  board_.Drop(number);
  if (is_ending()) return;
  ++drops_in_a_row_;
  counters.last_drop.Set(reason);  // first: who sees the number finds why
  ++counters.num_dropped;
  LogWarning("balancing: plan {} is dropped, the placement stays: {}", number, reason);
  WaitForAll(&BalanceCell::released, number, "let go of");
}

// Steps may stop for hours; while they go on, somebody is stuck who is not here after this.
void Rebalancer::WaitForAll(std::atomic<uint64_t> BalanceCell::* word, uint64_t number,
                            const char* done) {
  constexpr auto kLong = std::chrono::seconds(30);
  constexpr int64_t kManySteps = 100;
  bool has_warned = false;
  while (!is_ending() && !AreAll(word, number)) {
    const int64_t steps = options_.num_steps();
    WaitUntil([&] { return AreAll(word, number); }, Clock::now() + kLong);
    if (has_warned || AreAll(word, number) || options_.num_steps() - steps < kManySteps) continue;
    has_warned = true;
    LogWarning("balancing: not all ranks have {} plan {} while steps go on: experts stay", done,
               number);
  }
}

}  // namespace moebius::rank
