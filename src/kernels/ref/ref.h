// The scalar truth: every operation written as its definition says, sums in double, one thread.
// These may allocate (they are for tests and for machines without vector units); arguments were
// checked by kernels/ops.cc.
#pragma once

#include "kernels/ops.h"

namespace moebius::kernels::ref {

void Embed(ExecContext& ctx, const EmbedArgs& args);
void RmsNorm(ExecContext& ctx, const RmsNormArgs& args);
void Add(ExecContext& ctx, const AddArgs& args);
void Rope(ExecContext& ctx, const RopeArgs& args);
void KvWrite(ExecContext& ctx, const KvWriteArgs& args);

void Gemm(ExecContext& ctx, const GemmArgs& args);
void HeadGemm(ExecContext& ctx, const HeadGemmArgs& args);
void SwiGlu(ExecContext& ctx, const SwiGluArgs& args);
void GroupedSwiGlu(ExecContext& ctx, const GroupedSwiGluArgs& args);
void GroupedGemm(ExecContext& ctx, const GroupedGemmArgs& args);

void RouteTopK(ExecContext& ctx, const RouteTopKArgs& args);
void ChooseSlots(ExecContext& ctx, const ChooseSlotsArgs& args);
void GroupBySlot(ExecContext& ctx, const GroupBySlotArgs& args);
void WeightedReduce(ExecContext& ctx, const WeightedReduceArgs& args);

void Attention(ExecContext& ctx, const AttentionArgs& args);
void MlaAttention(ExecContext& ctx, const MlaAttentionArgs& args);
void MlaPrefill(ExecContext& ctx, const MlaPrefillArgs& args);

void Sample(ExecContext& ctx, const SampleArgs& args);

inline double Get(const Mat& m, int64_t row, int64_t col) {
  return LoadFloat(m.RowBytes(row), m.dtype, col);
}
inline void Put(const Mat& m, int64_t row, int64_t col, double value) {
  StoreFloat(m.RowBytes(row), m.dtype, col, static_cast<float>(value));
}

}  // namespace moebius::kernels::ref
