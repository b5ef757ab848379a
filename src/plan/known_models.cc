#include "plan/known_models.h"

#include <array>

namespace moebius::plan {
namespace {

// DeepSeek's format: e4m3 with a scale a block.
constexpr const char* kFp8Blocks = R"({"quantization_config":{"quant_method":"fp8","fmt":"e4m3",
  "activation_scheme":"dynamic","weight_block_size":[128,128]}})";
// Experts of the -FP8 checkpoint of Llama 4 are scaled by row; the rest stays bf16.
constexpr const char* kFp8Experts = R"({"quantization_config":{
  "quant_method":"compressed-tensors","ignore":["re:.*self_attn","re:.*shared_expert"],
  "config_groups":{"group_0":{"weights":{"num_bits":8,"type":"float","strategy":"channel"}}}}})";
// Experts of GPT-OSS are mxfp4; the rest is bf16.
constexpr const char* kMxfp4 = R"({"quantization_config":{"quant_method":"mxfp4"}})";

constexpr const char* kDeepseekV3 = R"({"model_type":"deepseek_v3",
  "vocab_size":129280,"hidden_size":7168,"num_hidden_layers":61,"num_attention_heads":128,
  "intermediate_size":18432,"moe_intermediate_size":2048,"n_routed_experts":256,
  "n_shared_experts":1,"num_experts_per_tok":8,"first_k_dense_replace":3,"n_group":8,"topk_group":4,
  "q_lora_rank":1536,"kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,
  "v_head_dim":128,"num_nextn_predict_layers":1,"max_position_embeddings":163840})";

constexpr const char* kDeepseekV2Lite = R"({"model_type":"deepseek_v2",
  "vocab_size":102400,"hidden_size":2048,"num_hidden_layers":27,"num_attention_heads":16,
  "intermediate_size":10944,"moe_intermediate_size":1408,"n_routed_experts":64,
  "n_shared_experts":2,"num_experts_per_tok":6,"first_k_dense_replace":1,"q_lora_rank":null,
  "kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,
  "topk_method":"greedy","scoring_func":"softmax","max_position_embeddings":163840})";

constexpr const char* kKimiK2 = R"({"model_type":"kimi_k2",
  "vocab_size":163840,"hidden_size":7168,"num_hidden_layers":61,"num_attention_heads":64,
  "intermediate_size":18432,"moe_intermediate_size":2048,"n_routed_experts":384,
  "n_shared_experts":1,"num_experts_per_tok":8,"first_k_dense_replace":1,"n_group":1,"topk_group":1,
  "q_lora_rank":1536,"kv_lora_rank":512,"qk_nope_head_dim":128,"qk_rope_head_dim":64,
  "v_head_dim":128,"max_position_embeddings":131072})";

constexpr const char* kQwen3Large = R"({"model_type":"qwen3_moe",
  "vocab_size":151936,"hidden_size":4096,"num_hidden_layers":94,"num_attention_heads":64,
  "num_key_value_heads":4,"head_dim":128,"intermediate_size":12288,"moe_intermediate_size":1536,
  "num_experts":128,"num_experts_per_tok":8,"max_position_embeddings":40960})";

// Its later checkpoints: the same shape, more positions.
constexpr const char* kQwen3LargeLong = R"({"model_type":"qwen3_moe",
  "vocab_size":151936,"hidden_size":4096,"num_hidden_layers":94,"num_attention_heads":64,
  "num_key_value_heads":4,"head_dim":128,"intermediate_size":12288,"moe_intermediate_size":1536,
  "num_experts":128,"num_experts_per_tok":8,"max_position_embeddings":262144})";

constexpr const char* kQwen3Small = R"({"model_type":"qwen3_moe",
  "vocab_size":151936,"hidden_size":2048,"num_hidden_layers":48,"num_attention_heads":32,
  "num_key_value_heads":4,"head_dim":128,"intermediate_size":6144,"moe_intermediate_size":768,
  "num_experts":128,"num_experts_per_tok":8,"max_position_embeddings":40960})";

constexpr const char* kQwen3Coder = R"({"model_type":"qwen3_moe",
  "vocab_size":151936,"hidden_size":6144,"num_hidden_layers":62,"num_attention_heads":96,
  "num_key_value_heads":8,"head_dim":128,"intermediate_size":8192,"moe_intermediate_size":2560,
  "num_experts":160,"num_experts_per_tok":8,"max_position_embeddings":262144})";

