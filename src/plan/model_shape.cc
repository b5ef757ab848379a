#include "plan/model_shape.h"

#include <algorithm>

namespace moebius::plan {

int64_t ModelShape::AttentionCopiedParams() const {
  if (!numbers.mla) return 0;
  return numbers.hidden_size * (q_lora_rank + kv_lora_rank + qk_rope_head_dim);
}

int64_t ModelShape::AttentionParams() const {
  const int64_t heads = numbers.num_heads;
  if (!numbers.mla) {
    return 2 * numbers.hidden_size * heads * head_dim + KvProjectionParams();
  }
  const int64_t query_in = q_lora_rank > 0 ? q_lora_rank : numbers.hidden_size;
  return AttentionCopiedParams() + query_in * heads * (qk_nope_head_dim + qk_rope_head_dim) +
         kv_lora_rank * heads * (qk_nope_head_dim + v_head_dim) +
         heads * v_head_dim * numbers.hidden_size;
}

int64_t ModelShape::KvProjectionParams() const {
  if (numbers.mla) return 0;
  return numbers.hidden_size * numbers.num_kv_heads * (head_dim + v_head_dim);
}

// Gate, up and down.
int64_t ModelShape::ExpertParams() const {
  return 3 * numbers.hidden_size * numbers.expert_intermediate_size;
}
int64_t ModelShape::SharedParams() const {
  return 3 * numbers.hidden_size * numbers.shared_intermediate_size;
}
int64_t ModelShape::DenseFfnParams() const {
  return 3 * numbers.hidden_size * numbers.dense_intermediate_size;
}
int64_t ModelShape::RouterParams() const { return numbers.hidden_size * numbers.num_experts; }
int64_t ModelShape::EmbeddingParams() const { return numbers.hidden_size * numbers.vocab_size; }

int64_t ModelShape::TotalParams() const {
  return numbers.num_layers * AttentionParams() +
         num_moe_layers * (numbers.num_experts * ExpertParams() + SharedParams() + RouterParams()) +
         num_dense_layers * DenseFfnParams() + EmbeddingParams() * (tie_embeddings ? 1 : 2);
}

int64_t ModelShape::ActiveParams() const {
  return numbers.num_layers * AttentionParams() +
         num_moe_layers * (numbers.top_k * ExpertParams() + SharedParams() + RouterParams()) +
         num_dense_layers * DenseFfnParams() + EmbeddingParams();
}

double ModelShape::KvBytesPerTokenLayer(int tp, double kv_element_bytes) const {
  if (numbers.mla) {
    return static_cast<double>(kv_lora_rank + qk_rope_head_dim) * kv_element_bytes;
  }
  const int64_t heads = std::max<int64_t>(1, (numbers.num_kv_heads + tp - 1) / tp);
  return static_cast<double>(heads * (head_dim + v_head_dim)) * kv_element_bytes;
}

}  // namespace moebius::plan
