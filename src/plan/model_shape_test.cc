#include "plan/model_shape.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

namespace moebius::plan {
namespace {

ModelShape Must(const std::string& name, const std::string& overrides = "") {
  auto shape = LoadModelShape(name, overrides);
  EXPECT_TRUE(shape) << shape.error().message();
  return shape ? *shape : ModelShape();
}

std::string Message(const std::string& name, const std::string& overrides = "") {
  const auto shape = LoadModelShape(name, overrides);
  return shape ? "accepted" : shape.error().message();
}

// A folder with the given config.json; removed at the end.
class TempFolder {
 public:
  explicit TempFolder(const std::string& config)
      : path_(std::filesystem::temp_directory_path() /
              ("moebius_shape_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ / "config.json") << config;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  std::string folder() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

struct Published {
  const char* name;
  double total_billions;
  double active_billions;
  double active_tolerance;
  double total_tolerance = 0.01;
};

// What their authors publish. Active counts are rounded to whole billions there, and differ in
// whether the embedding counts.
TEST(KnownModels, PublishedParameterCounts) {
  const std::vector<Published> table = {
      {"deepseek-ai/DeepSeek-R1", 671, 37, 0.03},
      {"deepseek-ai/DeepSeek-V3", 671, 37, 0.03},
      {"deepseek-ai/DeepSeek-V2-Lite", 15.7, 2.4, 0.05},
      // Its paper says 1.04 T; the matrices of its configuration are 1.026 T.
      {"moonshotai/Kimi-K2-Instruct", 1040, 32, 0.03, 0.015},
      {"Qwen/Qwen3-235B-A22B", 235, 22, 0.03},
      {"Qwen/Qwen3-30B-A3B", 30.5, 3.3, 0.08},
      {"Qwen/Qwen3-Coder-480B-A35B-Instruct", 480, 35, 0.03},
      {"Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", 480, 35, 0.03},
      {"meta-llama/Llama-4-Maverick-17B-128E-Instruct", 400, 17, 0.06},
      {"mistralai/Mixtral-8x7B-v0.1", 46.7, 12.9, 0.03},
      {"mistralai/Mixtral-8x22B-Instruct-v0.1", 141, 39, 0.03},
      {"openai/gpt-oss-120b", 117, 5.1, 0.03},
      {"MiniMaxAI/MiniMax-M2", 230, 10, 0.06},
  };
  for (const Published& row : table) {
    const ModelShape shape = Must(row.name);
    const double total = static_cast<double>(shape.TotalParams()) / 1e9;
    const double active = static_cast<double>(shape.ActiveParams()) / 1e9;
    EXPECT_NEAR(total, row.total_billions, row.total_tolerance * row.total_billions) << row.name;
    EXPECT_NEAR(active, row.active_billions, row.active_tolerance * row.active_billions)
        << row.name;
  }
}

TEST(KnownModels, AllOfThemLoad) {
  EXPECT_GE(KnownModels().size(), 12u);
  for (const std::string& name : KnownModels()) {
    const ModelShape shape = Must(name);
    EXPECT_EQ(shape.name, name);
    EXPECT_EQ(shape.numbers.name, name);
    EXPECT_GT(shape.numbers.num_experts, 0) << name;
    EXPECT_EQ(shape.num_moe_layers + shape.num_dense_layers, shape.numbers.num_layers) << name;
  }
}

TEST(KnownModels, NamesShortAndInAnyCase) {
  for (const auto& [asked, name] : std::vector<std::pair<std::string, std::string>>{
           {"deepseek-r1", "deepseek-ai/DeepSeek-R1"},
           {"DEEPSEEK-AI/deepseek-r1", "deepseek-ai/DeepSeek-R1"},
           {"Kimi-K2", "moonshotai/Kimi-K2-Instruct"},
           {"Qwen3-Coder-480B", "Qwen/Qwen3-Coder-480B-A35B-Instruct"},
           {"qwen3-coder-480b-fp8", "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8"},
           {"Llama-4-Maverick", "meta-llama/Llama-4-Maverick-17B-128E-Instruct"},
           {"Mixtral-8x7B", "mistralai/Mixtral-8x7B-v0.1"},
           {"mixtral-8x22b", "mistralai/Mixtral-8x22B-v0.1"},
           {"GPT-OSS-120B", "openai/gpt-oss-120b"}}) {
    EXPECT_EQ(Must(asked).name, name) << asked;
  }
}

TEST(KnownModels, UnknownNamesGetTheNearest) {
  EXPECT_NE(Message("deepseek-ai/DeepSeek-R2").find("did you mean deepseek-ai/DeepSeek-R1?"),
            std::string::npos)
      << Message("deepseek-ai/DeepSeek-R2");
  EXPECT_NE(Message("mixtral-8x8b").find("did you mean mistralai/Mixtral-8x7B-v0.1?"),
            std::string::npos)
      << Message("mixtral-8x8b");
  // One word is no name: several models begin with it.
  EXPECT_NE(Message("qwen3").find("model 'qwen3': expected a folder"), std::string::npos);
}

TEST(ModelShape, DeepseekV3PartsInParameters) {
  const ModelShape shape = Must("DeepSeek-V3");
  const auto billions = [](int64_t params) { return static_cast<double>(params) / 1e9; };
  EXPECT_EQ(shape.num_moe_layers, 58);
  EXPECT_EQ(shape.num_dense_layers, 3);
  EXPECT_NEAR(billions(shape.ExpertParams()), 0.04404, 0.00001);
  EXPECT_NEAR(billions(58 * 256 * shape.ExpertParams()), 653.9, 0.1);
  EXPECT_NEAR(billions(58 * shape.SharedParams()), 2.55, 0.01);
  EXPECT_NEAR(billions(61 * shape.AttentionParams()), 11.41, 0.01);
  EXPECT_NEAR(billions(3 * shape.DenseFfnParams()), 1.19, 0.01);
  EXPECT_NEAR(billions(2 * shape.EmbeddingParams()), 1.85, 0.01);
  EXPECT_NEAR(billions(58 * shape.RouterParams()), 0.11, 0.005);
  EXPECT_NEAR(billions(shape.TotalParams()), 671.0, 0.1);
  EXPECT_NEAR(shape.weight_bytes, 1.0, 0.001);
  EXPECT_EQ(shape.other_bytes, 2);
  EXPECT_EQ(shape.numbers.fp8_block, 128);
}

TEST(ModelShape, KvOfGroupedHeadsGoesByTp) {
  const ModelShape shape = Must("Qwen3-235B-A22B");
  EXPECT_EQ(shape.KvBytesPerTokenLayer(1, 2), 2 * 128 * 4 * 2);
  EXPECT_EQ(shape.KvBytesPerTokenLayer(4, 2), 2 * 128 * 2);
  EXPECT_EQ(shape.KvBytesPerTokenLayer(8, 2), 2 * 128 * 2);  // copied from 4 heads on
  EXPECT_EQ(shape.KvBytesPerTokenLayer(8, 1), 2 * 128);
}

TEST(ModelShape, Windows) {
  const ModelShape oss = Must("gpt-oss-120b");
  EXPECT_EQ(oss.num_windowed_layers, 18);
  EXPECT_EQ(oss.window, 128);
  EXPECT_NEAR(oss.expert_weight_bytes, 0.53125, 1e-9);
  EXPECT_EQ(oss.weight_bytes, 2);
  const ModelShape maverick = Must("Llama-4-Maverick");
  EXPECT_EQ(maverick.num_windowed_layers, 36);
  EXPECT_EQ(maverick.window, 8192);
  EXPECT_EQ(maverick.num_moe_layers, 24);
  EXPECT_TRUE(maverick.moe_layers[1]);
  EXPECT_FALSE(maverick.moe_layers[0]);
}

TEST(ModelShape, QuantizedExpertsAlone) {
  const ModelShape maverick = Must("Llama-4-Maverick-17B-128E-Instruct-FP8");
  EXPECT_EQ(maverick.TotalParams(), Must("Llama-4-Maverick").TotalParams());
  EXPECT_EQ(maverick.num_windowed_layers, Must("Llama-4-Maverick").num_windowed_layers);
  EXPECT_EQ(maverick.expert_weight_bytes, 1);
  EXPECT_EQ(maverick.weight_bytes, 2);
}

TEST(ModelShape, OverridesApplyToKnownModels) {
  EXPECT_EQ(Must("DeepSeek-V3", R"({"num_hidden_layers":4})").num_moe_layers, 1);
  EXPECT_NE(Message("DeepSeek-V3", "[1]").find("--hf-overrides: expected a JSON object"),
            std::string::npos);
}

TEST(ModelShape, FoldersAndFiles) {
  const TempFolder temp(R"({"model_type":"someone_new","architectures":["NewForCausalLM"],
    "vocab_size":1000,"hidden_size":64,"num_hidden_layers":4,"num_attention_heads":8,
    "num_key_value_heads":2,"head_dim":16,"intermediate_size":96,"moe_intermediate_size":32,
    "num_experts":10,"num_experts_per_tok":2,"first_k_dense_replace":1,"n_shared_experts":1,
    "quantization_config":{"quant_method":"modelopt","quant_algo":"NVFP4"}})");
  const ModelShape shape = Must(temp.folder());
  EXPECT_EQ(shape.numbers.num_experts, 10);
  EXPECT_EQ(shape.num_moe_layers, 3);
  EXPECT_EQ(shape.numbers.dense_intermediate_size, 96);
  EXPECT_EQ(shape.numbers.shared_intermediate_size, 32);
  EXPECT_EQ(shape.expert_weight_bytes, 0.5625);
  EXPECT_EQ(Must(temp.folder() + "/config.json").TotalParams(), shape.TotalParams());
  EXPECT_EQ(shape.TotalParams(), 4 * (2 * 64 * 8 * 16 + 2 * 64 * 2 * 16) +
                                     3 * (10 * 3 * 64 * 32 + 3 * 64 * 32 + 64 * 10) + 3 * 64 * 96 +
                                     2 * 64 * 1000);
  EXPECT_NE(Message(temp.folder(), R"({"hidden_size":null})").find("'hidden_size' is missing"),
            std::string::npos);
  EXPECT_NE(Message(temp.folder(), R"({"num_experts_per_tok":11})")
                .find("'num_experts_per_tok' is 11, expected"),
            std::string::npos)
      << Message(temp.folder(), R"({"num_experts_per_tok":11})");
}

TEST(ModelShape, DenseModels) {
  const TempFolder temp(R"({"model_type":"llama","vocab_size":1000,"hidden_size":64,
    "num_hidden_layers":4,"num_attention_heads":8,"num_key_value_heads":2,"intermediate_size":96,
    "max_position_embeddings":128,"tie_word_embeddings":true})");
  const ModelShape shape = Must(temp.folder());
  EXPECT_EQ(shape.numbers.num_experts, 0);
  EXPECT_EQ(shape.num_moe_layers, 0);
  EXPECT_EQ(shape.num_dense_layers, 4);
  EXPECT_EQ(shape.head_dim, 8);
  EXPECT_EQ(shape.TotalParams(), shape.ActiveParams());
}

}  // namespace
}  // namespace moebius::plan
