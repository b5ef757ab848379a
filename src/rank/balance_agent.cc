#include "rank/balance_agent.h"

#include <pthread.h>

#include <chrono>
#include <utility>

namespace moebius::rank {

BalanceAgent::BalanceAgent(const BalanceBoard& board, BalanceAgentOptions options,
                           moe::ExpertStore* store)
    : board_(board),
      rank_(options.mail.rank),
      store_(store),
      layout_(options.layout),
      planner_options_(std::move(options.planner)),
      mover_(board, std::move(options.mail), std::move(options.layout), store) {}

void BalanceAgent::Start() {
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), "expert mover");
    mover_.Run();
  });
  if (!planner_options_) return;
  planner_ = std::make_unique<Rebalancer>(board_, std::move(layout_), std::move(*planner_options_));
}

BalanceAgent::~BalanceAgent() {
  planner_.reset();
  mover_.Stop();
  if (thread_.joinable()) thread_.join();
}

Status BalanceAgent::Flip(uint64_t epoch) {
  if (epoch == epoch_) return {};
  const comm::Clock::time_point begin = comm::Clock::now();
  BalanceCell& cell = board_.CellOf(rank_);
  if (cell.ready.load() != epoch || board_.committable() != epoch) {
    return MakeError(ErrorCode::kInternal,
                     "rank {} is to go from placement epoch {} to {}, it has prepared {}", rank_,
                     epoch_, epoch, cell.ready.load());
  }
  store_->Flip();
  epoch_ = epoch;
  cell.flip_ns.store((comm::Clock::now() - begin) / std::chrono::nanoseconds(1));
  cell.epoch.store(epoch);
  comm::Ring(board_.planner_bell());
  return {};
}

}  // namespace moebius::rank
