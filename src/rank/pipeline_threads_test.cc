// Pipeline stages overlap micro-batches, and prompts wait for their step on all data-parallel
// ranks: answers stay those of one rank, bit by bit, whatever comes and goes.
#include <gtest/gtest.h>
#include <unistd.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "rank/testing/golden_ranks.h"
#include "rank/trace_reader_test.h"

namespace moebius::rank {
namespace {

using engine::TokenChunk;
using engine::TokenStream;
using testing::ReadTrace;
using testing::Span;

constexpr int kRequests = 40;

RankOptions OptionsOf(int tp, int dp, int pp, bool ep) {
  RankOptions options = testing::GoldenOptions(testing::Parallel(tp, dp, pp, ep));
  options.engine.num_kv_blocks = 26;  // of two or three requests: the others are preempted
  options.engine.max_num_batched_tokens = 16;
  return options;
}

engine::RequestInput InputOf(int i) {
  std::mt19937 random(static_cast<uint32_t>(i));
  engine::RequestInput input;
  const size_t length = 1 + random() % 40;
  for (size_t t = 0; t < length; ++t) {
    input.prompt.push_back(
        static_cast<TokenId>((3 * t + random() % 2 + static_cast<size_t>(i % 3)) % 50));
  }
  input.sampling.max_tokens = 1 + static_cast<int32_t>(random() % 18);
  input.sampling.temperature = i % 2 == 0 ? 0.0F : 0.8F;
  input.sampling.seed = 11 + static_cast<uint64_t>(i);
  input.sampling.num_logprobs = i % 3;
  input.sampling.ignore_eos = true;
  if (i % 4 == 0) input.sampling.presence_penalty = 0.5F;
  if (i % 4 == 1) input.sampling.repetition_penalty = 1.2F;
  if (i % 5 == 0) input.sampling.num_prompt_logprobs = 1;
  if (i % 5 == 1) input.sampling.bad_words = {{3, 7}, {9}};
  return input;
}

bool IsCancelled(int i) { return i % 7 == 3; }

const std::vector<TokenChunk>& OneRanksAnswers() {
  static const std::vector<TokenChunk> answers =
      testing::Ask(*testing::OneRank(OptionsOf(1, 1, 1, false)), kRequests, InputOf);
  return answers;
}

template <typename T>
bool BeginsWith(const std::vector<T>& all, const std::vector<T>& beginning) {
  return beginning.size() <= all.size() &&
         std::equal(beginning.begin(), beginning.end(), all.begin());
}

void ExpectOneRanksAnswers(const RankOptions& options) {
  const std::vector<TokenChunk>& expected = OneRanksAnswers();
  const auto client = StartThreadRanks(options);
  ASSERT_TRUE(client) << client.error().message();
  const std::vector<TokenChunk> answers = testing::Ask(**client, kRequests, InputOf, IsCancelled);
  for (size_t i = 0; i < answers.size(); ++i) {
    SCOPED_TRACE(i);
    if (answers[i].finish == engine::FinishReason::kCancelled) {
      EXPECT_TRUE(IsCancelled(static_cast<int>(i)));
      EXPECT_TRUE(BeginsWith(expected[i].tokens, answers[i].tokens));
      EXPECT_TRUE(BeginsWith(expected[i].logprobs, answers[i].logprobs));
      continue;
    }
    EXPECT_EQ(answers[i].tokens, expected[i].tokens);
    EXPECT_EQ(answers[i].logprobs, expected[i].logprobs);
    EXPECT_EQ(answers[i].prompt_logprobs, expected[i].prompt_logprobs);
  }
  EXPECT_TRUE((*client)->Health());
  EXPECT_GT((*client)->Stats().num_preemptions, 0);
}

TEST(PipelineThreads, TwoStages) { ExpectOneRanksAnswers(OptionsOf(1, 1, 2, false)); }
TEST(PipelineThreads, ThreeStages) { ExpectOneRanksAnswers(OptionsOf(1, 1, 3, false)); }
TEST(PipelineThreads, WithTensorParallelism) { ExpectOneRanksAnswers(OptionsOf(2, 1, 2, true)); }
TEST(PipelineThreads, WithDataAndExpertParallelism) {
  ExpectOneRanksAnswers(OptionsOf(1, 2, 2, true));
}
TEST(PipelineThreads, WithAPrefillInterval) {
  RankOptions options = OptionsOf(1, 2, 2, true);
  options.engine.prefill_interval = 3;
  ExpectOneRanksAnswers(options);
}

// Requests that end with the engine while their steps are on the way.
TEST(PipelineThreads, EndsInTheMiddle) {
  for (const int turns : {0, 1, 5, 20}) {
    std::vector<TokenStream> streams(kRequests);
    {
      const auto client = StartThreadRanks(OptionsOf(1, 2, 2, true));
      ASSERT_TRUE(client) << client.error().message();
      for (int i = 0; i < kRequests; ++i) {
        ASSERT_TRUE((*client)->Submit(InputOf(i), streams[static_cast<size_t>(i)].Sink()));
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(turns));
    }
    for (TokenStream& stream : streams) EXPECT_TRUE(stream.Collect(std::chrono::seconds(10)));
  }
}

// Of this process alone, whoever else runs the same test.
std::string TracePath(const char* name) {
  return ::testing::TempDir() + name + std::to_string(getpid()) + ".json";
}

// Which step a stage's layers belong to: the pass around them says.
std::vector<Span> LayersByStep(const std::string& path) {
  std::vector<Span> layers = ReadTrace(path, "layers");
  for (const Span& pass : ReadTrace(path, "pass")) {
    for (Span& span : layers) {
      if (span.rank == pass.rank && pass.Contains(span)) span.step = pass.step;
    }
  }
  return layers;
}

TEST(PipelineThreads, TheFirstStageBeginsAStepWhileTheSecondRunsTheOneBefore) {
  const std::string path = TracePath("pipeline_trace_");
  {
    auto file = TraceFile::Create(path);
    ASSERT_TRUE(file);
    RankOptions options = OptionsOf(1, 1, 2, false);
    options.engine.num_kv_blocks = 256;
    options.engine.trace.descriptor = file->descriptor();
    const auto client = StartThreadRanks(options);
    ASSERT_TRUE(client) << client.error().message();
    testing::Ask(**client, kRequests, InputOf);
  }
  const std::vector<Span> layers = LayersByStep(path);
  int num_overlaps = 0;
  int num_steps = 0;
  for (const Span& second : layers) {
    if (second.rank != 1) continue;
    ++num_steps;
    for (const Span& first : layers) {
      if (first.rank != 0 || !first.Meets(second)) continue;
      EXPECT_GT(first.step, second.step);  // and never its own
      num_overlaps += first.step == second.step + 1;
    }
  }
  EXPECT_GT(num_steps, 20);
  EXPECT_GT(num_overlaps, 0) << "of " << num_steps;
  std::remove(path.c_str());
}

TEST(PrefillInterval, DataParallelRanksComputePromptsInTheSameSteps) {
  const std::string path = TracePath("prefill_trace_");
  constexpr int kInterval = 4;
  {
    auto file = TraceFile::Create(path);
    ASSERT_TRUE(file);
    RankOptions options = OptionsOf(1, 2, 1, true);
    options.engine.num_kv_blocks = 256;
    options.engine.prefill_interval = kInterval;
    options.engine.trace.descriptor = file->descriptor();
    const auto client = StartThreadRanks(options);
    ASSERT_TRUE(client) << client.error().message();
    std::vector<TokenStream> streams(12);
    for (size_t i = 0; i < streams.size(); ++i) {
      engine::RequestInput input = InputOf(static_cast<int>(i));
      input.prompt.assign(i < 4 ? 3 : 40, static_cast<TokenId>(i + 1));
      input.sampling.max_tokens = i < 4 ? 50 : 3;
      input.sampling.num_prompt_logprobs = -1;
      ASSERT_TRUE((*client)->Submit(input, streams[i].Sink()));
      if (i >= 4) continue;
      ASSERT_TRUE(streams[i].Next(std::chrono::minutes(1)));  // it draws from now on
    }
    for (TokenStream& stream : streams) ASSERT_TRUE(stream.Collect(std::chrono::minutes(2)));
  }
  int num_long = 0;
  int num_short = 0;
  for (const Span& pass : ReadTrace(path, "pass")) {
    if (pass.rows > 8) {  // more than all that draw
      ++num_long;
      EXPECT_EQ(pass.step % kInterval, 0);
    } else {
      num_short += pass.step % kInterval != 0;
    }
  }
  EXPECT_GE(num_long, 8 * 40 / 16);
  EXPECT_GT(num_short, num_long);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace moebius::rank
