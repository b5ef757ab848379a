// Log probabilities of prompts, against the logits of the reference's forward pass over the whole
// prompt: whatever chunks, pieces and company the prompt was computed in.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <thread>

#include "engine/testing/golden_engine.h"
#include "model/testing/model_driver.h"

namespace moebius::engine {
namespace {

using testing::GoldenFolder;
using testing::GoldenOptions;
using testing::RunAll;
using testing::StartGolden;

constexpr int32_t kTop = 5;

std::vector<TokenId> RandomPrompt(size_t size, uint32_t seed, int64_t vocab_size) {
  std::mt19937 random(seed);
  std::vector<TokenId> prompt(size);
  for (TokenId& token : prompt) {
    token = static_cast<TokenId>(random() % static_cast<uint32_t>(vocab_size));
  }
  return prompt;
}

RequestInput Ask(std::vector<TokenId> prompt) {
  RequestInput input;
  input.prompt = std::move(prompt);
  input.sampling.temperature = 0;
  input.sampling.max_tokens = 3;
  input.sampling.ignore_eos = true;
  input.sampling.num_logprobs = kTop;
  input.sampling.num_prompt_logprobs = kTop;
  return input;
}

// The reference's logits after every token of a prompt, a row each.
class Reference {
 public:
  explicit Reference(const std::string& name) : pool_(platform::ThreadPool::Create({0})) {
    model::LoadOptions load;
    load.folder = GoldenFolder(name);
    load.dtype = model::DTypeChoice::kFloat32;
    auto model = model::LoadModel(load, *pool_);
    if (!model) CheckFailed(__FILE__, __LINE__, model.error().message());
    model_ = std::move(*model);
  }
  int64_t vocab_size() const { return model_->config().vocab_size; }
  std::vector<float> Logits(const std::vector<TokenId>& prompt) {
    model::ModelDriver driver(*model_, kernels::RefBackend(), *pool_);
    return driver.Run({{0, prompt}});
  }

