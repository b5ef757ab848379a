// The exchange as collectives: every rank gathers all tokens, computes those of its slots, and the
// results are summed by a reduce-scatter. Moves size() times what GroupExchange moves where few
// experts are chosen; what it needs is a communicator alone.
#pragma once

#include <vector>

#include "comm/communicator.h"
#include "moe/exchange/exchange.h"
#include "moe/exchange/protocol.h"

namespace moebius::moe {

class AllGatherExchange final : public Exchange {
 public:
  // comm: of shape.num_ranks members, outlives this; a chunk of it holds a row of shape.act, of
  // top_k slots and of top_k weights.
  AllGatherExchange(const ExchangeShape& shape, comm::Communicator& comm);

  void BeginStep(int64_t step, std::chrono::steady_clock::time_point deadline) override;
  Status status() const override { return comm_.status(); }
  // What the communicator sends: a member's part counts once, whoever reads it.
  ExchangeBytes bytes() const override { return bytes_; }
  int64_t num_expert_rows() const override { return num_expert_rows_; }
  int64_t num_home_rows() const override { return num_home_rows_; }

  DispatchedRows Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                          Arena& arena) override;
  size_t ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const override;
  int64_t MaxPlaces(int64_t max_rows, int64_t k) const override;
  void Combine(kernels::ExecContext& ctx, const CombineArgs& args) override;

 private:
  size_t rank() const { return static_cast<size_t>(comm_.rank()); }
  DispatchedRows Nothing(Arena& arena) const;
  void CombineInOrder(kernels::ExecContext& ctx, const CombineArgs& args);

  const ExchangeShape shape_;
  comm::Communicator& comm_;
  ExchangeBytes bytes_;
  int64_t num_expert_rows_ = 0;
  int64_t num_home_rows_ = 0;

  // Of the call under way. What is a span or a Mat with data lies in the arena.
  std::vector<int64_t> row_begin_;  // of each member, size() + 1
  std::span<int32_t> places_;       // [all tokens * top_k]; negative: not of this rank
  std::span<const float> weights_;  // of all tokens
  std::span<int32_t> own_rows_;     // deterministic: [T * top_k], by pair
  std::span<const float> own_weights_;
  Mat partial_;  // [all tokens, H], deterministic: [all tokens * top_k, H]
  Mat own_;      // deterministic: [T * top_k, H]
};

}  // namespace moebius::moe
