// Ranks that rebalance, as threads over heap memory, for tests: stores whose weights say what they
// are (a pattern of layer, expert and offset), and the agents over them.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

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
    const int per_rank = layout.slots.places_per_rank();
    for (int layer = 0; layer < layout.num_layers(); ++layer) {
      const auto l = static_cast<size_t>(layer);
      for (int place = 0; place < layout.slots.num_places(); ++place) {
        if (layout.WorldRankOf(layer, place) != rank) continue;
        if (slots_[l].empty()) first_place_.emplace_back(layer, place);
        slots_[l].push_back(WeightsOf(layer, present_[l][static_cast<size_t>(place)]));
      }
      EXPECT_TRUE(slots_[l].empty() || static_cast<int>(slots_[l].size()) == per_rank);
    }
  }

  bool has_pool = false;
  bool has_checkpoint = false;

  size_t ExpertBytes(int layer) const override {
    return slots_[static_cast<size_t>(layer)].empty() ? 0 : kExpertBytes;
  }
  int num_staging() const override { return static_cast<int>(staging_.size()); }
  void Read(int layer, int local_slot, size_t offset, std::span<std::byte> out) const override {
    const Weights& weights = slots_[static_cast<size_t>(layer)][static_cast<size_t>(local_slot)];
    std::copy_n(weights.begin() + static_cast<int64_t>(offset), out.size(), out.begin());
  }
  void Write(int staging, size_t offset, std::span<const std::byte> in) override {
    std::ranges::copy(
        in, staging_[static_cast<size_t>(staging)].begin() + static_cast<int64_t>(offset));
  }
  Status FetchFromPool(int layer, ExpertId expert, int staging) override {
    if (!has_pool) return MakeError(ErrorCode::kUnsupported, "there is none");
    Write(staging, 0, WeightsOf(layer, expert.value()));
    return {};
  }
  Status FetchFromCheckpoint(int layer, ExpertId expert, int staging) override {
    if (!has_checkpoint) return MakeError(ErrorCode::kUnsupported, "there is none");
    Write(staging, 0, WeightsOf(layer, expert.value()));
    return {};
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
  static Weights WeightsOf(int layer, int expert) {
    Weights weights(kExpertBytes);
    for (size_t i = 0; i < kExpertBytes; ++i) weights[i] = WeightOf(layer, expert, i);
    return weights;
  }

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
  void StartRank(int rank) {
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

}  // namespace moebius::rank::testing