 private:
  std::unique_ptr<platform::ThreadPool> pool_;
  std::unique_ptr<model::Model> model_;
};

// `entry` is what a row of logits says of its token; in the order of any of two logits that are
// nearer than the tolerance, back ends may differ.
void ExpectOf(std::span<const float> logits, const LogprobEntry& entry, float tolerance) {
  const float top = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  const double normaliser = top + std::log(sum);
  const float own = logits[static_cast<size_t>(entry.token)];
  EXPECT_NEAR(entry.logprob, own - normaliser, tolerance);
  const auto num_above = [&](float x) {
    return std::ranges::count_if(logits, [&](float y) { return y > x; });
  };
  EXPECT_GE(entry.rank, 1 + num_above(own + tolerance));
  EXPECT_LE(entry.rank, 1 + num_above(own - tolerance));
  std::vector<float> sorted(logits.begin(), logits.end());
  std::ranges::sort(sorted, std::greater());
  ASSERT_EQ(entry.top_tokens.size(), static_cast<size_t>(kTop));
  for (size_t i = 0; i < kTop; ++i) {
    EXPECT_NEAR(entry.top_logprobs[i], sorted[i] - normaliser, tolerance);
    EXPECT_NEAR(logits[static_cast<size_t>(entry.top_tokens[i])], sorted[i], tolerance);
  }
}

class PromptLogprobs : public ::testing::TestWithParam<std::string> {};

TEST_P(PromptLogprobs, AreThoseOfTheReferencesForwardPass) {
  Reference reference(GetParam());
  const int64_t vocab = reference.vocab_size();
  const std::vector<TokenId> prompt = RandomPrompt(90, 5, vocab);
  const std::vector<float> logits = reference.Logits(prompt);
  for (const kernels::Backend* backend : kernels::AvailableBackends()) {
    SCOPED_TRACE(backend->name);
    EngineOptions options = GoldenOptions();
    options.max_num_batched_tokens = 128;  // one step, its logits in three pieces
    const auto client = StartGolden(GetParam(), model::DTypeChoice::kFloat32, backend, options);
    const TokenChunk chunk = RunAll(*client, {Ask(prompt)}, false)[0];
    ASSERT_EQ(chunk.prompt_logprobs.size(), prompt.size() - 1);
    for (size_t i = 1; i < prompt.size(); ++i) {
      SCOPED_TRACE(i);
      EXPECT_EQ(chunk.prompt_logprobs[i - 1].token, prompt[i]);
      ExpectOf(std::span(logits).subspan((i - 1) * static_cast<size_t>(vocab),
                                         static_cast<size_t>(vocab)),
               chunk.prompt_logprobs[i - 1], 1e-3f);
    }
    ExpectOf(std::span(logits).last(static_cast<size_t>(vocab)), chunk.logprobs[0], 1e-3f);
    EXPECT_EQ(chunk.logprobs[0].rank, 1);
  }
}

TEST_P(PromptLogprobs, AreTheSameInChunksOfAnySizeAndInABatch) {
  const kernels::Backend* backend = kernels::AvailableBackends().back();
  std::vector<RequestInput> inputs;
  std::vector<TokenChunk> want;
  {
    EngineOptions options = GoldenOptions();
    options.async_scheduling = false;
    options.max_num_batched_tokens = 128;
    const auto client = StartGolden(GetParam(), model::DTypeChoice::kBFloat16, backend, options);
    const int64_t vocab = client->limits().vocab_size;
    for (uint32_t i = 0; i < 4; ++i) inputs.push_back(Ask(RandomPrompt(11 + i, i % 3, vocab)));
    inputs[2].sampling.num_prompt_logprobs = -1;
    want = RunAll(*client, inputs, /*at_once=*/false);
  }
  EXPECT_TRUE(want[2].prompt_logprobs.empty());
  EXPECT_EQ(want[3].prompt_logprobs.size(), 13u);
  for (const int64_t budget : {1, 2, 5, 13}) {  // all sizes: in engine_sampling_test.cc
    EngineOptions options = GoldenOptions();
    options.max_num_batched_tokens = budget;
    options.max_num_seqs = std::min<int64_t>(budget, 4);
    const auto client = StartGolden(GetParam(), model::DTypeChoice::kBFloat16, backend, options);
    const std::vector<TokenChunk> got = RunAll(*client, inputs, /*at_once=*/budget != 5);
    for (size_t i = 0; i < inputs.size(); ++i) {
      EXPECT_EQ(got[i].tokens, want[i].tokens) << budget << " " << i;
      EXPECT_EQ(got[i].logprobs, want[i].logprobs) << budget << " " << i;
      EXPECT_EQ(got[i].prompt_logprobs, want[i].prompt_logprobs) << budget << " " << i;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PromptLogprobs, ::testing::Values("deepseek_v3", "qwen3_moe_old"));

TEST(ExpertStatistics, CanBeTurnedOff) {
  for (const bool counts : {true, false}) {
    int64_t num_observed = 0;
    EngineOptions options = GoldenOptions();
    options.expert_statistics = counts;
    options.on_step = [&](const StepRecord& record) { num_observed += record.num_experts; };
    const auto client = StartGolden("deepseek_v3", model::DTypeChoice::kFloat32,
                                    kernels::AvailableBackends().back(), options);
    RunAll(*client, {Ask(RandomPrompt(20, 1, client->limits().vocab_size))}, false);
    // Longer than the device thread's period of publishing.
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    const moe::ExpertStats load = client->ExpertLoad();
    const auto any = [](std::span<const int64_t> list) {
      return std::ranges::any_of(list, [](int64_t count) { return count > 0; });
    };
    EXPECT_GT(load.num_layers(), 0);
    EXPECT_FALSE(!counts && any(load.counts()));
    EXPECT_EQ(num_observed > 0, counts);
  }
}

// Parts of a step of a real model: each takes time, together they are the step.
TEST(StepRecords, PartsOfARealStep) {
  std::vector<StepRecord> records;
  int64_t num_assignments = 0;
  EngineOptions options = GoldenOptions();
  options.on_step = [&](const StepRecord& record) {
    records.push_back(record);
    records.back().expert_counts = {};
    for (const int32_t count : record.expert_counts) {
      EXPECT_GE(count, 0);
      num_assignments += count;
    }
  };
  int64_t num_layers = 0;
  {
    const auto client = StartGolden("deepseek_v3", model::DTypeChoice::kFloat32,
                                    kernels::AvailableBackends().back(), options);
    RunAll(*client, {Ask(RandomPrompt(50, 1, client->limits().vocab_size))}, false);
    const moe::ExpertStats load = client->ExpertLoad();
    num_layers = load.num_layers();
  }
  ASSERT_EQ(records.size(), 3u);
  int64_t num_rows = 0;
  for (const StepRecord& record : records) {
    double sum = 0;
    for (const StepPart& part : kStepParts) {
      const double seconds = record.parts.*part.seconds;
      if (part.seconds != &StepParts::wait) {
        EXPECT_GT(seconds, 0) << part.name;
      }
      EXPECT_LT(seconds, record.device);
      sum += seconds;
    }
    EXPECT_EQ(record.parts.wait, 0);  // for nobody: the rank is alone
    EXPECT_NEAR(sum, record.device, 1e-9);
    num_rows += record.num_prefill_tokens + record.num_decode_tokens;
  }
  EXPECT_EQ(num_rows, 52);
  EXPECT_GT(num_layers, 0);
  EXPECT_GT(num_assignments, 0);
  EXPECT_EQ(num_assignments % num_rows, 0);  // every row chooses as many, in every layer
}

}  // namespace
}  // namespace moebius::engine
