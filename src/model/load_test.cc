// Whole models: what LoadModel refuses, what inspect adds up, and properties of random models of
// every family.
#include "model/load.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "model/inspect.h"
#include "model/testing/checkpoint_writer.h"
#include "model/testing/model_driver.h"
#include "model/testing/random_models.h"

namespace moebius::model {
namespace {

const std::string kGolden = MOEBIUS_SOURCE_DIR "/tests/golden/";

#define EXPECT_HAS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

platform::ThreadPool& Pool() {
  static const auto pool = platform::ThreadPool::Create();
  return *pool;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string LoadMessage(const LoadOptions& options) {
  const auto model = LoadModel(options, Pool());
  if (model) return "accepted";
  const auto inspected = InspectModel(options);
  EXPECT_FALSE(inspected);
  EXPECT_EQ(inspected.error().message(), model.error().message());
  return model.error().message();
}

// A copy of a golden folder whose single weights file may be changed.
class Copy {
 public:
  explicit Copy(const std::string& name) : file_(ReadFile(kGolden + name + "/model.safetensors")) {
    folder_.Write("config.json", ReadFile(kGolden + name + "/config.json"));
    folder_.Write("model.safetensors", file_);
  }
  void Replace(const std::string& what, const std::string& with) {
    ASSERT_EQ(what.size(), with.size());
    const size_t at = file_.find(what);
    ASSERT_NE(at, std::string::npos);
    std::string changed = file_;
    changed.replace(at, what.size(), with);
    folder_.Write("model.safetensors", changed);
  }
  void Truncate(size_t bytes) {
    folder_.Write("model.safetensors", file_.substr(0, file_.size() - bytes));
  }
  LoadOptions options(const std::string& overrides = "") const {
    LoadOptions options;
    options.folder = folder_.path();
    options.hf_overrides = overrides;
    return options;
  }

 private:
  TempFolder folder_;
  std::string file_;
};

TEST(LoadModel, NamesWhatIsWrong) {
  Copy copy("kimi_k2_mtp");
  EXPECT_EQ(LoadMessage(copy.options()), "accepted");
  copy.Replace("model.layers.1.mlp.experts.5.up_proj", "model.layers.1.mlp.experts.5.xx_proj");
  EXPECT_HAS(LoadMessage(copy.options()),
             "tensor 'model.layers.1.mlp.experts.5.up_proj.weight' is missing, expected shape [32, "
             "64]");
  // One tensor of the MTP layer missing is not a checkpoint without MTP.
  copy.Replace("model.layers.3.hnorm", "model.layers.3.xnorm");
  EXPECT_HAS(LoadMessage(copy.options()), "tensor 'model.layers.3.hnorm.weight' is missing");
  copy.Truncate(3);
  EXPECT_HAS(LoadMessage(copy.options()), "truncated");
  const Copy whole("kimi_k2_mtp");
  EXPECT_HAS(LoadMessage(whole.options(R"({"kv_lora_rank":32})")),
             "tensor 'model.layers.0.self_attn.kv_a_proj_with_mqa.weight' has shape [32, 64], "
             "expected [40, 64]");
  EXPECT_HAS(LoadMessage(whole.options(R"({"num_hidden_layers":5})")),
             "tensor 'model.layers.4.input_layernorm.weight' is missing");
  EXPECT_HAS(LoadMessage(whole.options(R"({"model_type":"gpt_oss"})")), "'model_type' is");
  EXPECT_HAS(LoadMessage(whole.options(R"({"quantization_config":{"quant_method":"gptq"}})")),
             "'quantization_config.quant_method' is \"gptq\"");
  LoadOptions options;
  options.folder = "/nonexistent";
  EXPECT_HAS(LoadMessage(options), "/nonexistent: no such folder");
  options = whole.options();
  options.routing = moe::RoutingSpec{};
  EXPECT_HAS(LoadMessage(options), "--routing needs --load-format dummy");
  options = whole.options();
  options.kv_cache_dtype = KvCacheDType::kFp8;
  EXPECT_EQ(LoadMessage(options), "accepted");
  options.folder = MOEBIUS_SOURCE_DIR "/tests/golden/qwen3_dense";
  EXPECT_HAS(LoadMessage(options),
             "--kv-cache-dtype (kv_cache_config.dtype) is 'fp8', expected auto for a model of kind "
             "qwen3: only MLA's");
  EXPECT_HAS(ParseKvCacheDType("int4").error().message(),
             "--kv-cache-dtype is 'int4', expected one of auto, bfloat16, fp8");
  options.kv_cache_dtype = KvCacheDType::kBFloat16;
  options.dtype = DTypeChoice::kFloat32;
  EXPECT_HAS(LoadConfig(options).error().message(),
             "--kv-cache-dtype (kv_cache_config.dtype) is 'bfloat16', expected auto where "
             "activations are float32");
  options.dtype = DTypeChoice::kBFloat16;
  EXPECT_TRUE(LoadConfig(options));
  EXPECT_HAS(ParseDTypeChoice("fp4").error().message(),
             "--dtype is 'fp4', expected one of auto, float32, bfloat16");
}

TEST(LoadModel, TakesItsDtypeFromTheCheckpoint) {
  const auto dtype = [](const std::string& folder, DTypeChoice choice) {
    LoadOptions options;
    options.folder = kGolden + folder;
    options.dtype = choice;
    return (*LoadModel(options, Pool()))->activations();
  };
  EXPECT_EQ(dtype("llama3", DTypeChoice::kAuto), DType::kF32);
  EXPECT_EQ(dtype("mixtral_window", DTypeChoice::kAuto), DType::kBF16);
  EXPECT_EQ(dtype("mixtral_window", DTypeChoice::kFloat32), DType::kF32);
}

TEST(LoadModel, LongContextCostsNothingUntilItIsUsed) {
  const Copy copy("llama3");
  const auto model = LoadModel(copy.options(R"({"max_position_embeddings":200000000})"), Pool());
  ASSERT_TRUE(model) << model.error().message();
  EXPECT_EQ((*model)->config().max_position, 200000000);
  EXPECT_LT((*model)->weight_bytes(), size_t{1} << 24);
}

TEST(LoadModel, RefusesWhatDoesNotFit) {
  const Copy copy("llama3");
  LoadOptions dummy = copy.options(R"({"intermediate_size":4000000,"hidden_size":65536,
                                       "head_dim":128,"num_attention_heads":8})");
  dummy.load_format = LoadFormat::kDummy;
  const auto model = LoadModel(dummy, Pool());
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code(), ErrorCode::kOutOfMemory);
  EXPECT_HAS(model.error().message(), "expected at most the");
}

TEST(LoadModel, RefusesATensorOfALayerThatItWouldLeaveOut) {
  const Copy copy("kimi_k2_mtp");
  EXPECT_HAS(LoadMessage(copy.options(R"({"n_shared_experts":null})")),
             "mlp.shared_experts.down_proj.weight' is no part of a kimi_k2 layer as served here");
}

TEST(Inspect, AddsUpToTheFiles) {
  for (const char* name : {"deepseek_v3", "deepseek_v3_fp8", "kimi_k2_mtp", "llama4_nested",
                           "qwen3_moe_old", "llama3"}) {
    SCOPED_TRACE(name);
    LoadOptions options;
    options.folder = kGolden + name;
    const auto inspected = InspectModel(options);
    ASSERT_TRUE(inspected) << inspected.error().message();
    uint64_t on_disk = 0;
    for (const auto& entry : std::filesystem::directory_iterator(options.folder)) {
      const std::string file = entry.path().filename();
      if (file.starts_with("model") && file.ends_with(".safetensors")) on_disk += entry.file_size();
    }
    uint64_t sum = inspected->header_bytes + inspected->unused_bytes;
    int64_t params = 0;
    for (const PartSize& size : inspected->parts) {
      sum += size.num_bytes;
      params += size.num_params;
    }
    EXPECT_EQ(sum, on_disk);
    EXPECT_EQ(inspected->file_bytes, on_disk);
    EXPECT_EQ(inspected->num_params, params);
    EXPECT_EQ(inspected->num_unused_tensors, std::string(name) == "llama4_nested" ? 1 : 0);
    EXPECT_EQ(inspected->unused_bytes, std::string(name) == "llama4_nested" ? 96u : 0u);
  }
}

TEST(Inspect, CountsWhatATokenTakes) {
  LoadOptions options;
  options.folder = kGolden + "deepseek_v3";
  const auto inspected = InspectModel(options);
  ASSERT_TRUE(inspected);
  // Three layers of a latent of 32 and a key of 16, in bfloat16.
  EXPECT_EQ(inspected->kv_bytes_per_token, 3 * 48 * 2);
  const int64_t routed = int64_t{2} * 16 * 3 * 64 * 128;
  const int64_t embedding = 512 * 128;
  EXPECT_EQ(inspected->active_params,
            inspected->num_params - embedding + 128 - routed + routed / 16 * 4);
}

struct PropertyParam {
  RandomModel model;
  const kernels::Backend* backend;
  DTypeChoice dtype;
};
void PrintTo(const PropertyParam& param, std::ostream* out) { *out << param.model.name; }

class RandomModelTest : public testing::TestWithParam<PropertyParam> {
 protected:
  RandomModelTest() { folder_.Write("config.json", GetParam().model.config); }
  LoadOptions Options() const {
    LoadOptions options;
    options.folder = folder_.path();
    options.load_format = LoadFormat::kDummy;
    options.dtype = GetParam().dtype;
    return options;
  }
  static std::unique_ptr<Model> Must(const LoadOptions& options) {
    auto model = LoadModel(options, Pool());
    EXPECT_TRUE(model) << model.error().message();
    return model ? *std::move(model) : nullptr;
  }
  TempFolder folder_;
};

std::vector<TokenId> Tokens(int count, int seed) {
  std::vector<TokenId> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back((i * 37 + seed * 11 + i * i * 5) % 70);
  return tokens;
}

// A row's bits depend on its own inputs alone: whole prefill, chunks, one by one, beside other
// sequences, shuffled.
TEST_P(RandomModelTest, RowsDoNotDependOnTheBatch) {
  const auto model = Must(Options());
  ASSERT_NE(model, nullptr);
  ModelDriver driver(*model, *GetParam().backend, Pool());
  const auto vocab = static_cast<size_t>(model->config().vocab_size);
  const std::vector<TokenId> prompt = Tokens(23, 1);
  std::vector<float> hidden;
  const std::vector<float> whole = driver.Run({{0, prompt}}, &hidden);
  for (const float logit : whole) ASSERT_TRUE(std::isfinite(logit));
  for (const float value : hidden) ASSERT_LT(std::fabs(value), 1e6f);

  size_t done = 0;
  for (const size_t count : {1u, 5u, 1u, 9u, 7u}) {
    const auto begin = prompt.begin() + static_cast<int64_t>(done);
    const std::vector<float> part = driver.Run({{2, Tokens(3, static_cast<int>(done))},
                                                {1, {begin, begin + static_cast<int64_t>(count)}},
                                                {3, Tokens(2, 9)}});
    ASSERT_TRUE(std::equal(whole.begin() + static_cast<int64_t>(done * vocab),
                           whole.begin() + static_cast<int64_t>((done + count) * vocab),
                           part.begin() + static_cast<int64_t>(3 * vocab)))
        << "rows from " << done;
    done += count;
  }
  ASSERT_EQ(done, prompt.size());

  if (model->config().num_mtp_layers == 0) return;
  const std::vector<TokenId> next = Tokens(23, 4);
  const std::vector<float> mtp = driver.RunMtp(0, next, hidden);
  for (const float logit : mtp) ASSERT_TRUE(std::isfinite(logit));
}

TEST_P(RandomModelTest, CountsExperts) {
  const auto model = Must(Options());
  ASSERT_NE(model, nullptr);
  ModelDriver driver(*model, *GetParam().backend, Pool());
  driver.Run({{0, Tokens(11, 1)}});
  const ModelConfig& config = model->config();
  moe::ExpertStats& stats = model->expert_stats();
  EXPECT_EQ(stats.num_layers(),
            config.moe.num_experts > 0 ? config.num_moe_layers() + config.num_mtp_layers : 0);
  for (int layer = 0; layer < config.num_moe_layers(); ++layer) {
    const auto counts = stats.Layer(layer);
    EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), 11 * config.moe.top_k);
  }
}

