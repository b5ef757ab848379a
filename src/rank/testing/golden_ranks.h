// What tests of ranks share: a golden checkpoint on small engines whose prompts run in chunks, its
// requests, and the one rank that many are compared with.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/inproc_engine_client.h"
#include "engine/token_stream.h"
#include "kernels/backend.h"
#include "platform/thread_pool.h"
#include "rank/thread_ranks.h"

namespace moebius::rank::testing {

inline layout::ParallelConfig Parallel(int tp, int dp, int pp, bool ep) {
  layout::ParallelConfig parallel;
  parallel.tensor_parallel_size = tp;
  parallel.data_parallel_size = dp;
  parallel.pipeline_parallel_size = pp;
  parallel.enable_expert_parallel = ep;
  return parallel;
}

// `folder` below the repository's.
inline RankOptions GoldenOptions(const layout::ParallelConfig& parallel,
                                 const std::string& folder = "tests/golden/deepseek_v3") {
  RankOptions options;
  options.load.folder = std::string(MOEBIUS_SOURCE_DIR) + "/" + folder;
  options.load.mtp = false;
  options.load.backend = &kernels::RefBackend();
  options.engine.block_size = 4;
  options.engine.num_kv_blocks = 64;
  options.engine.max_model_len = 64;
  options.engine.max_num_seqs = 8;
  options.engine.max_num_batched_tokens = 24;  // prompts run in chunks
  options.engine.seed = 7;
  options.parallel = parallel;
  options.deterministic = true;
  options.step_timeout = std::chrono::seconds(60);
  return options;
}

// Request `i` of a kind of which every other one is greedy.
inline engine::RequestInput InputOf(int i, int32_t num_logprobs = 0) {
  engine::RequestInput input;
  for (int t = 0; t < 3 + 5 * i % 30; ++t) {
    input.prompt.push_back(static_cast<TokenId>((7 * t + 3 * i) % 50));
  }
  input.sampling.max_tokens = 6 + i % 4;
  input.sampling.temperature = i % 2 == 0 ? 0.0F : 0.8F;
  input.sampling.seed = 11 + i;
  input.sampling.num_logprobs = num_logprobs;
  input.sampling.ignore_eos = true;
  return input;
}

// The answers to `num_requests` of `input_of`, all asked at once. Those that `is_cancelled` names
// are, when all before them have ended.
template <typename InputOf>
std::vector<engine::TokenChunk> Ask(
    engine::EngineClient& client, int num_requests, const InputOf& input_of,
    bool (*is_cancelled)(int) = [](int) { return false; }) {
  std::vector<engine::TokenStream> streams(static_cast<size_t>(num_requests));
  std::vector<engine::RequestId> ids;
  for (int i = 0; i < num_requests; ++i) {
    const auto id = client.Submit(input_of(i), streams[static_cast<size_t>(i)].Sink());
    EXPECT_TRUE(id) << id.error().message();
    ids.push_back(id ? *id : engine::RequestId());
  }
  std::vector<engine::TokenChunk> answers;
  for (int i = 0; i < num_requests; ++i) {
    const auto place = static_cast<size_t>(i);
    if (is_cancelled(i)) client.Cancel(ids[place], engine::FinishReason::kCancelled);
    auto answer = streams[place].Collect(std::chrono::minutes(5));
    EXPECT_TRUE(answer) << answer.error().message();
    answers.push_back(answer ? std::move(*answer) : engine::TokenChunk());
    if (answers.back().error) ADD_FAILURE() << answers.back().error->message();
  }
  return answers;
}

// The same engine without ranks, whatever `options.parallel` says.
inline std::unique_ptr<engine::EngineClient> OneRank(const RankOptions& options) {
  auto pool = platform::ThreadPool::Create({platform::AllowedCpus()[0]});
  auto model = model::LoadModel(options.load, *pool);
  EXPECT_TRUE(model) << model.error().message();
  if (!model) return nullptr;
  auto client = engine::InprocEngineClient::Create(std::move(*model), options.load.backend,
                                                   std::move(pool), options.engine);
  EXPECT_TRUE(client) << client.error().message();
  return client ? std::move(*client) : nullptr;
}

}  // namespace moebius::rank::testing
