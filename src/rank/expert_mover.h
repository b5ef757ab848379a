// A rank's side of a plan: reads it, fetches what its own slots need, prepares the change, and says
// so; lets go of what was dropped. It fetches from slots of the same rank or of peers, dealt so
// that no holder serves all, else from the host's pool, else from the checkpoint. One thread runs
// it.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "moe/balance/policy.h"
#include "moe/migrate/expert_store.h"
#include "rank/balance_board.h"
#include "rank/expert_mail.h"

namespace moebius::rank {

// Where every place of every layer is, and what it holds at the start.
struct BalanceLayout {
  moe::SlotShape slots;
  // By layer: the world rank of each member of the expert group, whose places follow each other.
  std::vector<std::vector<int>> ranks;
  std::vector<moe::SlotList> experts;  // by layer, of epoch 0

  int num_layers() const { return static_cast<int>(experts.size()); }
};

class ExpertMover {
 public:
  // store: of this rank; outlives this, as does the board's memory.
  ExpertMover(const BalanceBoard& board, MailOptions options, BalanceLayout layout,
              moe::ExpertStore* store);

  // Plan after plan, until Stop or the deployment's failure.
  void Run();
  // Any thread.
  void Stop() { mail_.Stop(); }

 private:
  // A slot of this rank that gets another expert.
  struct Move {
    int layer = 0;
    int place = 0;
    int local_slot = 0;
    int staging = 0;
    int32_t expert = -1;
  };

  void Handle(uint64_t number);
  void EndPlan();
  Status Check(const BalancePlan& plan) const;
  Result<std::vector<Move>> MovesOf(const BalancePlan& plan) const;
  Status Fetch(const Move& move);
  Status FetchFromPeers(const Move& move);
  bool CopyOnRank(const Move& move);
  int WorldRankOf(int layer, int place) const;

  const BalanceBoard board_;
  const int rank_;
  BalanceLayout layout_;  // experts: of the present
  moe::ExpertStore* const store_;
  ExpertMail mail_;
  BalancePlan plan_;           // the last one
  bool is_prepared_ = false;   // and its change, in the store
  std::vector<bool> is_late_;  // by rank: did not answer, in this plan
};

}  // namespace moebius::rank
