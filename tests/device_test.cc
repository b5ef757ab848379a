// A GPU against the CPU, whole engine against whole engine: golden checkpoints and the demo give
// the same log probabilities and tokens, with and without graphs. Skipped without a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "checkpoints.h"
#include "engine/inproc_engine_client.h"
#include "engine/token_stream.h"
#include "kernels/backend.h"
#include "model/load.h"
#include "model/testing/checkpoint_writer.h"

namespace moebius::engine {
namespace {

constexpr std::chrono::milliseconds kLong{120000};

struct Place {
  const kernels::Backend* backend;
  bool graphs = true;
  bool dummy = false;
  int64_t rows_of_step = 64;
  int64_t max_model_len = 120;
  int64_t block_size = 8;
  bool deterministic = false;
};

std::unique_ptr<InprocEngineClient> Start(
    const std::string& folder, model::DTypeChoice dtype, const Place& place,
    model::KvCacheDType kv_cache_dtype = model::KvCacheDType::kAuto) {
  auto pool = platform::ThreadPool::Create();
  model::LoadOptions load;
  load.folder = folder;
  load.dtype = dtype;
  load.kv_cache_dtype = kv_cache_dtype;
  load.mtp = false;
  load.backend = place.backend;
  if (place.dummy) load.load_format = model::LoadFormat::kDummy;
  auto model = model::LoadModel(load, *pool);
  if (!model) {
    ADD_FAILURE() << model.error().message();
    return nullptr;
  }
  EngineOptions options;
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = place.rows_of_step;
  options.max_model_len = place.max_model_len;
  options.block_size = place.block_size;
  options.num_kv_blocks = 400;
  options.seed = 1;
  options.device_graphs = place.graphs;
  options.deterministic = place.deterministic;
  auto client =
      InprocEngineClient::Create(std::move(*model), place.backend, std::move(pool), options);
  if (!client) {
    ADD_FAILURE() << client.error().message();
    return nullptr;
  }
  return std::move(*client);
}

std::vector<TokenChunk> RunAll(EngineClient& client, const std::vector<RequestInput>& inputs) {
  std::vector<TokenStream> streams(inputs.size());
  std::vector<TokenChunk> chunks;
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(client.Submit(inputs[i], streams[i].Sink()).has_value());
  }
  for (TokenStream& stream : streams) {
    auto chunk = stream.Collect(kLong);
    EXPECT_TRUE(chunk) << chunk.error().message();
    if (chunk && chunk->error) ADD_FAILURE() << chunk->error->message();
    chunks.push_back(chunk ? std::move(*chunk) : TokenChunk());
  }
  return chunks;
}

std::vector<RequestInput> RandomInputs(size_t count, int64_t vocab_size) {
  std::mt19937 random(5);
  std::vector<RequestInput> inputs(count);
  for (RequestInput& input : inputs) {
    const size_t num_tokens = 2 + random() % 70;
    for (size_t i = 0; i < num_tokens; ++i) {
      input.prompt.push_back(static_cast<TokenId>(random() % static_cast<uint32_t>(vocab_size)));
    }
    SamplingParams& sampling = input.sampling;
    sampling.max_tokens = static_cast<int32_t>(8 + random() % 30);
    sampling.temperature = random() % 3 == 0 ? 0.0f : 0.8f;
    sampling.seed = random();
    sampling.num_logprobs = 2;
    sampling.ignore_eos = true;
    if (random() % 2 == 0) sampling.num_prompt_logprobs = 1;
    if (random() % 3 == 0) sampling.repetition_penalty = 1.2f;
    if (random() % 3 == 0) sampling.frequency_penalty = 0.3f;
    if (random() % 3 == 0) sampling.top_p = 0.95f;
    if (random() % 3 == 0) sampling.top_k = 40;
    if (random() % 4 == 0) sampling.logit_bias = {{7, 3.0f}, {9, -3.0f}};
  }
  return inputs;
}

// |difference| of the prompt's log probabilities, ascending.
std::vector<double> PromptDifferences(const std::vector<TokenChunk>& a,
                                      const std::vector<TokenChunk>& b) {
  std::vector<double> all;
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].prompt_logprobs.size(), b[i].prompt_logprobs.size());
    for (size_t j = 0; j < std::min(a[i].prompt_logprobs.size(), b[i].prompt_logprobs.size());
         ++j) {
      const double difference = std::fabs(static_cast<double>(a[i].prompt_logprobs[j].logprob) -
                                          b[i].prompt_logprobs[j].logprob);
      all.push_back(std::isnan(difference) ? INFINITY : difference);
    }
  }
  std::sort(all.begin(), all.end());
  return all;
}

