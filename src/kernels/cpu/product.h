// Every matrix product of the CPU back ends is a list of jobs, one a weight, run as one list of
// tasks: blocks of rows x blocks of panels. Device thread only.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace moebius::kernels {

struct ProductJob {
  const PackedWeight* w = nullptr;
  Mat a;              // its rows, or with pairs the whole matrix they choose from
  Mat out;            // [rows, w.n]
  int64_t place = 0;  // with pairs: of row 0
  // Filled by RunProduct: the cut into tasks.
  int64_t first_task = 0;
  int64_t row_block = 0;
  int64_t panel_block = 0;
};

struct ProductOptions {
  bool accumulate = false;
  const float* bias = nullptr;
  // As in GroupedSwiGluArgs.
  std::span<const int32_t> pairs;
  int64_t rows_per_pair = 1;
  std::span<const float> row_scale;
};

// out = a w^T, or silu(a gate^T) * (a up^T) where the weights are gated. The jobs lie in the
// workspace; all weights share a shape and a format, and every job has rows.
void RunProduct(ExecContext& ctx, std::span<ProductJob> jobs, const ProductOptions& options);

}  // namespace moebius::kernels
