// The engine over real, small models: what batching, chunking, caching and preemption must not
// change is compared token by token and log probability by log probability.
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/testing/golden_engine.h"
#include "kernels/backend.h"

namespace moebius::engine {
namespace {

using testing::GoldenFolder;
using testing::GoldenOptions;
using testing::RunAll;
using testing::StartGolden;
using testing::TryStartGolden;

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
    EngineOptions plain = GoldenOptions();
    plain.async_scheduling = false;
    plain.enable_prefix_caching = false;
    plain.max_num_batched_tokens = 128;  // no prompt is cut
    std::vector<RequestInput> inputs;
    std::vector<TokenChunk> alone;
    {
      const auto client = StartGolden(GetParam().model, GetParam().dtype, backend, plain);
      inputs = RandomInputs(14, 7, client->limits().vocab_size);
      alone = RunAll(*client, inputs, /*at_once=*/false);
    }
    EngineOptions crowded = GoldenOptions();
    crowded.num_kv_blocks = 20;  // two long requests
    for (const EngineOptions& options : {GoldenOptions(), crowded}) {
      const auto client = StartGolden(GetParam().model, GetParam().dtype, backend, options);
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
    const auto client =
        StartGolden("deepseek_v3", model::DTypeChoice::kFloat32, backend, GoldenOptions());
    std::ifstream in(GoldenFolder("deepseek_v3") + "/golden.json");
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
  ASSERT_TRUE(
      TryStartGolden("deepseek_v3", model::DTypeChoice::kFloat32, &lacking, GoldenOptions()));
  lacking.grouped_gemm = nullptr;
  const auto client =
      TryStartGolden("deepseek_v3", model::DTypeChoice::kFloat32, &lacking, GoldenOptions());
  ASSERT_FALSE(client);
  EXPECT_EQ(client.error().code(), ErrorCode::kUnsupported);
  EXPECT_NE(client.error().message().find("lacking lacks"), std::string::npos);
  EXPECT_NE(client.error().message().find("deepseek_v3 model needs: grouped_gemm;"),
            std::string::npos)
      << client.error().message();
}

}  // namespace
}  // namespace moebius::engine
