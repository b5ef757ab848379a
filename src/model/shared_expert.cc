#include "model/shared_expert.h"

#include <algorithm>

#include "kernels/backend.h"

namespace moebius::model {
namespace {

// With so many the gain was gone (bench/results/end-to-end-h200.md).
constexpr int64_t kMostRowsBeside = 256;

// Collectives are for the step's context alone.
bool CanBeBeside(const MoeShared& shared) {
  const SplitPair& pair = shared.shared_expert;
  const bool is_whole = pair.outer.group.size == 1 && pair.outer.adds == nullptr;
  return pair.inner.group.size == 1 && (shared.shard.cut_experts || is_whole);
}

}  // namespace

SharedExpert::SharedExpert(Step& step, const MoeShared& shared, const MoeLayer& layer, Mat rows,
                           int64_t columns)
    : step_(step), rows_(rows), is_slice_(shared.shard.cut_experts) {
  if (!layer.shared) return;
  mlp_ = &*layer.shared;
  out_ = step.arena().AllocMat(step.act, rows.rows, columns);
  is_beside_ = step.ctx.beside != nullptr && CanBeBeside(shared) && rows.rows > 0 &&
               rows.rows <= kMostRowsBeside;
  if (!is_beside_) return;
  kernels::BeginBeside(step.ctx);
  RunMlpSlice(*step.ctx.beside, *mlp_, rows_, out_);
}

Mat SharedExpert::Take() {
  if (is_beside_) {
    kernels::EndBeside(step_.ctx);
  } else if (mlp_ != nullptr && is_slice_) {
    RunMlpSlice(step_.ctx, *mlp_, rows_, out_);
  } else if (mlp_ != nullptr) {
    RunMlp(step_, *mlp_, rows_, out_);
  }
  return out_;
}

size_t BesideBytes(const MoeShared& shared, const kernels::Backend& backend, DType act,
                   int64_t hidden_size) {
  const int64_t width = shared.config.shared_intermediate_size;
  if (width == 0 || backend.begin_beside == nullptr || !CanBeBeside(shared)) return 0;
  // An arena that only counts: nothing is ever written to what it gives.
  Arena arena(reinterpret_cast<void*>(Arena::kAlignment), SIZE_MAX / 2);
  ReserveMlp(arena, kMostRowsBeside, act, width);
  kernels::OpLimits limits;
  limits.act = act;
  limits.rows = kMostRowsBeside;
  limits.inputs = std::max(hidden_size, width);
  limits.gated_width = width;
  return arena.peak() + backend.workspace_bytes(limits) + Arena::kAlignment;
}

}  // namespace moebius::model
