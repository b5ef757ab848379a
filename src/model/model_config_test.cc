#include "model/model_config.h"

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace moebius::model {
namespace {

constexpr const char* kQwen = R"({"model_type":"qwen3_moe","architectures":["Qwen3MoeForCausalLM"],
  "vocab_size":100,"hidden_size":32,"num_hidden_layers":4,"num_attention_heads":4,
  "num_key_value_heads":2,"head_dim":16,"intermediate_size":48,"max_position_embeddings":64,
  "num_experts":8,"num_experts_per_tok":2,"moe_intermediate_size":24,"eos_token_id":2})";
constexpr const char* kDeepseek = R"({"model_type":"deepseek_v3","vocab_size":100,"hidden_size":32,
  "num_hidden_layers":4,"num_attention_heads":4,"intermediate_size":48,
  "max_position_embeddings":163840,"q_lora_rank":24,"kv_lora_rank":16,"qk_nope_head_dim":8,
  "qk_rope_head_dim":4,"v_head_dim":8,"n_routed_experts":16,"n_shared_experts":1,
  "num_experts_per_tok":2,"moe_intermediate_size":24,"n_group":4,"topk_group":2,
  "first_k_dense_replace":1,"num_nextn_predict_layers":1})";
constexpr const char* kLlama4 = R"({"model_type":"llama4","text_config":{"vocab_size":100,
  "hidden_size":32,"num_hidden_layers":8,"num_attention_heads":4,"num_key_value_heads":2,
  "head_dim":8,"intermediate_size":24,"intermediate_size_mlp":48,"max_position_embeddings":64,
  "num_local_experts":4,"interleave_moe_layer_step":2,"attention_chunk_size":16}})";

Result<ModelConfig> Parse(const std::string& config, const std::string& overrides = "",
                          const std::string& generation = "") {
  return ParseModelConfig(config, generation, overrides, "m");
}

ModelConfig Must(const std::string& config, const std::string& overrides = "",
                 const std::string& generation = "") {
  auto parsed = Parse(config, overrides, generation);
  EXPECT_TRUE(parsed) << parsed.error().message();
  return parsed ? *parsed : ModelConfig();
}

// The error of a configuration that `overrides` spoils.
std::string Message(const std::string& config, const std::string& overrides,
                    ErrorCode code = ErrorCode::kUnsupported) {
  const auto parsed = Parse(config, overrides);
  if (parsed) return "accepted";
  EXPECT_EQ(parsed.error().code(), code) << parsed.error().message();
  return parsed.error().message();
}

TEST(ModelConfig, NewAndOldSpellingsAgree) {
  const ModelConfig a = Must(kQwen, R"({"rope_theta":5000,"torch_dtype":"float32","rope_scaling":
    {"type":"yarn","factor":4,"original_max_position_embeddings":16,"attention_factor":1.5}})");
  const ModelConfig b = Must(kQwen, R"({"num_experts":null,"num_local_experts":8,"dtype":"float32",
    "rope_parameters":{"rope_type":"yarn","rope_theta":5000.0,"factor":4.0,
    "original_max_position_embeddings":16,"attention_factor":1.5}})");
  for (const ModelConfig& config : {a, b}) {
    EXPECT_EQ(config.rope.type, RopeType::kYarn);
    EXPECT_EQ(config.rope.theta, 5000);
    EXPECT_EQ(config.rope.factor, 4);
    EXPECT_EQ(config.rope.original_max_position, 16);
    EXPECT_EQ(config.rope.attention_factor, 1.5);
    EXPECT_EQ(config.moe.num_experts, 8);
    EXPECT_EQ(config.dtype, DType::kF32);
    EXPECT_EQ(config.family, Family::kQwen);
    EXPECT_EQ(config.attention.head_dim, 16);
    EXPECT_FALSE(config.moe.normalize);
    EXPECT_EQ(config.num_moe_layers(), 4);
  }
}

TEST(ModelConfig, QwenLayers) {
  const ModelConfig config =
      Must(kQwen, R"({"mlp_only_layers":[3],"decoder_sparse_step":2,"sliding_window":9})");
  const std::vector<bool> moe = {false, true, false, false};
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(config.layers[i].moe, moe[i]) << i;
    EXPECT_EQ(config.layers[i].window, 0);  // use_sliding_window is off
  }
  EXPECT_EQ(Must(kQwen, R"({"use_sliding_window":true,"sliding_window":9})").layers[0].window, 9);
}

