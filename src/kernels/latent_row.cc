#include "kernels/latent_row.h"

#include <array>
#include <cmath>

#include "tensor/view.h"

namespace moebius::kernels {

void StoreLatentRow(const LatentRow& layout, const void* x, DType dtype, std::byte* row) {
  for (int64_t block = 0; block < layout.num_blocks(); ++block) {
    const int64_t begin = block * LatentRow::kBlock;
    const int64_t end = std::min(layout.latent_dim, begin + LatentRow::kBlock);
    float largest = 0;
    for (int64_t c = begin; c < end; ++c) {
      largest = std::fmax(largest, std::fabs(LoadFloat(x, dtype, c)));
    }
    const float scale = E4m3Scale(largest);
    const float inverse = 1.0f / scale;
    for (int64_t c = begin; c < end; ++c) {
      row[c] = std::byte{FloatToF8E4M3(LoadFloat(x, dtype, c) * inverse)};
    }
    StoreFloat(row + layout.scales_at(), DType::kF32, block, scale);
  }
  for (int64_t c = 0; c < layout.rope_dim; ++c) {
    StoreFloat(row + layout.rope_at(), DType::kBF16, c, LoadFloat(x, dtype, layout.latent_dim + c));
  }
}

void LoadLatentRow(const LatentRow& layout, const std::byte* row, float* x) {
  static const std::array<float, 256> kValues = [] {
    std::array<float, 256> values;
    for (int code = 0; code < 256; ++code) values[code] = F8E4M3ToFloat(static_cast<uint8_t>(code));
    return values;
  }();
  for (int64_t block = 0; block < layout.num_blocks(); ++block) {
    const int64_t begin = block * LatentRow::kBlock;
    const int64_t end = std::min(layout.latent_dim, begin + LatentRow::kBlock);
    const float scale = LoadFloat(row + layout.scales_at(), DType::kF32, block);
    for (int64_t c = begin; c < end; ++c) x[c] = kValues[std::to_integer<uint8_t>(row[c])] * scale;
  }
  for (int64_t c = 0; c < layout.rope_dim; ++c) {
    x[layout.latent_dim + c] = LoadFloat(row + layout.rope_at(), DType::kBF16, c);
  }
}

}  // namespace moebius::kernels
