// A row of MLA's cache in fp8: latent_dim values as e4m3, a float32 scale for each 128 of them,
// then the rotated key as bfloat16, whatever the activations are. DeepSeek's 512 + 64 take 656
// bytes. In a Mat such a cache has dtype float8_e4m3fn and columns that are bytes. Plain functions,
// host and device, any thread.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "tensor/dtype.h"

namespace moebius::kernels {

struct LatentRow {
  static constexpr int64_t kBlock = 128;  // latents that share a scale

  int64_t latent_dim = 0;
  int64_t rope_dim = 0;

  constexpr int64_t num_blocks() const { return (latent_dim + kBlock - 1) / kBlock; }
  // Where in the row they begin; a row is a multiple of 16 bytes, so that all are aligned.
  constexpr int64_t scales_at() const { return (latent_dim + 3) / 4 * 4; }
  constexpr int64_t rope_at() const { return scales_at() + num_blocks() * 4; }
  constexpr int64_t bytes() const { return (rope_at() + rope_dim * 2 + 15) / 16 * 16; }
};

// The scale of a block whose largest magnitude is `largest`, as activations are quantised: the
// block is stored as x / scale. The smallest normal number bounds the inverse away from infinity.
constexpr float E4m3Scale(float largest) {
  return largest > 0.0f ? std::max(largest / 448.0f, 1.2e-38f) : 1.0f;
}

// x: latent_dim + rope_dim numbers, to be stored of any floating dtype.
void StoreLatentRow(const LatentRow& layout, const void* x, DType dtype, std::byte* row);
void LoadLatentRow(const LatentRow& layout, const std::byte* row, float* x);

}  // namespace moebius::kernels
