// The operations of kernels/ops.h on a GPU, and what they share. Arguments were checked by
// kernels/ops.cc. Called by the device thread of a rank.
#pragma once

#include "kernels/cuda/ops/device_context.h"
#include "kernels/cuda/rows/rows.h"
#include "kernels/ops.h"
#include "kernels/tuning/few_rows.h"

namespace moebius::kernels::cuda {

inline DeviceRows RowsOf(const Mat& m) { return {m.data, m.dtype, m.stride}; }
inline const float* FloatsOf(const Mat& m) { return static_cast<const float*>(m.data); }
inline tuning::FewRowsShape FewRowsShapeOf(const PackedWeight& w) {
  return {.n = w.n, .k = w.k, .is_gated = w.gated, .is_fp8 = w.format == WeightFormat::kFp8Block};
}

void Embed(ExecContext& ctx, const EmbedArgs& args);
RmsNormLaunch LaunchOf(const RmsNormArgs& args);
void RmsNorm(ExecContext& ctx, const RmsNormArgs& args);
void Add(ExecContext& ctx, const AddArgs& args);
void CopyRows(ExecContext& ctx, const CopyRowsArgs& args);
void Rope(ExecContext& ctx, const RopeArgs& args);
void KvWrite(ExecContext& ctx, const KvWriteArgs& args);
void PrepareHeads(ExecContext& ctx, const PrepareHeadsArgs& args);
void PrepareLatents(ExecContext& ctx, const PrepareLatentsArgs& args);

void Gemm(ExecContext& ctx, const GemmArgs& args);
void HeadGemm(ExecContext& ctx, const HeadGemmArgs& args);
void SwiGlu(ExecContext& ctx, const SwiGluArgs& args);
void Mlp(ExecContext& ctx, const MlpArgs& args);

void DrawLogits(ExecContext& ctx, const DrawLogitsArgs& args);
void RouteTopK(ExecContext& ctx, const RouteTopKArgs& args);
void RouteToSlots(ExecContext& ctx, const RouteToSlotsArgs& args);
void RouteToPlaces(ExecContext& ctx, const RouteToPlacesArgs& args);
void ChooseSlots(ExecContext& ctx, const ChooseSlotsArgs& args);
void GroupBySlot(ExecContext& ctx, const GroupBySlotArgs& args);
void GroupedSwiGlu(ExecContext& ctx, const GroupedSwiGluArgs& args);
void GroupedGemm(ExecContext& ctx, const GroupedGemmArgs& args);
void GroupedMlp(ExecContext& ctx, const GroupedMlpArgs& args);
void WeightedReduce(ExecContext& ctx, const WeightedReduceArgs& args);
void ReduceAndNorm(ExecContext& ctx, const ReduceAndNormArgs& args);

void Attention(ExecContext& ctx, const AttentionArgs& args);
void MlaAttention(ExecContext& ctx, const MlaAttentionArgs& args);
void MlaPrefill(ExecContext& ctx, const MlaPrefillArgs& args);
void Sample(ExecContext& ctx, const SampleArgs& args);

size_t WorkspaceBytes(const OpLimits& limits);

// out = rows w^T by groups on the tensor cores, if they take these shapes and dtypes; false:
// nothing was done. `weights`: one slot after the other without gaps. rows and out: [places, ..]
// without gaps, bfloat16; offsets [slots + 1] on the device, empty: one slot that has all rows. fp8
// weights: the rows are quantised first, unless they are fp8 already.
struct GroupedProduct {
  Mat rows;
  Mat row_scales = {};  // of fp8 rows, as GroupedSwiGluArgs::a_scales
  std::span<const int32_t> offsets;
  std::span<const PackedWeight> weights;
  int64_t n = 0;  // of a slot: a gated weight's twice
  Mat out;
  int64_t likely_places = 0;  // GroupedGemmArgs
};
bool RunGroupedProduct(ExecContext& ctx, const GroupedProduct& product);

// out[:, h] = rows w[h]^T for each head of one input, without gaps in out; transposed: rows w[h].
void ExpandRows(ExecContext& ctx, const Mat& rows, std::span<const PackedWeight> weights,
                bool transposed, const Mat& out);

// Whether the product would quantise its rows; then their activation and that can be one launch:
// `both` has gate and up side by side, and product.rows stay unwritten.
bool TakesFp8Rows(const GroupedProduct& product);
void RunGatedProduct(ExecContext& ctx, const Mat& both, const GroupedProduct& product);

// Whether experts with such weights take the rows that they read as fp8 (products of very few rows,
// tuning/few_rows.h, make that of them as they go). Then these may come in fp8 with scales, as
// LaunchQuantizeRows and the exchange make them, and give the bits of rows quantised here.
bool QuantizesExpertRows(const ExecContext& ctx, WeightFormat format);

// The dtype that a format's elements have.
DType ElementOf(WeightFormat format);

}  // namespace moebius::kernels::cuda
