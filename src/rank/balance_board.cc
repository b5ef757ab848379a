#include "rank/balance_board.h"

#include <xxhash.h>

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/math.h"

namespace moebius::rank {
namespace {

constexpr size_t kBoardLine = 64;

// Of one update in the plan's words: the layer, then its list.
size_t UpdateWords(const BalanceShape& shape) { return 1 + static_cast<size_t>(shape.num_places); }

// The number of updates comes first.
size_t PlanWordsOf(const BalanceShape& shape) {
  return 1 + static_cast<size_t>(shape.max_updates) * UpdateWords(shape);
}

// Of one placement, all layers.
size_t PlacesOfAll(const BalanceShape& shape) {
  return static_cast<size_t>(shape.num_layers) * static_cast<size_t>(shape.num_places);
}

// Where the parts of the memory begin.
struct BoardParts {
  size_t plan = 0;
  size_t places = 0;
  size_t cells = 0;
  size_t mailboxes = 0;
  size_t chunks = 0;
  size_t end = 0;
};

BoardParts PartsOf(const BalanceShape& shape, size_t head_bytes) {
  const auto num_ranks = static_cast<size_t>(shape.num_ranks);
  BoardParts parts;
  parts.plan = RoundUp(head_bytes, kBoardLine);
  parts.places = RoundUp(parts.plan + PlanWordsOf(shape) * sizeof(int32_t), kBoardLine);
  parts.cells =
      RoundUp(parts.places + kKeptPlacements * PlacesOfAll(shape) * sizeof(int32_t), kBoardLine);
  parts.mailboxes = parts.cells + num_ranks * sizeof(BalanceCell);
  parts.chunks = parts.mailboxes + num_ranks * sizeof(Mailbox);
  parts.end = parts.chunks + num_ranks * RoundUp(shape.chunk_bytes, kBoardLine);
  return parts;
}

// Of the places of one placement.
struct Shown {
  std::atomic<uint64_t> version;  // 0: nothing yet; odd while they are written
  std::atomic<uint64_t> epoch;
};

}  // namespace

struct BalanceBoard::Head {
  comm::Signal planner_bell;
  alignas(kBoardLine) std::atomic<uint64_t> published;
  std::atomic<uint64_t> committable;
  std::atomic<uint64_t> dropped;
  uint64_t plan_hash;
  std::array<Shown, kKeptPlacements> shown;
  uint64_t num_shown;  // the planner's
  alignas(kBoardLine) BalanceCounters counters;
};

size_t BalanceBoard::NumBytes(const BalanceShape& shape) {
  return PartsOf(shape, sizeof(Head)).end;
}

BalanceBoard::BalanceBoard(const BalanceShape& shape, std::span<std::byte> memory)
    : shape_(shape), memory_(memory) {
  MOEBIUS_CHECK_GE(memory.size(), NumBytes(shape));
  MOEBIUS_CHECK_EQ(reinterpret_cast<uintptr_t>(memory.data()) % kBoardLine, uintptr_t{0});
}

std::span<int32_t> BalanceBoard::PlanWords() const {
  auto* words = reinterpret_cast<int32_t*>(memory_.data() + PartsOf(shape_, sizeof(Head)).plan);
  return {words, PlanWordsOf(shape_)};
}

BalanceCell& BalanceBoard::CellOf(int rank) const {
  std::byte* cells = memory_.data() + PartsOf(shape_, sizeof(Head)).cells;
  return reinterpret_cast<BalanceCell*>(cells)[rank];
}

Mailbox& BalanceBoard::MailboxOf(int rank) const {
  std::byte* mailboxes = memory_.data() + PartsOf(shape_, sizeof(Head)).mailboxes;
  return reinterpret_cast<Mailbox*>(mailboxes)[rank];
}

std::span<std::byte> BalanceBoard::ChunkOf(int rank) const {
  const size_t stride = RoundUp(shape_.chunk_bytes, kBoardLine);
  return memory_.subspan(PartsOf(shape_, sizeof(Head)).chunks + static_cast<size_t>(rank) * stride,
                         shape_.chunk_bytes);
}

comm::Signal& BalanceBoard::planner_bell() const { return head().planner_bell; }
BalanceCounters& BalanceBoard::counters() const { return head().counters; }

uint64_t BalanceBoard::published() const { return head().published.load(); }
uint64_t BalanceBoard::committable() const { return head().committable.load(); }
uint64_t BalanceBoard::dropped() const { return head().dropped.load(); }

void BalanceBoard::RingAll() const {
  for (int rank = 0; rank < shape_.num_ranks; ++rank) comm::Ring(CellOf(rank).bell);
}

void BalanceBoard::Publish(const BalancePlan& plan) const {
  MOEBIUS_CHECK_LE(plan.updates.size(), static_cast<size_t>(shape_.max_updates));
  const std::span<int32_t> words = PlanWords();
  std::ranges::fill(words, 0);
  words[0] = static_cast<int32_t>(plan.updates.size());
  size_t next = 1;
  for (const LayerUpdate& update : plan.updates) {
    MOEBIUS_CHECK_EQ(update.experts.size(), static_cast<size_t>(shape_.num_places));
    words[next] = update.layer;
    std::ranges::copy(update.experts, words.begin() + static_cast<int64_t>(next) + 1);
    next += UpdateWords(shape_);
  }
  head().plan_hash = XXH3_64bits_withSeed(words.data(), words.size_bytes(), plan.number);
  head().published.store(plan.number);
  RingAll();
}

Result<BalancePlan> BalanceBoard::Read() const {
  BalancePlan plan;
  plan.number = published();
  const std::span<const int32_t> words = PlanWords();
  const uint64_t hash = XXH3_64bits_withSeed(words.data(), words.size_bytes(), plan.number);
  if (hash != head().plan_hash) {
    return MakeError(ErrorCode::kCorrupt, "plan {} has hash {:016x}, expected {:016x}", plan.number,
                     hash, head().plan_hash);
  }
  if (words[0] < 0 || words[0] > shape_.max_updates) {
    return MakeError(ErrorCode::kCorrupt, "plan {} has {} layers, expected at most {}", plan.number,
                     words[0], shape_.max_updates);
  }
  for (int32_t i = 0; i < words[0]; ++i) {
    const auto update =
        words.subspan(1 + static_cast<size_t>(i) * UpdateWords(shape_), UpdateWords(shape_));
    plan.updates.push_back({update[0], moe::SlotList(update.begin() + 1, update.end())});
  }
  return plan;
}

std::span<int32_t> BalanceBoard::PlacesOf(uint64_t index) const {
  auto* places = reinterpret_cast<int32_t*>(memory_.data() + PartsOf(shape_, sizeof(Head)).places);
  const size_t size = PlacesOfAll(shape_);
  return {places + index * size, size};
}

void BalanceBoard::Show(uint64_t epoch, std::span<const LayerUpdate> updates) const {
  const uint64_t index = head().num_shown % kKeptPlacements;
  Shown& shown = head().shown[index];
  ++shown.version;
  shown.epoch = epoch;
  const std::span<int32_t> before = PlacesOf((index + kKeptPlacements - 1) % kKeptPlacements);
  const std::span<int32_t> places = PlacesOf(index);
  const auto set = [&](size_t at, int32_t expert) { std::atomic_ref(places[at]).store(expert); };
  for (size_t i = 0; i < places.size(); ++i) set(i, before[i]);
  for (const LayerUpdate& update : updates) {
    size_t at = static_cast<size_t>(update.layer) * static_cast<size_t>(shape_.num_places);
    for (const int32_t expert : update.experts) set(at++, expert);
  }
  ++head().num_shown;
  ++shown.version;
}

std::vector<moe::SlotList> BalanceBoard::ReadPlaces(uint64_t epoch) const {
  for (uint64_t index = 0; index < kKeptPlacements; ++index) {
    const Shown& shown = head().shown[index];
    const uint64_t version = shown.version.load();
    if (version == 0 || version % 2 != 0 || shown.epoch.load() != epoch) continue;
    std::vector<moe::SlotList> layers(static_cast<size_t>(shape_.num_layers));
    const std::span<int32_t> places = PlacesOf(index);
    for (size_t i = 0; i < places.size(); ++i) {
      layers[i / static_cast<size_t>(shape_.num_places)].push_back(
          std::atomic_ref(places[i]).load());
    }
    if (shown.version.load() == version) return layers;
  }
  return {};
}

void BalanceBoard::Commit(uint64_t number) const {
  head().committable.store(number);
  RingAll();
}

void BalanceBoard::Drop(uint64_t number) const {
  head().dropped.store(number);
  RingAll();
}

moe::BalanceStatus BalanceBoard::ReadStatus() const {
  const BalanceCounters& from = counters();
  return {.epoch = committable(),
          .num_committed = from.num_committed.load(),
          .num_dropped = from.num_dropped.load(),
          .num_slots = from.num_slots.load(),
          .num_bytes = from.num_bytes.load(),
          .seconds = static_cast<double>(from.busy_ns.load()) * 1e-9,
          .num_steps = from.busy_steps.load(),
          .stall_seconds = static_cast<double>(from.stall_ns.load()) * 1e-9,
          .from_same_rank = from.from_same_rank.load(),
          .from_peer = from.from_peer.load(),
          .from_pool = from.from_pool.load(),
          .from_checkpoint = from.from_checkpoint.load(),
          .num_corrupt = from.num_corrupt.load(),
          .last_drop = from.last_drop.Get()};
}

}  // namespace moebius::rank
