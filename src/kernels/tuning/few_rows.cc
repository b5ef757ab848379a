#include "kernels/tuning/few_rows.h"

namespace moebius::tuning {
namespace {

// Each block quantises all rows for its 16 columns. That is little for one row, and hidden behind
// the weights while a GPU's blocks are resident at once.
constexpr int64_t kMostFp8 = int64_t{240} << 20;  // rows times elements
// Where places share a slot, its weights are read once for each of them. The other way's launches
// cost more than that for small fp8 weights, and for large ones with so many slots for a place that
// the places are those of one row, which share none (DeepSeek-V3's 8 of 256).
constexpr int64_t kSmallFp8 = int64_t{4} << 20;  // elements
constexpr int64_t kSlotsOfPlace = 32;

constexpr int64_t kManyColumns = int64_t{1} << 16;  // a vocabulary's
constexpr int64_t kShortRow = 128;                  // elements

}  // namespace

bool FewRowsPay(int64_t rows, const FewRowsShape& shape) {
  if (rows < 1 || rows > kMaxFewRows) return false;
  if (shape.is_fp8) return rows == 1 || rows * shape.elements() <= kMostFp8;
  return rows <= 2 || (shape.k > kShortRow && shape.n < kManyColumns);
}

bool FewPlacesPay(int64_t places, int64_t num_slots, const FewRowsShape& shape) {
  return places >= 1 && places <= kMaxFewPlaces &&
         (!shape.is_fp8 || shape.elements() <= kSmallFp8 || num_slots >= kSlotsOfPlace * places);
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
