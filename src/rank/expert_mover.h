// A rank's side of a plan: reads it, fetches what its own slots need, prepares the change, and says
// so; lets go of what was dropped. It fetches from slots of the same rank or of peers, dealt so
// that no holder serves all, else from the host's pool, else from the checkpoint; a source whose
// bytes do not arrive whole (rank/expert_mail.h) is followed by the next one. One thread runs it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "moe/migrate/expert_store.h"
#include "rank/balance_board.h"
#include "rank/balance_layout.h"
#include "rank/expert_mail.h"

namespace moebius::rank {

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
    int32_t expert = -1;
    int staging = 0;
  };

  void Handle();
  void Release();
  Status Prepare();
  Status Check() const;
  Result<std::vector<Move>> Moves() const;
  Status Fetch(const Move& move);
  // Places that hold its expert, in the order in which to try them.
  std::vector<int> HoldersOf(const Move& move) const;
  Status FetchFromSlots(const Move& move);
  Status CopyOnRank(const Move& move, int local_slot);
  using StoredIn = Result<moe::ExpertStore::Stored> (moe::ExpertStore::*)(int, ExpertId, size_t);
  Status FetchStored(const Move& move, StoredIn source);
  void Warn(const Move& move, const std::string& reason) const;
  bool IsDropped() const { return board_.dropped() == plan_.number; }

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
