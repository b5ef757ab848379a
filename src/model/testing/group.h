// Ranks as threads of one process: communicators, exchanges and shards of all of them over heap
// memory. For tests, of models and of whole ranks.
#pragma once

#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "comm/shared_communicator.h"
#include "model/model_config.h"
#include "model/shard.h"
#include "moe/exchange/group_exchange.h"

namespace moebius::model {

// World rank = (dp * pp sizes + stage) * tp size + tp rank; without `ep` experts are cut.
struct GroupLayout {
  int tp = 1;
  int dp = 1;
  int pp = 1;
  bool ep = false;
  int64_t max_moe_rows = 0;        // Shard's
  moe::SlotAssignment slots = {};  // likewise
  bool sums = false;               // likewise

  int size() const { return tp * dp * pp; }
  std::string Name() const {
    return fmt::format("TP{}_DP{}_PP{}{}{}{}{}", tp, dp, pp, ep ? "_EP" : "", sums ? "_sums" : "",
                       max_moe_rows > 0 ? fmt::format("_chunks_of_{}", max_moe_rows) : "",
                       slots.num_slots > 0 ? fmt::format("_{}_slots", slots.num_slots) : "");
  }
};

// Zeros at a multiple of 64 bytes; pages are touched as they are used.
class ZeroMemory {
 public:
  explicit ZeroMemory(size_t num_bytes)
      : num_bytes_(num_bytes), memory_(std::calloc(num_bytes + 64, 1), &std::free) {}
  std::span<std::byte> bytes() const {
    const auto begin = (reinterpret_cast<uintptr_t>(memory_.get()) + 63) / 64 * 64;
    return {reinterpret_cast<std::byte*>(begin), num_bytes_};
  }

 private:
  size_t num_bytes_;
  std::unique_ptr<void, void (*)(void*)> memory_;
};

class RankGroup {
 public:
  // For steps of at most `max_rows` rows a data-parallel rank.
  RankGroup(const GroupLayout& layout, const ModelConfig& config, DType act, int64_t max_rows)
      : layout_(layout),
        num_layers_(config.num_layers),
        ranks_(static_cast<size_t>(layout.size())) {
    const size_t chunk = std::max<size_t>(4096, WidestRowBytes(config));
    const auto members = [&](int count, auto world_rank_of) {
      std::vector<int> ranks;
      for (int i = 0; i < count; ++i) ranks.push_back(world_rank_of(i));
      return ranks;
    };
    for (int stage = 0; stage < layout.pp; ++stage) {
      for (int dp = 0; dp < layout.dp; ++dp) {
        Connect("TP group", chunk, &Rank::tp,
                members(layout.tp, [&](int tp) { return WorldRank(dp, stage, tp); }));
      }
      const std::vector<int> experts = members(layout.tp * layout.dp, [&](int f) {
        return WorldRank(f / layout.tp, stage, f % layout.tp);
      });
      if (config.moe.num_experts == 0) continue;
      if (layout.ep) {
        ConnectExchange(config, act, max_rows, experts);
      } else {
        Connect("expert group", chunk, &Rank::experts, experts);
      }
    }
    for (int f = 0; f < layout.tp * layout.dp; ++f) {
      Connect("pipeline", chunk, &Rank::pipeline, members(layout.pp, [&](int stage) {
                return WorldRank(f / layout.tp, stage, f % layout.tp);
              }));
    }
  }

  int size() const { return layout_.size(); }
  int DpOf(int rank) const { return rank / (layout_.tp * layout_.pp); }
  bool IsLastStage(int rank) const { return StageOf(rank) + 1 == layout_.pp; }

  // What LoadOptions of a world rank take.
  Shard ShardOf(int rank) const {
    const Rank& own = ranks_[static_cast<size_t>(rank)];
    const int tp = rank % layout_.tp;
    Shard shard;
    shard.tp = {tp, layout_.tp, own.tp.get()};
    shard.experts = {DpOf(rank) * layout_.tp + tp, layout_.tp * layout_.dp, own.experts.get()};
    shard.cut_experts = !layout_.ep && shard.experts.size > 1;
    shard.exchange = own.exchange.get();
    shard.max_moe_rows = layout_.max_moe_rows;
    shard.slots = layout_.slots;
    shard.sums = layout_.sums;
    shard.pipeline = {StageOf(rank), layout_.pp, own.pipeline.get()};
    shard.first_layer = num_layers_ * shard.pipeline.rank / layout_.pp;
    shard.end_layer = num_layers_ * (shard.pipeline.rank + 1) / layout_.pp;
    return shard;
  }

