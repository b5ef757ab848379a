// Configurations of tiny models, for random weights.
#pragma once

namespace moebius::model {

// Tiny models of every family, in configurations that no golden folder has.
struct RandomModel {
  const char* name;
  const char* config;
};

inline constexpr RandomModel kRandomModels[] = {
    {"deepseek_v3",
     R"({"model_type":"deepseek_v3","vocab_size":70,"hidden_size":56,"num_hidden_layers":3,
        "num_attention_heads":3,"intermediate_size":72,"max_position_embeddings":64,
        "q_lora_rank":20,"kv_lora_rank":24,"qk_nope_head_dim":10,"qk_rope_head_dim":6,
        "v_head_dim":14,"n_routed_experts":12,"n_shared_experts":2,"num_experts_per_tok":3,
        "moe_intermediate_size":20,"n_group":3,"topk_group":2,"first_k_dense_replace":1,
        "num_nextn_predict_layers":1})"},
    {"deepseek_v3_fp8",
     R"({"model_type":"deepseek_v3","vocab_size":70,"hidden_size":160,"num_hidden_layers":2,
        "num_attention_heads":2,"intermediate_size":144,"max_position_embeddings":64,
        "q_lora_rank":48,"kv_lora_rank":32,"qk_nope_head_dim":16,"qk_rope_head_dim":16,
        "v_head_dim":16,"n_routed_experts":4,"num_experts_per_tok":2,"moe_intermediate_size":48,
        "n_group":1,"topk_group":1,"first_k_dense_replace":0,
        "quantization_config":{"quant_method":"fp8","weight_block_size":[128,128]}})"},
    {"deepseek_v2",
     R"({"model_type":"deepseek_v2","vocab_size":70,"hidden_size":40,"num_hidden_layers":2,
        "num_attention_heads":2,"intermediate_size":72,"max_position_embeddings":64,
        "q_lora_rank":null,"kv_lora_rank":16,"qk_nope_head_dim":8,"qk_rope_head_dim":4,
        "v_head_dim":8,"n_routed_experts":6,"num_experts_per_tok":2,"moe_intermediate_size":20,
        "first_k_dense_replace":1})"},
    {"qwen3_moe",
     R"({"model_type":"qwen3_moe","vocab_size":70,"hidden_size":48,"num_hidden_layers":3,
        "num_attention_heads":6,"num_key_value_heads":3,"head_dim":10,"intermediate_size":50,
        "max_position_embeddings":64,"num_experts":9,"num_experts_per_tok":4,
        "moe_intermediate_size":18,"norm_topk_prob":true,"decoder_sparse_step":2})"},
    {"mixtral",
     R"({"model_type":"mixtral","vocab_size":70,"hidden_size":40,"num_hidden_layers":2,
        "num_attention_heads":5,"num_key_value_heads":1,"intermediate_size":24,
        "max_position_embeddings":64,"num_local_experts":5,"num_experts_per_tok":2,
        "sliding_window":4,"dtype":"float16"})"},
    {"llama4",
     R"({"model_type":"llama4_text","vocab_size":70,"hidden_size":40,"num_hidden_layers":4,
        "num_attention_heads":4,"num_key_value_heads":4,"head_dim":12,"intermediate_size":20,
        "intermediate_size_mlp":36,"max_position_embeddings":64,"num_local_experts":5,
        "num_experts_per_tok":2,"attention_chunk_size":6,"floor_scale":3})"},
    {"llama",
     R"({"model_type":"llama","vocab_size":70,"hidden_size":40,"num_hidden_layers":2,
        "num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":60,
        "max_position_embeddings":64,"dtype":"float32"})"},
};

}  // namespace moebius::model
