// Ranks that rebalance, as threads over heap memory, for tests: stores whose weights say what they
// are (a pattern of layer, expert and offset), and the agents over them.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "moe/migrate/expert_checksum.h"
#include "rank/balance_agent.h"
#include "rank/deadlines_test.h"

namespace moebius::rank::testing {

constexpr size_t kExpertBytes = 10'000;  // no multiple of the chunk
constexpr size_t kTestChunk = 4096;

inline std::byte WeightOf(int layer, int expert, size_t offset) {
  const uint64_t mixed =
      (static_cast<uint64_t>(layer) << 40 | static_cast<uint64_t>(expert) << 24 | offset) *
      0x9E37'79B9'7F4A'7C15;
  return static_cast<std::byte>(mixed >> 56);
}

// A store whose slots are vectors.
class FakeStore final : public moe::ExpertStore {
 public:
  using Weights = std::vector<std::byte>;

  FakeStore(const BalanceLayout& layout, int rank, int num_staging)
      : present_(layout.experts),
        staging_(static_cast<size_t>(num_staging), Weights(kExpertBytes)) {
    slots_.resize(present_.size());
    for (int layer = 0; layer < layout.num_layers(); ++layer) {
      std::vector<Weights>& experts = experts_.emplace_back();
      for (int expert = 0; expert < layout.slots.num_experts; ++expert) {
        Weights& weights = experts.emplace_back(kExpertBytes);
        for (size_t i = 0; i < kExpertBytes; ++i) weights[i] = WeightOf(layer, expert, i);
      }
    }
    const int per_rank = layout.slots.places_per_rank();
    for (int layer = 0; layer < layout.num_layers(); ++layer) {
      const auto l = static_cast<size_t>(layer);
      for (int place = 0; place < layout.slots.num_places(); ++place) {
        if (layout.WorldRankOf(layer, place) != rank) continue;
        if (slots_[l].empty()) first_place_.emplace_back(layer, place);
        const int32_t expert = present_[l][static_cast<size_t>(place)];
        slots_[l].push_back(expert < 0 ? Weights(kExpertBytes) : WeightsOf(layer, expert));
      }
      EXPECT_TRUE(slots_[l].empty() || static_cast<int>(slots_[l].size()) == per_rank);
    }
  }

  bool has_pool = false;
  bool has_checkpoint = false;
  // Of the pool's copy of every expert.
  bool is_pool_spoiled = false;
  // After each Write, with all of the staging slot. The mover's thread.
  std::function<void(size_t offset, std::span<std::byte> staged)> written = {};

  size_t ExpertBytes(int layer) const override {
    return slots_[static_cast<size_t>(layer)].empty() ? 0 : kExpertBytes;
  }
  int NumSlots(int layer) const override {
    return static_cast<int>(slots_[static_cast<size_t>(layer)].size());
  }
  int num_staging() const override { return static_cast<int>(staging_.size()); }
  void Read(int layer, int local_slot, size_t offset, std::span<std::byte> out) const override {
    const Weights& weights = slots_[static_cast<size_t>(layer)][static_cast<size_t>(local_slot)];
    std::copy_n(weights.begin() + static_cast<int64_t>(offset), out.size(), out.begin());
  }
  void Write(int staging, size_t offset, std::span<const std::byte> in) override {
    Weights& staged = staging_[static_cast<size_t>(staging)];
    std::ranges::copy(in, staged.begin() + static_cast<int64_t>(offset));
    if (written) written(offset, staged);
  }
  void ReadStaging(int staging, size_t offset, std::span<std::byte> out) const override {
    const Weights& staged = staging_[static_cast<size_t>(staging)];
    std::copy_n(staged.begin() + static_cast<int64_t>(offset), out.size(), out.begin());
  }
  // All at once, with a checksum.
  Result<Stored> FromPool(int layer, ExpertId expert, size_t offset) override {
    if (!has_pool) return MakeError(ErrorCode::kUnsupported, "there is none");
    auto weights = std::make_shared<Weights>(WeightsOf(layer, expert.value()));
    moe::ExpertChecksum checksum;
    checksum.Add(*weights);
    if (is_pool_spoiled) weights->back() ^= std::byte{1};
    const auto bytes = std::span<const std::byte>(*weights).subspan(offset);
    return Stored{.bytes = bytes, .checksum = checksum.value(), .owner = std::move(weights)};
  }
  // In two parts, without.
  Result<Stored> FromCheckpoint(int layer, ExpertId expert, size_t offset) override {
    if (!has_checkpoint) return MakeError(ErrorCode::kUnsupported, "there is none");
    constexpr size_t kFirst = 6000;
    auto weights = std::make_shared<Weights>(WeightsOf(layer, expert.value()));
    const auto all = std::span<const std::byte>(*weights);
    const auto bytes = offset < kFirst ? all.subspan(offset, kFirst - offset) : all.subspan(offset);
    return Stored{.bytes = bytes, .checksum = {}, .owner = std::move(weights)};
  }
  Status Prepare(std::vector<Change> changes) override {
    EXPECT_TRUE(prepared_.empty());
    prepared_ = std::move(changes);
    return {};
  }
  void Flip() override {
    for (Change& change : prepared_) {
      const auto layer = static_cast<size_t>(change.layer);
      present_[layer] = std::move(change.experts);
      for (const Change::Slot& slot : change.slots) {
        std::swap(slots_[layer][static_cast<size_t>(slot.local_slot)],
                  staging_[static_cast<size_t>(slot.staging)]);
      }
    }
    prepared_.clear();
  }
  void Discard() override { prepared_.clear(); }

