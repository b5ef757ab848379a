// The exchange of one rank alone: nothing travels. Dispatch groups pairs by slot and lets the
// expert product gather the rows where they lie; combine is the weighted sum.
#pragma once

#include "moe/exchange/exchange.h"

namespace moebius::moe {

// Room in the arena for what grouping the pairs by slot gives.
kernels::GroupBySlotArgs RoomForGroups(std::span<const int32_t> slots, int64_t num_slots,
                                       Arena& arena);

class LocalExchange final : public Exchange {
 public:
  DispatchedRows Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                          Arena& arena) override;
  size_t ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const override;
  int64_t MaxPlaces(int64_t max_rows, int64_t k) const override { return max_rows * k; }
  void Combine(kernels::ExecContext& ctx, const CombineArgs& args) override;
  bool norms() const override { return true; }
  bool only_groups() const override { return true; }
  int64_t num_expert_rows() const override { return num_expert_rows_; }
  int64_t num_home_rows() const override { return num_expert_rows_; }

 private:
  std::span<const int32_t> places_;  // of the layer between Dispatch and Combine
  std::span<const float> weights_;
  int64_t k_ = 1;
  int64_t num_expert_rows_ = 0;
};

}  // namespace moebius::moe
