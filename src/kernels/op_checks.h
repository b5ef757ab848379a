// The checks that operations share: shapes, dtypes and lengths of their arguments, broken only by a
// mistake of the caller. For the .cc files that define kernels/ops.h.
#pragma once

#include <cstdint>
#include <span>

#include "base/check.h"
#include "kernels/backend.h"
#include "kernels/latent_row.h"

namespace moebius::kernels {

inline void CheckMat(const Mat& m, int64_t rows, int64_t cols) {
  MOEBIUS_CHECK_EQ(m.rows, rows);
  MOEBIUS_CHECK_EQ(m.cols, cols);
  MOEBIUS_CHECK(rows == 0 || cols == 0 || m.data != nullptr);
  MOEBIUS_CHECK(rows <= 1 || m.stride >= cols);
}

inline bool IsAct(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }

inline void CheckAct(const Mat& m, int64_t rows, int64_t cols) {
  CheckMat(m, rows, cols);
  MOEBIUS_CHECK(IsAct(m.dtype));
}

inline void CheckF32(const Mat& m, int64_t rows, int64_t cols) {
  CheckMat(m, rows, cols);
  MOEBIUS_CHECK(m.dtype == DType::kF32);
}

// A cache of latents and rotated keys, fp8 or as activations are.
inline void CheckLatentCache(const Mat& cache, int64_t latent_dim, int64_t rope_dim) {
  if (cache.dtype != DType::kF8E4M3) {
    CheckAct(cache, cache.rows, latent_dim + rope_dim);
    return;
  }
  CheckMat(cache, cache.rows, LatentRow{latent_dim, rope_dim}.bytes());
  MOEBIUS_CHECK_EQ(cache.stride % 4, 0);
}

inline void CheckSameDType(const Mat& a, const Mat& b) { MOEBIUS_CHECK(a.dtype == b.dtype); }

template <typename T>
void CheckLength(std::span<T> span, int64_t length) {
  MOEBIUS_CHECK_EQ(static_cast<int64_t>(span.size()), length);
}

inline void CheckWeight(const PackedWeight& w, int64_t k, bool gated) {
  MOEBIUS_CHECK(w.data != nullptr);
  MOEBIUS_CHECK_EQ(w.k, k);
  MOEBIUS_CHECK_EQ(w.gated, gated);
  MOEBIUS_CHECK_EQ(w.format == WeightFormat::kFp8Block, w.scales != nullptr);
}

// The rows that experts read: act, of the dtype of their results, or fp8 with scales.
inline void CheckExpertRows(const ExecContext& ctx, const GroupedSwiGluArgs& args) {
  if (args.a_scales.data == nullptr) {
    CheckAct(args.a, args.a.rows, args.a.cols);
    CheckSameDType(args.a, args.out);
    return;
  }
  MOEBIUS_CHECK(!ctx.backend->on_host);
  MOEBIUS_CHECK(args.a.dtype == DType::kF8E4M3 && args.out.dtype == DType::kBF16);
  CheckMat(args.a, args.a.rows, args.a.cols);
  MOEBIUS_CHECK_EQ(args.a.cols % kScaleBlock, 0);
  CheckF32(args.a_scales, args.a.cols / kScaleBlock, args.a.rows);
  MOEBIUS_CHECK_EQ(args.a_scales.stride % 4, 0);
  MOEBIUS_CHECK(args.pairs.empty() && args.row_scale.empty());
  for (const PackedWeight& w : args.weights) MOEBIUS_CHECK(w.format == WeightFormat::kFp8Block);
}

inline void CheckChoice(const ExecContext& ctx, const SlotChoice& choice, int64_t num_experts,
                        int64_t rows) {
  if (!choice.counts.empty()) CheckLength(choice.counts, num_experts);
  if (!choice.prompt_counts.empty()) CheckLength(choice.prompt_counts, num_experts);
  MOEBIUS_CHECK_LE(choice.num_decodes, rows);
  if (choice.replicas.empty()) {
    CheckLength(choice.first_slot, num_experts);
    return;
  }
  CheckLength(choice.replicas.begin, num_experts + 1);
  CheckLength(choice.positions, rows);
  if (!ctx.backend->on_host) return;
  MOEBIUS_CHECK_GE(std::ssize(choice.replicas.slots), choice.replicas.begin.back());
}

// What can be checked element by element: nothing of a device's memory.
template <typename T>
std::span<const T> Readable(const ExecContext& ctx, std::span<const T> values) {
  return ctx.backend->on_host ? values : std::span<const T>();
}

inline void CheckNorm(const RmsNormArgs& args) {
  const int64_t rows = args.out.rows;
  const int64_t cols = args.out.cols;
  CheckAct(args.out, rows, cols);
  if (args.residual.data != nullptr) CheckF32(args.residual, rows, cols);
  if (args.x.data != nullptr || args.residual.data == nullptr) CheckAct(args.x, rows, cols);
  const int64_t group = args.group == 0 ? cols : args.group;
  MOEBIUS_CHECK(cols == 0 || cols % group == 0);
  if (args.weight.data != nullptr) CheckF32(args.weight, 1, group);
}

inline void CheckReduce(const ExecContext& ctx, const WeightedReduceArgs& args) {
  const int64_t rows = args.out.rows;
  const int64_t cols = args.out.cols;
  CheckAct(args.out, rows, cols);
  CheckAct(args.rows, args.rows.rows, cols);
  CheckLength(args.places, rows * args.k);
  if (!args.weights.empty()) CheckLength(args.weights, rows * args.k);
  if (args.shared.data != nullptr) CheckAct(args.shared, rows, cols);
  for (const int32_t place : Readable(ctx, args.places)) MOEBIUS_CHECK_LT(place, args.rows.rows);
}

}  // namespace moebius::kernels