size_t NumEqual(const std::vector<TokenChunk>& a, const std::vector<TokenChunk>& b) {
  size_t count = 0;
  for (size_t i = 0; i < a.size(); ++i) count += a[i].tokens == b[i].tokens ? 1 : 0;
  return count;
}

class Device : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const auto backend = kernels::CudaBackend();
    if (!backend) GTEST_SKIP() << backend.error().message();
    cuda_ = *backend;
    cpu_ = kernels::AvailableBackends().front();
  }
  const kernels::Backend* cuda_ = nullptr;
  const kernels::Backend* cpu_ = nullptr;
};

// Only rounding differs. (A draw that lies within it of another token may fall the other way, and a
// request goes its own way from there: two of sixteen may.)
TEST_P(Device, Float32IsTheCpus) {
  const auto cpu = Start(GetParam(), model::DTypeChoice::kFloat32, {cpu_});
  const auto graphs = Start(GetParam(), model::DTypeChoice::kFloat32, {cuda_});
  const auto eager = Start(GetParam(), model::DTypeChoice::kFloat32, {cuda_, false});
  ASSERT_TRUE(cpu && graphs && eager);
  const std::vector<RequestInput> inputs = RandomInputs(16, cpu->limits().vocab_size);
  const std::vector<TokenChunk> want = RunAll(*cpu, inputs);
  for (const auto* client : {&graphs, &eager}) {
    const std::vector<TokenChunk> got = RunAll(**client, inputs);
    const std::vector<double> differences = PromptDifferences(got, want);
    ASSERT_FALSE(differences.empty());
    EXPECT_LT(differences[differences.size() * 9 / 10], 1e-3);
    EXPECT_GE(NumEqual(got, want), 14u);
    std::printf("%s: %zu of 16 requests equal, prompt log probabilities within %.1e (worst)\n",
                std::filesystem::path(GetParam()).filename().c_str(), NumEqual(got, want),
                differences.back());
  }
  // Both counted the same experts (padding does not count).
  EXPECT_EQ(graphs->ExpertLoad().num_experts(), cpu->ExpertLoad().num_experts());
}

double Median(const std::vector<double>& ascending) {
  return ascending.empty() ? INFINITY : ascending[ascending.size() / 2];
}

bool HasFp8Weights(const std::string& folder) {
  std::ifstream in(folder + "/config.json");
  return nlohmann::json::parse(in).contains("quantization_config");
}

// Both round to bfloat16, at different places; a router that is nearly undecided may tip, and a row
// then differs by more. So the measure is how far the CPU's bfloat16 is from float32: the GPU's may
// be half as far again, and where it quantises activations for fp8 weights, which the CPU does not,
// eight times as far.
TEST_P(Device, BFloat16IsAsNearToFloat32AsTheCpus) {
  const auto exact = Start(GetParam(), model::DTypeChoice::kFloat32, {cpu_});
  const auto cpu = Start(GetParam(), model::DTypeChoice::kBFloat16, {cpu_});
  const auto cuda = Start(GetParam(), model::DTypeChoice::kBFloat16, {cuda_});
  ASSERT_TRUE(exact && cpu && cuda);
  std::vector<RequestInput> inputs = RandomInputs(16, cpu->limits().vocab_size);
  for (RequestInput& input : inputs) input.sampling.num_prompt_logprobs = 1;
  const std::vector<TokenChunk> want = RunAll(*exact, inputs);
  const double of_cpu = Median(PromptDifferences(RunAll(*cpu, inputs), want));
  const double of_cuda = Median(PromptDifferences(RunAll(*cuda, inputs), want));
  EXPECT_LT(of_cuda, (HasFp8Weights(GetParam()) ? 8.0 : 1.5) * of_cpu + 1e-3);
  std::printf("%s: median of |log probability - float32's|: CPU %.1e, GPU %.1e\n",
              std::filesystem::path(GetParam()).filename().c_str(), of_cpu, of_cuda);
}

