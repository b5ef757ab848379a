// The engine over real, small models: what batching, chunking, caching and preemption must not
// change is compared token by token and log probability by log probability.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "base/check.h"
#include "engine/inproc_engine_client.h"
#include "engine/token_stream.h"
#include "kernels/backend.h"
#include "model/load.h"

namespace moebius::engine {
namespace {

constexpr std::chrono::milliseconds kLong{120000};

std::string Folder(const std::string& name) {
  return std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/" + name;
}

Result<std::unique_ptr<InprocEngineClient>> TryStart(const std::string& name,
                                                     model::DTypeChoice dtype,
                                                     const kernels::Backend* backend,
                                                     const EngineOptions& options) {
  // Small models, and a machine that may be busy: one thread is faster than two that wait for each
  // other. One case takes all, as rows must not depend on how work is split either.
  std::vector<int> cpus = platform::AllowedCpus();
  if (dtype == model::DTypeChoice::kBFloat16) cpus.resize(1);
  auto pool = platform::ThreadPool::Create(cpus);
  model::LoadOptions load;
  load.folder = Folder(name);
  load.dtype = dtype;
  auto model = model::LoadModel(load, *pool);
  if (!model) CheckFailed(__FILE__, __LINE__, model.error().message());
  return InprocEngineClient::Create(std::move(*model), backend, std::move(pool), options);
}

std::unique_ptr<InprocEngineClient> Start(const std::string& name, model::DTypeChoice dtype,
                                          const kernels::Backend* backend,
                                          const EngineOptions& options) {
  auto client = TryStart(name, dtype, backend, options);
  if (!client) CheckFailed(__FILE__, __LINE__, client.error().message());
  return std::move(*client);
}

EngineOptions Options() {
  EngineOptions options;
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 120;
  options.block_size = 8;
  options.num_kv_blocks = 400;
  options.seed = 1;
  return options;
}

std::vector<TokenChunk> RunAll(EngineClient& client, const std::vector<RequestInput>& inputs,
                               bool at_once) {
  std::vector<TokenStream> streams(inputs.size());
  std::vector<TokenChunk> chunks;
  const auto collect = [&](size_t i) {
    auto chunk = streams[i].Collect(kLong);
    if (!chunk) CheckFailed(__FILE__, __LINE__, chunk.error().message());
    chunks.push_back(std::move(*chunk));
  };
  for (size_t i = 0; i < inputs.size(); ++i) {
    EXPECT_TRUE(client.Submit(inputs[i], streams[i].Sink()).has_value());
    if (!at_once) collect(i);
  }
  for (size_t i = chunks.size(); i < inputs.size(); ++i) collect(i);
  return chunks;
}

std::vector<RequestInput> RandomInputs(size_t count, uint32_t seed, int64_t vocab_size) {
  std::mt19937 random(seed);
  std::vector<RequestInput> inputs(count);
  for (RequestInput& input : inputs) {
    const size_t num_tokens = 1 + random() % 70;
    const uint32_t family = random() % 2;
    for (size_t i = 0; i < num_tokens; ++i) {
      const uint32_t token = i < 40 ? family * 100 + static_cast<uint32_t>(i) : random();
      input.prompt.push_back(static_cast<TokenId>(token % static_cast<uint32_t>(vocab_size)));
    }
    input.sampling.max_tokens = static_cast<int32_t>(8 + random() % 30);
    input.sampling.temperature = random() % 4 == 0 ? 0.0f : 1.0f;
    input.sampling.seed = random();
    input.sampling.num_logprobs = 1;
    if (random() % 3 == 0) input.sampling.repetition_penalty = 1.2f;
    if (random() % 3 == 0) input.sampling.top_p = 0.95f;
  }
  return inputs;
}

struct RealCase {
  std::string model;
  model::DTypeChoice dtype;
};

class RealModel : public ::testing::TestWithParam<RealCase> {};

TEST_P(RealModel, OutputsAreThoseOfARequestAlone) {
  // The scalar back end is slow, and its row invariance is a matter of course.
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    if (backend == &kernels::RefBackend() && kernels::AvailableBackends().size() > 1) continue;
    SCOPED_TRACE(backend->name);
    EngineOptions plain = Options();
    plain.async_scheduling = false;
    plain.enable_prefix_caching = false;
    plain.max_num_batched_tokens = 128;  // no prompt is cut
    std::vector<RequestInput> inputs;
    std::vector<TokenChunk> alone;
    {
      const auto client = Start(GetParam().model, GetParam().dtype, backend, plain);
      inputs = RandomInputs(14, 7, client->limits().vocab_size);
      alone = RunAll(*client, inputs, /*at_once=*/false);
    }
    EngineOptions crowded = Options();
    crowded.num_kv_blocks = 20;  // two long requests
    for (const EngineOptions& options : {Options(), crowded}) {
      const auto client = Start(GetParam().model, GetParam().dtype, backend, options);
      const std::vector<TokenChunk> together = RunAll(*client, inputs, /*at_once=*/true);
      for (size_t i = 0; i < inputs.size(); ++i) {
        ASSERT_EQ(together[i].tokens, alone[i].tokens) << i;
        ASSERT_EQ(together[i].finish, alone[i].finish) << i;
        for (size_t j = 0; j < together[i].logprobs.size(); ++j) {
          ASSERT_EQ(together[i].logprobs[j].logprob, alone[i].logprobs[j].logprob) << i << " " << j;
        }
      }
      const EngineStats stats = client->Stats();
      EXPECT_GT(stats.num_cached_tokens, 0);
      EXPECT_EQ(stats.num_preemptions > 0, *options.num_kv_blocks == 20);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RealModel,
                         ::testing::Values(RealCase{"deepseek_v3", model::DTypeChoice::kBFloat16},
                                           RealCase{"deepseek_v3", model::DTypeChoice::kFloat32},
                                           RealCase{"qwen3_moe_old", model::DTypeChoice::kBFloat16},
                                           RealCase{"llama4_nested", model::DTypeChoice::kBFloat16},
                                           RealCase{"mixtral_window",
                                                    model::DTypeChoice::kBFloat16}),
                         [](const auto& info) {
                           return info.param.model +
                                  (info.param.dtype == model::DTypeChoice::kFloat32 ? "_float32"
                                                                                    : "_bfloat16");
                         });

TEST(GoldenModel, GreedyContinuationsAreTheGoldenOnes) {
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    SCOPED_TRACE(backend->name);
    const auto client = Start("deepseek_v3", model::DTypeChoice::kFloat32, backend, Options());
    std::ifstream in(Folder("deepseek_v3") + "/golden.json");
    const nlohmann::json golden = nlohmann::json::parse(in);
    int num_checked = 0;
    for (const nlohmann::json& entry : golden.at("cases")) {
      const auto greedy = entry.at("greedy").get<std::vector<TokenId>>();
      RequestInput input;
      input.prompt = entry.at("input_ids").get<std::vector<TokenId>>();
      input.sampling.temperature = 0;
      input.sampling.max_tokens = static_cast<int32_t>(greedy.size());
      input.sampling.ignore_eos = true;
      if (entry.at("min_margin").get<double>() < 1e-3 || greedy.empty()) continue;
      EXPECT_EQ(RunAll(*client, {input}, false)[0].tokens, greedy);
      ++num_checked;
    }
    EXPECT_GT(num_checked, 0);
  }
}

TEST(BackendCheck, OperationThatTheModelNeedsMustBeThere) {
  kernels::Backend lacking = kernels::RefBackend();
  lacking.name = "lacking";
  lacking.attention = nullptr;  // MLA does without
  ASSERT_TRUE(TryStart("deepseek_v3", model::DTypeChoice::kFloat32, &lacking, Options()));
  lacking.grouped_gemm = nullptr;
  const auto client = TryStart("deepseek_v3", model::DTypeChoice::kFloat32, &lacking, Options());
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(client.error().message().find("lacking lacks"), std::string::npos);
  EXPECT_NE(client.error().message().find("deepseek_v3 model needs: grouped_gemm;"),
            std::string::npos)
      << client.error().message();
}

}  // namespace
}  // namespace moebius::engine
