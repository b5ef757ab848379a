// The operations of the CPU back ends, over the inner kernels of ctx.backend->cpu. Arguments were
// checked by kernels/ops.cc. Device thread only.
#pragma once

#include "kernels/ops.h"

namespace moebius::kernels::cpu {

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
void GroupBySlot(ExecContext& ctx, const GroupBySlotArgs& args);
void WeightedReduce(ExecContext& ctx, const WeightedReduceArgs& args);

void Attention(ExecContext& ctx, const AttentionArgs& args);
void MlaAttention(ExecContext& ctx, const MlaAttentionArgs& args);

void Sample(ExecContext& ctx, const SampleArgs& args);

}  // namespace moebius::kernels::cpu