// The same measure for an fp8 cache, whose rounding hides the others'.
TEST_P(Device, Fp8LatentsAreAsNearToFloat32AsTheCpus) {
  const auto config = model::LoadModelConfig(GetParam());
  ASSERT_TRUE(config);
  if (config->attention.kind != model::AttentionKind::kMla) GTEST_SKIP() << "no latents";
  const auto exact = Start(GetParam(), model::DTypeChoice::kFloat32, {cpu_});
  ASSERT_TRUE(exact);
  std::vector<RequestInput> inputs = RandomInputs(16, exact->limits().vocab_size);
  for (RequestInput& input : inputs) input.sampling.num_prompt_logprobs = 1;
  const std::vector<TokenChunk> want = RunAll(*exact, inputs);
  for (const model::DTypeChoice dtype :
       {model::DTypeChoice::kFloat32, model::DTypeChoice::kBFloat16}) {
    const auto cpu = Start(GetParam(), dtype, {cpu_}, model::KvCacheDType::kFp8);
    const auto cuda = Start(GetParam(), dtype, {cuda_}, model::KvCacheDType::kFp8);
    ASSERT_TRUE(cpu && cuda);
    const double of_cpu = Median(PromptDifferences(RunAll(*cpu, inputs), want));
    const double of_cuda = Median(PromptDifferences(RunAll(*cuda, inputs), want));
    EXPECT_LT(of_cuda, (HasFp8Weights(GetParam()) ? 8.0 : 2.0) * of_cpu + 1e-3);
    std::printf("%s, fp8 cache: median of |log probability - float32's|: CPU %.1e, GPU %.1e\n",
                std::filesystem::path(GetParam()).filename().c_str(), of_cpu, of_cuda);
  }
}

// Steps of 512 rows over contexts of up to 800, in blocks of 16.
Place LongPrompts(const kernels::Backend* backend) {
  return {.backend = backend,
          .dummy = true,
          .rows_of_step = 512,
          .max_model_len = 800,
          .block_size = 16};
}

std::vector<RequestInput> LongInputs(size_t count, int32_t max_tokens) {
  std::mt19937 random(9);
  std::vector<RequestInput> inputs(count);
  for (RequestInput& input : inputs) {
    for (size_t i = 100 + random() % 600; i > 0; --i) {
      input.prompt.push_back(static_cast<TokenId>(random() % 128));
    }
    input.sampling.max_tokens = max_tokens;
    input.sampling.temperature = 0;
    input.sampling.ignore_eos = true;
    input.sampling.num_logprobs = 1;
    input.sampling.num_prompt_logprobs = 1;
  }
  return inputs;
}

// Prompts that share steps, in chunks behind earlier ones and beside decodes.
void ExpectPromptsAsNearAsTheCpus(const std::string& config) {
  const auto cuda = kernels::CudaBackend();
  if (!cuda) GTEST_SKIP() << cuda.error().message();
  const model::TempFolder folder;
  folder.Write("config.json", config);
  const Place place = LongPrompts(kernels::AvailableBackends().front());
  const auto exact = Start(folder.path(), model::DTypeChoice::kFloat32, place);
  const auto cpu = Start(folder.path(), model::DTypeChoice::kBFloat16, place);
  const auto device = Start(folder.path(), model::DTypeChoice::kBFloat16, LongPrompts(*cuda));
  ASSERT_TRUE(exact && cpu && device);
  const std::vector<RequestInput> inputs = LongInputs(6, 4);
  const std::vector<TokenChunk> want = RunAll(*exact, inputs);
  const double of_cpu = Median(PromptDifferences(RunAll(*cpu, inputs), want));
  const double of_cuda = Median(PromptDifferences(RunAll(*device, inputs), want));
  EXPECT_LT(of_cuda, 1.5 * of_cpu + 1e-3);
  std::printf("median of |log probability - float32's|: CPU %.1e, GPU %.1e\n", of_cpu, of_cuda);
}