// The dense twin is the same routing with all experts chosen.
TEST_P(RandomModelTest, DenseModeChoosesAllExperts) {
  LoadOptions options = Options();
  options.moe_mode = MoeMode::kDense;
  const auto dense = Must(options);
  ASSERT_NE(dense, nullptr);
  const ModelConfig& config = dense->config();
  if (config.moe.num_experts == 0) return;
  options.moe_mode = MoeMode::kSparse;
  options.hf_overrides = fmt::format(R"({{"num_experts_per_tok":{},"n_group":1,"topk_group":1}})",
                                     config.moe.num_experts);
  const auto all = Must(options);
  ModelDriver driver(*dense, *GetParam().backend, Pool());
  const std::vector<float> logits = driver.Run({{0, Tokens(9, 1)}});
  ModelDriver all_driver(*all, *GetParam().backend, Pool());
  EXPECT_EQ(logits, all_driver.Run({{0, Tokens(9, 1)}}));
  for (const int64_t count : dense->expert_stats().Layer(0)) EXPECT_EQ(count, 9);
  const auto sparse = Must(Options());
  ModelDriver sparse_driver(*sparse, *GetParam().backend, Pool());
  EXPECT_NE(logits, sparse_driver.Run({{0, Tokens(9, 1)}}));
}

