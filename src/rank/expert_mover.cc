#include "rank/expert_mover.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/log.h"
#include "moe/placement.h"

namespace moebius::rank {

using comm::Clock;

ExpertMover::ExpertMover(const BalanceBoard& board, MailOptions options, BalanceLayout layout,
                         moe::ExpertStore* store)
    : board_(board),
      rank_(options.rank),
      layout_(std::move(layout)),
      store_(store),
      mail_(board, std::move(options), store) {}

void ExpertMover::Run() {
  while (true) {
    mail_.ServeUntil(
        [&] { return board_.published() != plan_.number || (is_prepared_ && IsDropped()); },
        Clock::time_point::max());
    if (mail_.is_ending()) return;
    if (is_prepared_ && IsDropped()) {
      store_->Discard();
      is_prepared_ = false;
      Release();
    } else {
      Handle();
    }
  }
}

void ExpertMover::Release() {
  board_.CellOf(rank_).released.store(plan_.number);
  comm::Ring(board_.planner_bell());
}

void ExpertMover::Handle() {
  if (is_prepared_) {  // and this rank has flipped to it, else there would be no other
    for (LayerUpdate& update : plan_.updates) {
      layout_.experts[static_cast<size_t>(update.layer)] = std::move(update.experts);
    }
    is_prepared_ = false;
  }
  BalanceCell& cell = board_.CellOf(rank_);
  const Status status = Prepare();
  if (mail_.is_ending()) return;
  if (status) {
    is_prepared_ = true;
    cell.ready.store(plan_.number);
    comm::Ring(board_.planner_bell());
    return;
  }
  if (status.error().code() != ErrorCode::kCancelled) {
    cell.reason.Set(status.error().message());
    cell.failed.store(plan_.number);
  }
  Release();  // nothing of it is held
}

Status ExpertMover::Prepare() {
  plan_.number = board_.published();
  MOEBIUS_ASSIGN(plan_, board_.Read());
  MOEBIUS_TRY(Check());
  MOEBIUS_ASSIGN(const std::vector<Move> moves, Moves());
  is_late_.assign(static_cast<size_t>(board_.shape().num_ranks), false);
  std::vector<moe::ExpertStore::Change> changes;
  for (const LayerUpdate& update : plan_.updates) {
    const std::vector<int>& ranks = layout_.ranks[static_cast<size_t>(update.layer)];
    if (std::ranges::find(ranks, rank_) == ranks.end()) continue;
    changes.push_back({.layer = update.layer, .experts = update.experts, .slots = {}});
    for (const Move& move : moves) {
      if (move.layer != update.layer) continue;
      if (Status status = Fetch(move); !status) {
        return tl::unexpected(status.error().WithContext(
            fmt::format("layer {}, expert {}", move.layer, move.expert)));
      }
      changes.back().slots.push_back({move.place % layout_.slots.places_per_rank(), move.staging});
    }
  }
  return store_->Prepare(std::move(changes));
}

// The hash has shown that it is what the planner wrote; this, that it is a placement.
Status ExpertMover::Check() const {
  std::vector<bool> is_changed(static_cast<size_t>(layout_.num_layers()));
  for (const LayerUpdate& update : plan_.updates) {
    if (update.layer < 0 || update.layer >= layout_.num_layers() ||
        is_changed[static_cast<size_t>(update.layer)]) {
      return MakeError(ErrorCode::kCorrupt,
                       "plan {} changes layer {}, expected each once, below {}", plan_.number,
                       update.layer, layout_.num_layers());
    }
    is_changed[static_cast<size_t>(update.layer)] = true;
    const moe::SlotList& present = layout_.experts[static_cast<size_t>(update.layer)];
    for (size_t place = 0; place < present.size(); ++place) {
      // (Lists are of the board's length.) An empty place has no weights to be changed.
      if (present[place] >= 0 || update.experts[place] < 0) continue;
      return MakeError(ErrorCode::kCorrupt, "plan {} fills place {} of layer {}, which is empty",
                       plan_.number, place, update.layer);
    }
    const auto placement = moe::Placement::Create(layout_.slots.num_experts, update.experts);
    if (!placement) {
      return tl::unexpected(placement.error().WithContext(
          fmt::format("plan {}, layer {}", plan_.number, update.layer)));
    }
  }
  return {};
}

Result<std::vector<ExpertMover::Move>> ExpertMover::Moves() const {
  std::vector<Move> moves;
  for (const LayerUpdate& update : plan_.updates) {
    const moe::SlotList& present = layout_.experts[static_cast<size_t>(update.layer)];
    for (size_t p = 0; p < present.size(); ++p) {
      const int32_t expert = update.experts[p];
      const auto place = static_cast<int>(p);
      if (expert < 0 || expert == present[p]) continue;
      if (layout_.WorldRankOf(update.layer, place) != rank_) continue;
      moves.push_back({update.layer, place, expert, static_cast<int>(moves.size())});
    }
  }
  if (static_cast<int>(moves.size()) > store_->num_staging()) {
    return MakeError(ErrorCode::kOutOfMemory,
                     "{} slots of the rank change, it has {} to stage them", moves.size(),
                     store_->num_staging());
  }
  return moves;
}

Status ExpertMover::Fetch(const Move& move) {
  if (IsDropped()) return MakeError(ErrorCode::kCancelled, "the plan was dropped");
  Status slots = FetchFromSlots(move);
  if (slots || slots.error().code() == ErrorCode::kCancelled) return slots;
  std::string reasons = slots.error().message();
  BalanceCounters& counters = board_.counters();
  const struct {
    const char* name;
    StoredIn source;
    std::atomic<int64_t>& count;
  } others[] = {
      {"host pool", &moe::ExpertStore::FromPool, counters.from_pool},
      {"checkpoint", &moe::ExpertStore::FromCheckpoint, counters.from_checkpoint},
  };
  for (const auto& other : others) {
    Status status = FetchStored(move, other.source);
    if (status) {
      ++other.count;
      counters.num_bytes += static_cast<int64_t>(store_->ExpertBytes(move.layer));
      return {};
    }
    if (status.error().code() == ErrorCode::kCancelled) return status;
    const std::string reason = fmt::format("{}: {}", other.name, status.error().message());
    if (status.error().code() != ErrorCode::kUnsupported) Warn(move, reason);
    reasons += "; " + reason;
  }
  return MakeError(slots.error().code(), "{}", reasons);
}

void ExpertMover::Warn(const Move& move, const std::string& reason) const {
  LogWarning("balancing: rank {}, layer {}, expert {}: {}", rank_, move.layer, move.expert, reason);
}

Status ExpertMover::FetchStored(const Move& move, StoredIn source) {
  return mail_.Copy(
      move.layer,
      [&](size_t offset) { return (store_->*source)(move.layer, ExpertId(move.expert), offset); },
      move.staging, [&] { return IsDropped(); });
}

Status ExpertMover::CopyOnRank(const Move& move, int local_slot) {
  const std::span<std::byte> chunk = board_.ChunkOf(rank_);
  const size_t size = store_->ExpertBytes(move.layer);
  const auto read = [&](size_t offset) -> Result<moe::ExpertStore::Stored> {
    const std::span<std::byte> piece = chunk.first(std::min(chunk.size(), size - offset));
    store_->Read(move.layer, local_slot, offset, piece);
    return moe::ExpertStore::Stored{.bytes = piece, .checksum = {}, .owner = {}};
  };
  return mail_.Copy(move.layer, read, move.staging, [&] { return IsDropped(); });
}

std::vector<int> ExpertMover::HoldersOf(const Move& move) const {
  const moe::SlotList& present = layout_.experts[static_cast<size_t>(move.layer)];
  std::vector<int> places;
  for (size_t p = 0; p < present.size(); ++p) {
    if (present[p] == move.expert) places.push_back(static_cast<int>(p));
  }
  if (places.empty()) return places;
  // Those who want the same expert begin with different holders; this rank is asked first.
  std::ranges::rotate(places, places.begin() + (move.place + move.layer) % std::ssize(places));
  std::ranges::stable_partition(
      places, [&](int place) { return layout_.WorldRankOf(move.layer, place) == rank_; });
  return places;
}

Status ExpertMover::FetchFromSlots(const Move& move) {
  BalanceCounters& counters = board_.counters();
  std::string reasons;
  ErrorCode code = ErrorCode::kUnavailable;
  for (const int place : HoldersOf(move)) {
    const int source = layout_.WorldRankOf(move.layer, place);
    const int local_slot = place % layout_.slots.places_per_rank();
    if (is_late_[static_cast<size_t>(source)]) continue;
    Status status = source == rank_ ? CopyOnRank(move, local_slot)
                                    : mail_.Fetch({source, move.layer, local_slot}, move.staging,
                                                  [&] { return IsDropped(); });
    if (status) ++(source == rank_ ? counters.from_same_rank : counters.from_peer);
    if (status || status.error().code() == ErrorCode::kCancelled) return status;
    Warn(move, status.error().message());
    code = status.error().code();
    is_late_[static_cast<size_t>(source)] = code == ErrorCode::kDeadline;
    reasons += (reasons.empty() ? "" : "; ") + status.error().message();
  }
  if (reasons.empty()) reasons = "no peer that answers holds it";
  return MakeError(code, "{}", reasons);
}

}  // namespace moebius::rank