// Heads as wide as DeepSeek's and Qwen's, which golden checkpoints have not.
constexpr const char* kWideLatents =
    R"({"model_type":"deepseek_v2","vocab_size":128,"hidden_size":256,
    "num_hidden_layers":2,"num_attention_heads":16,"intermediate_size":256,
    "max_position_embeddings":1024,"q_lora_rank":null,"kv_lora_rank":512,
    "qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"n_routed_experts":4,
    "num_experts_per_tok":2,"moe_intermediate_size":128,"first_k_dense_replace":2,
    "torch_dtype":"bfloat16"})";
std::string WideHeads(int head_dim) {
  return R"({"model_type":"qwen3_moe","vocab_size":128,"hidden_size":256,
      "num_hidden_layers":2,"num_attention_heads":32,"num_key_value_heads":4,"head_dim":)" +
         std::to_string(head_dim) + R"(,
      "intermediate_size":256,"max_position_embeddings":1024,"num_experts":4,
      "num_experts_per_tok":2,"moe_intermediate_size":128,"norm_topk_prob":true,
      "torch_dtype":"bfloat16"})";
}

// On the GPU chunks attend expanded,
TEST(DeviceMla, PromptsAreAsNearToFloat32AsTheCpus) { ExpectPromptsAsNearAsTheCpus(kWideLatents); }
// and in tiles.
TEST(DeviceGqa, PromptsAreAsNearToFloat32AsTheCpus) {
  ExpectPromptsAsNearAsTheCpus(WideHeads(128));
}

// Deterministic: a request's bits are those it has alone, where it decodes by itself, whatever
// shares its steps: decodes only, or prompts' chunks, for which attention has other kernels.
void ExpectTheBitsOfOneAlone(const std::string& config) {
  const auto cuda = kernels::CudaBackend();
  if (!cuda) GTEST_SKIP() << cuda.error().message();
  const model::TempFolder folder;
  folder.Write("config.json", config);
  Place place = LongPrompts(*cuda);
  place.deterministic = true;
  const auto alone = Start(folder.path(), model::DTypeChoice::kBFloat16, place);
  const auto together = Start(folder.path(), model::DTypeChoice::kBFloat16, place);
  ASSERT_TRUE(alone && together);
  const std::vector<RequestInput> inputs = LongInputs(12, 24);
  const std::vector<TokenChunk> got = RunAll(*together, inputs);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const TokenChunk want = RunAll(*alone, {inputs[i]})[0];
    EXPECT_EQ(want.logprobs.size(), 24U);
    EXPECT_EQ(got[i].tokens, want.tokens) << "request " << i;
    EXPECT_EQ(got[i].logprobs, want.logprobs) << "request " << i;
    EXPECT_EQ(got[i].prompt_logprobs, want.prompt_logprobs) << "request " << i;
  }
}

TEST(DeviceMla, DeterministicBitsAreThoseOfOneAlone) { ExpectTheBitsOfOneAlone(kWideLatents); }
TEST(DeviceGqa, DeterministicBitsAreThoseOfOneAlone) {
  for (const int head_dim : {64, 128}) ExpectTheBitsOfOneAlone(WideHeads(head_dim));
}

TEST_P(Device, GreedyTokensAreTheGoldenOnes) {
  std::ifstream in(GetParam() + "/golden.json");
  if (!in) GTEST_SKIP() << "no golden file";
  const nlohmann::json golden = nlohmann::json::parse(in);
  const auto client = Start(GetParam(), model::DTypeChoice::kFloat32, {cuda_});
  ASSERT_TRUE(client);
  for (const nlohmann::json& entry : golden.at("cases")) {
    const auto greedy = entry.at("greedy").get<std::vector<TokenId>>();
    if (entry.at("min_margin").get<double>() < 1e-3 || greedy.empty()) continue;
    RequestInput input;
    input.prompt = entry.at("input_ids").get<std::vector<TokenId>>();
    if (input.prompt.size() + greedy.size() > 120) continue;
    input.sampling.temperature = 0;
    input.sampling.max_tokens = static_cast<int32_t>(greedy.size());
    input.sampling.ignore_eos = true;
    EXPECT_EQ(RunAll(*client, {input})[0].tokens, greedy);
  }
}

INSTANTIATE_TEST_SUITE_P(Folders, Device, ::testing::ValuesIn(Checkpoints()), [](const auto& info) {
  return std::filesystem::path(info.param).filename().string();
});

}  // namespace
}  // namespace moebius::engine