constexpr const char* kLlama4Maverick = R"({"model_type":"llama4_text",
  "vocab_size":202048,"hidden_size":5120,"num_hidden_layers":48,"num_attention_heads":40,
  "num_key_value_heads":8,"head_dim":128,"intermediate_size":8192,"intermediate_size_mlp":16384,
  "num_local_experts":128,"num_experts_per_tok":1,"interleave_moe_layer_step":2,
  "attention_chunk_size":8192,"max_position_embeddings":1048576})";

constexpr const char* kMixtral8x7B = R"({"model_type":"mixtral",
  "vocab_size":32000,"hidden_size":4096,"num_hidden_layers":32,"num_attention_heads":32,
  "num_key_value_heads":8,"intermediate_size":14336,"num_local_experts":8,"num_experts_per_tok":2,
  "max_position_embeddings":32768})";

constexpr const char* kMixtral8x22B = R"({"model_type":"mixtral",
  "vocab_size":32768,"hidden_size":6144,"num_hidden_layers":56,"num_attention_heads":48,
  "num_key_value_heads":8,"intermediate_size":16384,"num_local_experts":8,"num_experts_per_tok":2,
  "max_position_embeddings":65536})";

// Every other layer sees a window of 128.
constexpr const char* kGptOss120B = R"({"model_type":"gpt_oss",
  "vocab_size":201088,"hidden_size":2880,"num_hidden_layers":36,"num_attention_heads":64,
  "num_key_value_heads":8,"head_dim":64,"intermediate_size":2880,"num_local_experts":128,
  "num_experts_per_tok":4,"sliding_window":128,"attention_bias":true,
  "max_position_embeddings":131072})";

constexpr const char* kMinimaxM2 = R"({"model_type":"minimax_m2",
  "vocab_size":200064,"hidden_size":3072,"num_hidden_layers":62,"num_attention_heads":48,
  "num_key_value_heads":8,"head_dim":128,"intermediate_size":1536,"num_local_experts":256,
  "num_experts_per_tok":8,"shared_intermediate_size":0,"max_position_embeddings":196608})";

constexpr std::array<KnownModel, 23> kModels = {{
    {"deepseek-ai/DeepSeek-R1", kDeepseekV3, kFp8Blocks},
    {"deepseek-ai/DeepSeek-R1-0528", kDeepseekV3, kFp8Blocks},
    {"deepseek-ai/DeepSeek-V3", kDeepseekV3, kFp8Blocks},
    {"deepseek-ai/DeepSeek-V3-0324", kDeepseekV3, kFp8Blocks},
    {"deepseek-ai/DeepSeek-V2-Lite", kDeepseekV2Lite, ""},
    {"moonshotai/Kimi-K2-Instruct", kKimiK2, kFp8Blocks},
    {"moonshotai/Kimi-K2-Base", kKimiK2, kFp8Blocks},
    {"Qwen/Qwen3-235B-A22B", kQwen3Large, ""},
    {"Qwen/Qwen3-235B-A22B-FP8", kQwen3Large, kFp8Blocks},
    {"Qwen/Qwen3-235B-A22B-Instruct-2507", kQwen3LargeLong, ""},
    {"Qwen/Qwen3-235B-A22B-Instruct-2507-FP8", kQwen3LargeLong, kFp8Blocks},
    {"Qwen/Qwen3-30B-A3B", kQwen3Small, ""},
    {"Qwen/Qwen3-30B-A3B-FP8", kQwen3Small, kFp8Blocks},
    {"Qwen/Qwen3-Coder-480B-A35B-Instruct", kQwen3Coder, ""},
    {"Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", kQwen3Coder, kFp8Blocks},
    {"meta-llama/Llama-4-Maverick-17B-128E-Instruct", kLlama4Maverick, ""},
    {"meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8", kLlama4Maverick, kFp8Experts},
    {"mistralai/Mixtral-8x7B-v0.1", kMixtral8x7B, ""},
    {"mistralai/Mixtral-8x7B-Instruct-v0.1", kMixtral8x7B, ""},
    {"mistralai/Mixtral-8x22B-v0.1", kMixtral8x22B, ""},
    {"mistralai/Mixtral-8x22B-Instruct-v0.1", kMixtral8x22B, ""},
    {"openai/gpt-oss-120b", kGptOss120B, kMxfp4},
    {"MiniMaxAI/MiniMax-M2", kMinimaxM2, kFp8Blocks},
}};

}  // namespace

std::span<const KnownModel> KnownModelTable() { return kModels; }

}  // namespace moebius::plan
