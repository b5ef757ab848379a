// For tests: an engine with real threads, runner and sampling over a model of hashes.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "engine/inproc_engine_client.h"
#include "engine/testing/fake_model.h"
#include "engine/token_stream.h"
#include "kernels/backend.h"

namespace moebius::engine::testing {

constexpr int64_t kFakeVocabSize = 60;
constexpr std::chrono::milliseconds kLong{60000};

inline EngineOptions SmallOptions() {
  EngineOptions options;
  options.block_size = 4;
  options.num_kv_blocks = 64;
  options.max_model_len = 64;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 32;
  options.seed = 1;
  options.eos_token_ids = {5};
  return options;
}

class EngineTest : public ::testing::Test {
 protected:
  Result<std::unique_ptr<InprocEngineClient>> TryStart(const EngineOptions& options) {
    return InprocEngineClient::Create(std::make_unique<FakeModel>(kFakeVocabSize, &hooks_),
                                      &kernels::RefBackend(), platform::ThreadPool::Create({0}),
                                      options);
  }
  std::unique_ptr<InprocEngineClient> Start(const EngineOptions& options = SmallOptions()) {
    auto client = TryStart(options);
    if (!client) CheckFailed(__FILE__, __LINE__, client.error().message());
    return std::move(*client);
  }

  static RequestInput Make(std::vector<TokenId> prompt, int32_t max_tokens) {
    RequestInput input;
    input.prompt = std::move(prompt);
    input.sampling.max_tokens = max_tokens;
    input.sampling.ignore_eos = true;
    return input;
  }
  static TokenChunk Run(EngineClient& client, RequestInput input) {
    const TokenStream stream;
    const auto id = client.Submit(std::move(input), stream.Sink());
    EXPECT_TRUE(id.has_value()) << id.error().message();
    auto chunk = TokenStream(stream).Collect(kLong);
    EXPECT_TRUE(chunk.has_value()) << chunk.error().message();
    return *chunk;
  }

  // Events come before the step's statistics: those of an engine that has come to rest.
  static EngineStats StatsAtRest(const EngineClient& client, int64_t num_ended) {
    const auto deadline = std::chrono::steady_clock::now() + kLong;
    while (true) {
      const EngineStats stats = client.Stats();
      if (stats.num_used_kv_blocks == 0 && stats.num_finished_stop + stats.num_finished_length +
                                                   stats.num_cancelled + stats.num_failed ==
                                               num_ended) {
        return stats;
      }
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "the engine does not come to rest";
        return stats;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  FakeModelHooks hooks_;
};

}  // namespace moebius::engine::testing
