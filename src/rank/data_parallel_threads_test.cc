// Two and more real engines, with their threads, over a model of hashes: what comes out is what one
// engine says, whoever submits and cancels at the same time.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "engine/engine.h"
#include "engine/testing/engine_fixture.h"
#include "rank/data_parallel_client.h"

namespace moebius::rank {
namespace {

using engine::EngineOptions;
using engine::FinishReason;
using engine::RequestId;
using engine::RequestInput;
using engine::TokenStream;
using engine::testing::kFakeVocabSize;
using engine::testing::kLong;
using engine::testing::SmallOptions;

class DataParallelThreads : public engine::testing::EngineTest {
 protected:
  std::unique_ptr<DataParallelClient> StartRanks(int num_ranks, const EngineOptions& options) {
    std::vector<std::unique_ptr<engine::EngineClient>> engines;
    for (int i = 0; i < num_ranks; ++i) engines.push_back(Start(options));
    auto client =
        DataParallelClient::Create(std::move(engines), {.block_size = options.block_size});
    if (!client) CheckFailed(__FILE__, __LINE__, client.error().message());
    return std::move(*client);
  }

  static RequestInput Random(std::mt19937& random) {
    RequestInput input;
    const uint32_t family = random() % 3;
    for (uint32_t i = 0, size = 1 + random() % 40; i < size; ++i) {
      input.prompt.push_back(
          static_cast<TokenId>((i < 12 ? family * 12 + i : random()) % kFakeVocabSize));
    }
    input.sampling.max_tokens = static_cast<int32_t>(1 + random() % 15);
    input.sampling.temperature = 1.0f;
    input.sampling.seed = random();
    return input;
  }
};

TEST_F(DataParallelThreads, ManySubmitAndCancelAtOnce) {
  constexpr int kNumRanks = 3;
  constexpr int kNumThreads = 4;
  constexpr int kNumRequests = 60;  // a thread
  EngineOptions options = SmallOptions();
  options.max_num_waiting = 2;  // ranks refuse now and then
  const auto client = StartRanks(kNumRanks, options);
  std::vector<RequestInput> inputs;
  std::vector<std::vector<TokenId>> answers;
  {
    const auto one = Start();
    std::mt19937 random(9);
    for (int i = 0; i < 50; ++i) {
      inputs.push_back(Random(random));
      answers.push_back(Run(*one, inputs.back()).tokens);
    }
  }
  std::atomic<int> num_whole{0};
  std::atomic<int> num_refused{0};
  const auto work = [&](uint32_t seed) {
    std::mt19937 random(seed);
    struct Request {
      size_t which = 0;
      TokenStream stream;
      RequestId id;
      bool is_cancelled = false;
    };
    std::vector<Request> requests;
    const auto collect = [&] {
      for (Request& request : requests) {
        const auto chunk = request.stream.Collect(kLong);
        ASSERT_TRUE(chunk.has_value()) << chunk.error().message();
        const std::vector<TokenId>& expected = answers[request.which];
        if (chunk->finish == FinishReason::kCancelled) {
          EXPECT_TRUE(request.is_cancelled);
          ASSERT_LE(chunk->tokens.size(), expected.size());
          EXPECT_TRUE(std::equal(chunk->tokens.begin(), chunk->tokens.end(), expected.begin()));
        } else {
          ++num_whole;
          EXPECT_EQ(chunk->tokens, expected);
        }
      }
      requests.clear();
    };
    for (int i = 0; i < kNumRequests; ++i) {
      Request request;
      request.which = random() % inputs.size();
      RequestInput input = inputs[request.which];
      if (random() % 8 == 0) input.data_parallel_rank = static_cast<int>(random() % kNumRanks);
      const auto id = client->Submit(std::move(input), request.stream.Sink());
      if (id) {
        request.id = *id;
        requests.push_back(std::move(request));
      } else {
        EXPECT_EQ(id.error().code(), ErrorCode::kUnavailable) << id.error().message();
        ++num_refused;
      }
      if (!requests.empty() && random() % 4 == 0) {
        Request& victim = requests[random() % requests.size()];
        victim.is_cancelled = true;
        client->Cancel(victim.id);
      }
      if (random() % 16 == 0) {
        EXPECT_EQ(client->RankStats().size(), 3U);
        EXPECT_TRUE(client->Health().has_value());
      }
      if (random() % 12 == 0) collect();
    }
    collect();
  };
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < kNumThreads; ++i) threads.emplace_back(work, i + 1);
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(num_whole, 0);
  EXPECT_EQ(client->Backlogs(), std::vector<RankBacklog>(kNumRanks));
  StatsAtRest(*client, kNumThreads * kNumRequests - num_refused);
  for (const engine::EngineStats& stats : client->RankStats()) {
    EXPECT_GT(stats.num_output_tokens, 0);
  }
}

TEST_F(DataParallelThreads, RanksThatEndTakeTheirRequestsAlong) {
  hooks_.delay_ms = 50;
  auto client = StartRanks(2, SmallOptions());
  std::vector<TokenStream> streams(20);
  for (const TokenStream& stream : streams) {
    ASSERT_TRUE(client->Submit(Make({1, 2, 3}, 40), stream.Sink()).has_value());
  }
  client.reset();
  for (TokenStream& stream : streams) {
    EXPECT_EQ(stream.Collect(kLong)->finish, FinishReason::kCancelled);
  }
}

// The rank that died is passed over; the client says which it is.
TEST_F(DataParallelThreads, DeadRankIsNamed) {
  const auto client = StartRanks(2, SmallOptions());
  hooks_.num_failures = engine::kMaxFailuresInARow;
  while (client->Health()) {
    auto input = Make({1, 2, 3}, 4);
    input.data_parallel_rank = 1;
    const TokenStream stream;
    ASSERT_TRUE(client->Submit(input, stream.Sink()).has_value());
    ASSERT_TRUE(TokenStream(stream).Collect(kLong)->finish.has_value());
  }
  EXPECT_EQ(client->Health().error().message().substr(0, 21), "data-parallel rank 1:");
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Run(*client, Make({1, 2, 3}, 4)).tokens.size(), 4U);
  EXPECT_EQ(client->RankStats()[1].num_finished_length, 0);
}

}  // namespace
}  // namespace moebius::rank
