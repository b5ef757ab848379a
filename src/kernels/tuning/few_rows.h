// Which products of few rows stream their weights through registers (kernels/cuda/gemm/few_rows.h)
// rather than take the way of many rows, and in what pieces: plain functions of the problem's
// sizes, by what was measured on an H200 (bench/results/kernels-h200.md).
#pragma once

#include <cstdint>

namespace moebius::tuning {

constexpr int64_t kMaxFewRows = 8;  // what the tensor cores take at a time
// Each place reads its slot's weights; of more places several share a slot.
constexpr int64_t kMaxFewPlaces = 16;
constexpr int kMostWarpsOfTile = 16;

// Of weights [n, k], or [2 n, k] (gated).
struct FewRowsShape {
  int64_t n = 0;
  int64_t k = 0;
  bool is_gated = false;
  bool is_fp8 = false;

  int64_t elements() const { return n * k * (is_gated ? 2 : 1); }
};

// Whether so many rows are faster this way than by the library or the grouped product.
bool FewRowsPay(int64_t rows, const FewRowsShape& shape);
// The same for so many places of num_slots slots, each of an expert's weights.
bool FewPlacesPay(int64_t places, int64_t num_slots, const FewRowsShape& shape);

// How many warps share 16 rows of weights, of `tiles` such tiles in each of so many products side
// by side. row_bytes: of a row of weights.
int WarpsOfTile(int64_t tiles, int64_t products, int64_t row_bytes, int num_sms);

}  // namespace moebius::tuning