  // As if something else had written into a slot. The mover's thread.
  void Spoil(int layer, int local_slot) {
    slots_[static_cast<size_t>(layer)][static_cast<size_t>(local_slot)][0] ^= std::byte{1};
  }
  const std::vector<moe::SlotList>& present() const { return present_; }
  // Every slot of this rank has the weights that the present lists say. As a step reads them.
  bool IsAsListed() const {
    for (const auto& [layer, first] : first_place_) {
      const auto l = static_cast<size_t>(layer);
      for (size_t s = 0; s < slots_[l].size(); ++s) {
        const int32_t expert = present_[l][static_cast<size_t>(first) + s];
        if (expert >= 0 && slots_[l][s] != WeightsOf(layer, expert)) return false;
      }
    }
    return true;
  }

 private:
  const Weights& WeightsOf(int layer, int expert) const {
    return experts_[static_cast<size_t>(layer)][static_cast<size_t>(expert)];
  }

  std::vector<std::vector<Weights>> experts_;  // by layer and expert: what each is
  std::vector<moe::SlotList> present_;
  std::vector<std::vector<Weights>> slots_;       // by layer and local slot
  std::vector<std::pair<int, int>> first_place_;  // layers of this rank
  std::vector<Weights> staging_;
  std::vector<Change> prepared_;
};

// Slots in order: expert s % num_experts; the ranks of `num_stages` stages share out the layers.
inline BalanceLayout LayoutOf(const moe::SlotShape& slots, int num_layers, int num_stages = 1) {
  BalanceLayout layout{.slots = slots, .ranks = {}, .experts = {}};
  for (int layer = 0; layer < num_layers; ++layer) {
    const int stage = layer * num_stages / num_layers;
    std::vector<int>& ranks = layout.ranks.emplace_back();
    moe::SlotList& experts = layout.experts.emplace_back();
    int next = 0;
    for (int member = 0; member < slots.num_ranks; ++member) {
      ranks.push_back(stage * slots.num_ranks + member);
      for (int slot = 0; slot < slots.places_per_rank(); ++slot) {
        experts.push_back(slot < slots.SlotsOf(member) ? next++ % slots.num_experts : -1);
      }
    }
  }
  return layout;
}

class BalancedRanks {
 public:
  struct Options {
    BalanceLayout layout;
    int num_stages = 1;
    int num_staging = 8;
    std::chrono::milliseconds answer_deadline = kOneMinute;
    int64_t bytes_per_second = 0;
    BalanceHooks hooks = {};
    std::optional<RebalancerOptions> planner = {};
  };

  explicit BalancedRanks(Options options)
      : options_(std::move(options)), lines_(BalanceBoard::NumBytes(ShapeOf()) / 64 + 1) {
    for (int rank = 0; rank < size(); ++rank) {
      stores_.push_back(std::make_unique<FakeStore>(options_.layout, rank, options_.num_staging));
    }
    agents_.resize(stores_.size());
  }

  int size() const { return options_.layout.slots.num_ranks * options_.num_stages; }
  BalanceBoard board() { return {ShapeOf(), memory()}; }
  std::span<std::byte> memory() {
    return {reinterpret_cast<std::byte*>(lines_.data()), lines_.size() * sizeof(Line)};
  }
  comm::AbortWord& abort() { return abort_; }
  FakeStore& store(int rank) { return *stores_[static_cast<size_t>(rank)]; }
  std::unique_ptr<BalanceAgent>& agent(int rank) { return agents_[static_cast<size_t>(rank)]; }

