#include "kernels/tuning/few_rows.h"

namespace moebius::tuning {
namespace {

// Widening e4m3 takes half of the issue slots: larger weights stream faster by the copy engine.
constexpr int64_t kMostFp8 = int64_t{40} << 20;        // elements
constexpr int64_t kMostFp8OfPlace = int64_t{4} << 20;  // where the other way's launches cost less

constexpr int64_t kManyColumns = int64_t{1} << 16;  // a vocabulary's
constexpr int64_t kShortRow = 128;                  // elements

}  // namespace

bool FewRowsPay(int64_t rows, const FewRowsShape& shape) {
  if (rows < 1 || rows > kMaxFewRows) return false;
  if (shape.is_fp8) return shape.elements() <= kMostFp8;
  return rows <= 2 || (shape.k > kShortRow && shape.n < kManyColumns);
}

bool FewPlacesPay(int64_t places, const FewRowsShape& shape) {
  return places >= 1 && places <= kMaxFewPlaces &&
         (!shape.is_fp8 || shape.elements() <= kMostFp8OfPlace);
}

// As many as fill the GPU, each with a few pieces at least to keep it busy. Long rows have four at
// least, which read half a kilobyte of each at a time (24576 x 1536: 19.4 us instead of 23.1); but
// for very many of them that are not so long.
int WarpsOfTile(int64_t tiles, int64_t products, int64_t row_bytes, int num_sms) {
  constexpr int64_t kBytesOfWarp = 4 * 128;  // that a warp reads of a row, at least
  const int64_t warps_of_device = int64_t{num_sms} * 16;
  const bool has_four = products == 1 && row_bytes >= 4 * kBytesOfWarp &&
                        (row_bytes >= 16 * kBytesOfWarp || tiles < 2 * warps_of_device);
  int warps = has_four ? 4 : 1;
  while (warps < kMostWarpsOfTile && tiles * products * warps * 2 <= warps_of_device &&
         row_bytes >= kBytesOfWarp * warps * 2) {
    warps *= 2;
  }
  return warps;
}

}  // namespace moebius::tuning