TEST(ModelConfig, Deepseek) {
  const ModelConfig config = Must(kDeepseek);
  EXPECT_EQ(config.moe.router, RouterKind::kSigmoidBias);
  EXPECT_TRUE(config.moe.normalize);
  EXPECT_EQ(config.moe.scale, 2.5);
  EXPECT_EQ(config.moe.num_groups, 4);
  EXPECT_EQ(config.num_mtp_layers, 1);
  EXPECT_FALSE(config.layers[0].moe);
  EXPECT_TRUE(config.layers[1].moe);
  EXPECT_TRUE(config.attention.rope_interleaved);
  EXPECT_EQ(Must(kDeepseek, R"({"model_type":"kimi_k2"})").family, Family::kDeepseek);
  const ModelConfig lite = Must(kDeepseek, R"({"model_type":"deepseek_v2","q_lora_rank":null,
    "topk_method":"greedy","routed_scaling_factor":1.0})");
  EXPECT_EQ(lite.attention.q_lora_rank, 0);
  EXPECT_EQ(lite.moe.router, RouterKind::kSoftmax);
  EXPECT_EQ(lite.moe.num_top_groups, lite.moe.num_groups);
  EXPECT_FALSE(Must(kDeepseek, R"({"moe_layer_freq":2})").layers[1].moe);
}

TEST(ModelConfig, Llama4TakesTheNestedFields) {
  const ModelConfig config = Must(kLlama4, R"({"text_config":{"rope_scaling":{"rope_type":"llama3",
    "factor":8,"low_freq_factor":1,"high_freq_factor":1,"original_max_position_embeddings":32}}})");
  EXPECT_EQ(config.tensor_prefix, "language_model.");
  EXPECT_EQ(config.rope.type, RopeType::kLlama3);
  EXPECT_EQ(config.rope.theta, 500000);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_EQ(config.layers[i].moe, i % 2 == 1) << i;
    EXPECT_EQ(config.layers[i].rope, i % 4 != 3) << i;
    EXPECT_EQ(config.layers[i].chunk, i % 4 != 3 ? 16 : 0) << i;
  }
  EXPECT_EQ(Message(R"({"model_type":"llama4"})", ""),
            "m/config.json: field 'text_config' is missing, expected an object (the language "
            "model's fields)");
}

TEST(ModelConfig, GenerationDefaultsAndEndTokens) {
  const ModelConfig config = Must(kQwen, "", R"({"eos_token_id":[7,9],"temperature":0.6,"top_k":20,
    "top_p":0.95,"do_sample":true})");
  EXPECT_EQ(config.eos_token_ids, (std::vector<TokenId>{7, 9, 2}));
  EXPECT_EQ(config.generation.temperature, 0.6);
  EXPECT_EQ(config.generation.top_k, 20);
  EXPECT_FALSE(config.generation.min_p);
  EXPECT_FALSE(Must(kQwen, "", R"({"top_k":20})").generation.temperature);
  EXPECT_EQ(Must(kQwen, "", R"({"do_sample":false})").generation.temperature, 0);
  const auto bad = Parse(kQwen, "", R"({"eos_token_id":100})");
  ASSERT_FALSE(bad);
  EXPECT_EQ(bad.error().message(),
            "m/generation_config.json: field 'eos_token_id' is 100, expected a whole number from "
            "0 to 99");
}

TEST(ModelConfig, OverridesMergeObjects) {
  const std::string base = std::string(kQwen).substr(0, std::string(kQwen).size() - 1) +
                           R"(,"rope_parameters":{"rope_type":"linear","factor":2}})";
  const ModelConfig config =
      Must(base, R"({"rope_parameters":{"factor":3},"num_hidden_layers":2})");
  EXPECT_EQ(config.rope.type, RopeType::kLinear);
  EXPECT_EQ(config.rope.factor, 3);
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(Message(kQwen, "[1]", ErrorCode::kInvalidArgument),
            "--hf-overrides: expected a JSON object");
  EXPECT_NE(Message(kQwen, "{", ErrorCode::kCorrupt).find("--hf-overrides: not valid JSON"),
            std::string::npos);
}