  void Start() {
    for (int rank = 0; rank < size(); ++rank) StartRank(rank);
  }
  void StartRank(int rank, bool starts = true) {
    BalanceAgentOptions options{.mail = {.rank = rank,
                                         .abort = &abort_,
                                         .answer_deadline = options_.answer_deadline,
                                         .bytes_per_second = options_.bytes_per_second,
                                         .hooks = options_.hooks},
                                .layout = options_.layout,
                                .planner = {}};
    if (rank == 0 && options_.planner) {
      options.planner = options_.planner;
      options.planner->abort = &abort_;
    }
    agent(rank) = std::make_unique<BalanceAgent>(board(), std::move(options), &store(rank));
    if (starts) agent(rank)->Start();
  }

  // As the device threads would, between two steps.
  void FlipAll(uint64_t epoch) {
    for (auto& agent : agents_) {
      const Status status = agent->Flip(epoch);
      ASSERT_TRUE(status) << status.error().message();
    }
  }
  // Waits for it, a minute at most.
  static bool Comes(const std::function<bool()>& is_there) {
    const auto deadline = In(kOneMinute);
    while (!is_there()) {
      if (comm::Clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return true;
  }
  bool AllReady(uint64_t number) {
    for (int rank = 0; rank < size(); ++rank) {
      if (board().CellOf(rank).ready.load() != number) return false;
    }
    return true;
  }
  bool AllReleased(uint64_t number) {
    for (int rank = 0; rank < size(); ++rank) {
      if (board().CellOf(rank).released.load() != number) return false;
    }
    return true;
  }
  bool AllAsListed(const std::vector<moe::SlotList>& lists) {
    for (const auto& store : stores_) {
      if (store->present() != lists || !store->IsAsListed()) return false;
    }
    return true;
  }

 private:
  struct alignas(64) Line {
    std::byte bytes[64] = {};
  };
  BalanceShape ShapeOf() const {
    return {.num_ranks = size(),
            .num_layers = options_.layout.num_layers(),
            .num_places = options_.layout.slots.num_places(),
            .max_updates = 4,
            .chunk_bytes = kTestChunk};
  }

  const Options options_;
  std::vector<Line> lines_;
  comm::AbortWord abort_;
  std::vector<std::unique_ptr<FakeStore>> stores_;
  std::vector<std::unique_ptr<BalanceAgent>> agents_;
};

// Four ranks with two slots each, a layer, and a plan in which experts 0 and 7 change places, so
// ranks 0 and 3 want something of each other.
inline const moe::SlotList kBefore{0, 1, 2, 3, 4, 5, 6, 7};
inline const moe::SlotList kAfter{7, 1, 2, 3, 4, 5, 6, 0};

inline BalanceLayout FourRanks() {
  return LayoutOf({.num_experts = 8, .num_slots = 8, .num_ranks = 4}, 1);
}

// Publishes the plan, and says whether all are ready; else all have let go of it.
inline bool Try(BalancedRanks& ranks, uint64_t number, const moe::SlotList& experts) {
  const BalanceBoard board = ranks.board();
  board.Publish({.number = number, .updates = {{0, experts}}});
  const auto has_failed = [&] {
    for (int rank = 0; rank < ranks.size(); ++rank) {
      if (board.CellOf(rank).failed.load() == number) return true;
    }
    return false;
  };
  EXPECT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReady(number) || has_failed(); }));
  if (!has_failed()) return true;
  board.Drop(number);
  EXPECT_TRUE(BalancedRanks::Comes([&] { return ranks.AllReleased(number); }));
  EXPECT_TRUE(ranks.AllAsListed({kBefore}));
  return false;
}

inline void Finish(BalancedRanks& ranks, uint64_t number, const moe::SlotList& experts) {
  ranks.board().Commit(number);
  ranks.FlipAll(number);
  EXPECT_TRUE(ranks.AllAsListed({experts}));
}

// Corrupts the first so many answers of rank 3.
inline BalanceHooks CorruptFirst(int count) {
  auto left = std::make_shared<std::atomic<int>>(count);
  return {.answered = [left](int source, int, std::span<std::byte> chunk) {
    if (source == 3 && (*left)-- > 0) chunk[chunk.size() / 2] ^= std::byte{4};
  }};
}

}  // namespace moebius::rank::testing