TEST_P(RandomModelTest, RoutingFollowsTheWishedDistribution) {
  // Drawn by the same code whatever computes the rest: once a family is enough.
  if (GetParam().dtype != DTypeChoice::kFloat32 ||
      GetParam().backend != kernels::AvailableBackends().front()) {
    return;
  }
  LoadOptions options = Options();
  options.routing = moe::RoutingSpec{.zipf_exponent = 1.5};
  const auto model = Must(options);
  ASSERT_NE(model, nullptr);
  const ModelConfig& config = model->config();
  if (config.moe.num_experts == 0) return;
  ModelDriver driver(*model, *GetParam().backend, Pool());
  for (int s = 0; s < 30; ++s) driver.Run({{s, Tokens(40, s)}});
  for (int layer = 0; layer < config.num_moe_layers(); ++layer) {
    std::vector<int64_t> counts(model->expert_stats().Layer(layer).begin(),
                                model->expert_stats().Layer(layer).end());
    std::sort(counts.rbegin(), counts.rend());
    EXPECT_GT(counts.front(), 3 * counts.back());
  }
}

std::vector<PropertyParam> PropertyParams() {
  std::vector<PropertyParam> params;
  for (const RandomModel& model : kRandomModels) {
    for (const kernels::Backend* backend : kernels::AvailableBackends()) {
      for (const DTypeChoice dtype : {DTypeChoice::kFloat32, DTypeChoice::kBFloat16}) {
        params.push_back({model, backend, dtype});
      }
    }
  }
  return params;
}

INSTANTIATE_TEST_SUITE_P(Families, RandomModelTest, testing::ValuesIn(PropertyParams()),
                         [](const testing::TestParamInfo<PropertyParam>& info) {
                           return fmt::format(
                               "{}_{}_{}", info.param.model.name, info.param.backend->name,
                               info.param.dtype == DTypeChoice::kFloat32 ? "f32" : "bf16");
                         });

}  // namespace
}  // namespace moebius::model
