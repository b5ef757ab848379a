// Which of the GPU's attention kernels takes a shape. Plain functions, any thread; no CUDA here:
// what is uploaded with a step depends on it.
#pragma once

#include <cstdint>

#include "tensor/dtype.h"

namespace moebius::kernels {

enum class AttentionForm {
  kGqa,  // tensor cores, keys and values in two caches
  kMla,  // tensor cores, one latent cache
  kAny,  // a warp a query and head, any widths
};

struct AttentionShape {
  bool mla = false;
  DType act = DType::kBF16;  // of queries
  int num_heads = 0;
  int num_kv_heads = 0;    // mla: 1
  int64_t head_dim = 0;    // mla: latent_dim + rope_dim
  int64_t v_head_dim = 0;  // mla: latent_dim
  int64_t block_size = 16;
  int64_t nope_dim = 0;   // mla: of an expanded head's key, without the rotated part,
  int64_t value_dim = 0;  // and of its value
};

AttentionForm ChooseAttentionForm(const AttentionShape& shape);

}  // namespace moebius::kernels