  // By the rank's own thread.
  void BeginStep(int rank, int64_t step,
                 std::chrono::milliseconds patience = std::chrono::seconds(120)) {
    Rank& own = ranks_[static_cast<size_t>(rank)];
    const comm::Clock::time_point deadline = comm::Clock::now() + patience;
    for (auto* comm : {own.tp.get(), own.experts.get(), own.pipeline.get()}) {
      if (comm != nullptr) comm->BeginStep(step, deadline);
    }
    if (own.exchange != nullptr) own.exchange->BeginStep(step, deadline);
  }
  // What it sent in collectives of its TP group and of the experts' group.
  comm::CommBytes BytesOf(int rank) const {
    const Rank& own = ranks_[static_cast<size_t>(rank)];
    comm::CommBytes sum;
    for (const auto* comm : {own.tp.get(), own.experts.get()}) {
      if (comm == nullptr) continue;
      sum.gather += comm->bytes().gather;
      sum.reduce += comm->bytes().reduce;
    }
    return sum;
  }
  // The first failure that the rank saw.
  Status StatusOf(int rank) const {
    const Rank& own = ranks_[static_cast<size_t>(rank)];
    for (const auto* comm : {own.tp.get(), own.experts.get(), own.pipeline.get()}) {
      if (comm != nullptr && !comm->status()) return comm->status();
    }
    return own.exchange == nullptr ? Status() : own.exchange->status();
  }

  // body(world rank), each on a thread of its own.
  void Run(const std::function<void(int rank)>& body) const {
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size(); ++rank) threads.emplace_back(body, rank);
    for (std::thread& thread : threads) thread.join();
  }

 private:
  using Comm = std::unique_ptr<comm::SharedCommunicator>;
  struct Rank {
    Comm tp;
    Comm experts;
    Comm pipeline;
    std::unique_ptr<moe::Exchange> exchange;
  };

  int WorldRank(int dp, int stage, int tp) const {
    return (dp * layout_.pp + stage) * layout_.tp + tp;
  }
  int StageOf(int rank) const { return rank / layout_.tp % layout_.pp; }

  comm::GroupInfo InfoOf(const char* name, const std::vector<int>& members, size_t i) {
    return {
        .name = name, .rank = static_cast<int>(i), .world_ranks = members, .abort = abort_.get()};
  }
  std::span<std::byte> TakeMemory(size_t num_bytes) {
    return memory_.emplace_back(num_bytes).bytes();
  }

  void Connect(const char* name, size_t chunk, Comm Rank::* comm, const std::vector<int>& members) {
    if (members.size() == 1) return;
    const std::span<std::byte> memory =
        TakeMemory(comm::SharedCommunicator::NumBytes(static_cast<int>(members.size()), chunk));
    for (size_t i = 0; i < members.size(); ++i) {
      ranks_[static_cast<size_t>(members[i])].*comm =
          std::make_unique<comm::SharedCommunicator>(InfoOf(name, members, i), memory, chunk);
    }
  }

  void ConnectExchange(const ModelConfig& config, DType act, int64_t max_rows,
                       const std::vector<int>& members) {
    if (members.size() == 1) return;
    const moe::ExchangeShape shape =
        ShapeOfExchange(config, act, ShardOf(members.front()), max_rows, /*deterministic=*/true);
    const std::span<std::byte> memory = TakeMemory(moe::GroupExchange::NumBytes(shape));
    for (size_t i = 0; i < members.size(); ++i) {
      ranks_[static_cast<size_t>(members[i])].exchange =
          std::make_unique<moe::GroupExchange>(shape, InfoOf("expert group", members, i), memory);
    }
  }

  GroupLayout layout_;
  int64_t num_layers_;
  std::vector<ZeroMemory> memory_;
  std::unique_ptr<comm::AbortWord> abort_ = std::make_unique<comm::AbortWord>();
  std::vector<Rank> ranks_;
};

}  // namespace moebius::model
