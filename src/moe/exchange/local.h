// The exchange of one rank alone: nothing travels. Dispatch groups pairs by slot and lets the
// expert product gather the rows where they lie; combine is the weighted sum.
#pragma once

#include "moe/exchange/exchange.h"

namespace moebius::moe {

class LocalExchange final : public Exchange {
 public:
  DispatchedRows Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                          Arena& arena) override;
  size_t ArenaBytes(int64_t num_pairs, int64_t num_slots) const override;
  void Combine(kernels::ExecContext& ctx, const CombineArgs& args) override;

 private:
  std::span<const int32_t> places_;  // of the layer between Dispatch and Combine
  int64_t k_ = 1;
};

}  // namespace moebius::moe