TEST(ModelConfig, NamesWhatItDoesNotServe) {
  EXPECT_EQ(Message(kQwen, R"({"model_type":"gpt_oss"})"),
            "m/config.json: field 'model_type' is \"gpt_oss\", expected one of deepseek_v2, "
            "deepseek_v3, kimi_k2, qwen3_moe, qwen3, mixtral, llama, llama4, llama4_text");
  EXPECT_NE(Message(kQwen, R"({"architectures":["BertModel"]})")
                .find("field 'architectures' is [\"BertModel\"], expected one of "),
            std::string::npos);
  EXPECT_EQ(Message(kQwen, R"({"hidden_act":"gelu"})"),
            "m/config.json: field 'hidden_act' is \"gelu\", expected \"silu\"");
  EXPECT_EQ(Message(kQwen, R"({"attention_bias":true})"),
            "m/config.json: field 'attention_bias' is true, expected false");
  EXPECT_EQ(Message(kQwen, R"({"rope_scaling":{"type":"longrope"}})"),
            "m/config.json: field 'rope_scaling.type' is \"longrope\", expected \"default\", "
            "\"linear\", \"yarn\" or \"llama3\"");
  EXPECT_EQ(
      Message(kQwen, R"({"rope_parameters":{"full_attention":{"rope_type":"default"}}})"),
      "m/config.json: field 'rope_parameters' is "
      "{\"full_attention\":{\"rope_type\":\"default\"}}, expected one rotation for all layers");
  EXPECT_EQ(Message(kQwen, R"({"quantization_config":{"quant_method":"awq"}})"),
            "m/config.json: field 'quantization_config.quant_method' is \"awq\", expected \"fp8\" "
            "(e4m3 with 128 x 128 block scales)");
  EXPECT_NE(Message(kQwen, R"({"quantization_config":{"quant_method":"fp8",
                               "weight_block_size":[64,64]}})")
                .find("'quantization_config.weight_block_size' is [64,64], expected [128,128]"),
            std::string::npos);
  EXPECT_EQ(Message(kQwen, R"({"dtype":"float64"})"),
            "m/config.json: field 'dtype' is \"float64\", expected bfloat16, float16 or float32");
  EXPECT_EQ(Message(kDeepseek, R"({"scoring_func":"softmax"})"),
            "m/config.json: field 'scoring_func' is \"softmax\", expected \"sigmoid\" for "
            "deepseek_v3");
  EXPECT_EQ(Message(kDeepseek, R"({"n_group":3,"topk_group":2})"),
            "m/config.json: field 'n_group' is 3, expected a divisor of the 16 routed experts");
  EXPECT_EQ(Message(kDeepseek, R"({"topk_group":1,"num_experts_per_tok":5})"),
            "m/config.json: field 'topk_group' is 1, expected groups enough for "
            "num_experts_per_tok = 5");
}

TEST(ModelConfig, NamesBadValues) {
  EXPECT_EQ(Message(kQwen, R"({"final_logit_softcapping":30})"),
            "m/config.json: field 'final_logit_softcapping' is 30, expected no such field");
  const auto invalid = [](const char* overrides) {
    return Message(kQwen, overrides, ErrorCode::kInvalidArgument);
  };
  EXPECT_EQ(invalid(R"({"hidden_size":null})"),
            "m/config.json: field 'hidden_size' is missing, expected a whole number from 1 to "
            "1048576");
  EXPECT_EQ(invalid(R"({"vocab_size":-3})"),
            "m/config.json: field 'vocab_size' is -3, expected a whole number from 1 to 16777216");
  EXPECT_EQ(invalid(R"({"vocab_size":"many"})"),
            "m/config.json: field 'vocab_size' is \"many\", expected a whole number from 1 to "
            "16777216");
  EXPECT_EQ(invalid(R"({"num_experts_per_tok":9})"),
            "m/config.json: field 'num_experts_per_tok' is 9, expected a whole number from 1 to 8");
  EXPECT_EQ(Parse("[]").error().message(), "m/config.json: expected a JSON object");
  EXPECT_EQ(Parse("{").error().code(), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace moebius::model
