// The scheduler through random lives, against each request alone.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <random>

#include "engine/testing/scheduler_harness.h"

namespace moebius::engine {
namespace {

using testing::Harness;
using testing::MakeRequest;
using testing::SmallConfig;

// Random lives: arrivals, lengths, shared prefixes, cancellations, failures, plans taken back, few
// blocks. Outputs must equal those of a request alone, whatever happened around it.
struct Weather {
  uint32_t seed;
  int depth;
  bool prefix_caching;
  int64_t num_blocks;
  int64_t budget;
  int num_micro_batches = 1;
};

class SchedulerProperty : public ::testing::TestWithParam<Weather> {};

// Words that the request would say if they were not bad.
void AddBadWords(std::mt19937& random, int64_t max_model_len, RequestInput* input) {
  const std::vector<TokenId> said =
      testing::ExpectedAnswer(*input, testing::kVocabSize, max_model_len, {testing::kEos}).tokens;
  for (uint32_t i = 0; i <= random() % 3; ++i) {
    const size_t size = std::min<size_t>(said.size(), 1 + random() % 3);
    const auto begin = said.begin() + static_cast<int64_t>(random() % (said.size() - size + 1));
    input->sampling.bad_words.emplace_back(begin, begin + static_cast<int64_t>(size));
  }
}

RequestInput RandomRequest(std::mt19937& random, int64_t max_model_len) {
  // Few distinct beginnings, so that prefixes are shared and diverge inside and between blocks.
  const size_t num_tokens = 1 + random() % (random() % 5 == 0 ? 56 : 20);
  std::vector<TokenId> prompt(num_tokens);
  const uint32_t family = random() % 3;
  // Some begin with what others hold in a later block: the same tokens, but other KV.
  const uint32_t shift = random() % 3 == 0 ? 4 * (random() % 4) : 0;
  for (size_t i = 0; i < num_tokens; ++i) {
    prompt[i] = static_cast<TokenId>((family * 7 + (i + shift) * 5) % 19);
  }
  if (random() % 2 == 0) prompt[random() % num_tokens] = static_cast<TokenId>(random() % 50);
  RequestInput input =
      MakeRequest(std::move(prompt), static_cast<int32_t>(1 + random() % 40), random() % 4);
  if (random() % 3 == 0) input.sampling.max_tokens.reset();
  input.sampling.ignore_eos = random() % 3 == 0;
  if (random() % 4 == 0) input.sampling.stop_token_ids = {3, 11};
  if (random() % 4 == 0) {
    input.sampling.min_tokens = static_cast<int32_t>(
        random() % static_cast<uint32_t>(input.sampling.max_tokens.value_or(6)));
  }
  if (random() % 6 == 0) input.cache_salt = "salt";
  if (random() % 4 == 0) {
    input.sampling.num_prompt_logprobs = static_cast<int32_t>(random() % 3);
  }
  if (random() % 8 == 0) {
    for (TokenId token = 1; token < 50; token += 2)
      input.sampling.allowed_token_ids.push_back(token);
  }
  if (random() % 4 == 0) AddBadWords(random, max_model_len, &input);
  if (random() % 8 == 0) input.priority = static_cast<int32_t>(random() % 3) - 1;
  EXPECT_LT(static_cast<int64_t>(input.prompt.size()), max_model_len);
  return input;
}

TEST_P(SchedulerProperty, OutputsAreThoseOfARequestAlone) {
  const Weather weather = GetParam();
  SchedulerConfig config = SmallConfig();
  config.num_blocks = weather.num_blocks;
  config.max_num_batched_tokens = weather.budget;
  config.enable_prefix_caching = weather.prefix_caching;
  config.num_micro_batches = weather.num_micro_batches;
  Harness harness(config, weather.depth, weather.seed);
  harness.set_take_back(weather.seed % 2 == 1);
  if (weather.num_micro_batches > 1) harness.set_prefill_interval(1 + weather.seed % 4);
  std::mt19937 random(weather.seed);
  std::vector<RequestId> ids;
  int64_t num_failures = 0;
  for (int step = 0; step < 3000; ++step) {
    // Bursts, then lulls, so that both a full queue and an idle engine occur.
    const bool is_burst = step / 200 % 2 == 0;
    if (random() % (is_burst ? 3 : 40) == 0) {
      ids.push_back(harness.Add(RandomRequest(random, config.max_model_len)));
    }
    if (!ids.empty() && random() % 25 == 0) {
      const RequestId id = ids[random() % ids.size()];
      if (!harness.records()[id].finish) harness.Cancel(id);
    }
    if (harness.scheduler().num_steps_in_flight() > 0 && random() % 300 == 0) {
      harness.FailStep();
      ++num_failures;
    }
    harness.Step();
    if (HasFailure()) return;
  }
  const int64_t num_left = harness.scheduler().num_requests();
  harness.RunToEnd((num_left + 1) * config.max_model_len * 3);
  const EngineStats stats = harness.scheduler().Stats();
  int64_t num_whole = 0;
  for (const auto& [id, record] : harness.records()) {
    num_whole += !record.was_cancelled && !record.error ? 1 : 0;
  }
  EXPECT_GT(num_whole, 100);
  if (weather.num_blocks < 40) {
    EXPECT_GT(stats.num_preemptions, 0);
  }
  if (weather.prefix_caching) {
    EXPECT_GT(stats.num_cached_tokens, 0);
  } else {
    EXPECT_EQ(stats.num_cached_tokens, 0);
  }
  // Of disjoint plans only a request that was cancelled has a row that nobody wants.
  if (weather.depth >= 2 && weather.num_micro_batches == 1) {
    EXPECT_GT(stats.num_dropped_tokens, 0);
  }
  if (weather.depth >= 2) {
    EXPECT_GT(num_failures, 0);
  }
}

std::vector<Weather> AllWeathers() {
  std::vector<Weather> all;
  uint32_t seed = 1;
  for (const int depth : {1, 2}) {
    for (const bool caching : {true, false}) {
      for (const int64_t num_blocks : {16, 24, 128}) {
        for (const int64_t budget : {8, 64})
          all.push_back({seed++, depth, caching, num_blocks, budget});
      }
    }
  }
  for (const int stages : {2, 3, 5}) {
    for (const int64_t num_blocks : {16, 128}) {
      for (const int64_t budget : {8, 64}) {
        all.push_back({seed++, stages, num_blocks == 128, num_blocks, budget, stages});
      }
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, SchedulerProperty, ::testing::ValuesIn(AllWeathers()),
                         [](const auto& info) {
                           const Weather& w = info.param;
                           return fmt::format("depth{}_{}_blocks{}_budget{}{}", w.depth,
                                              w.prefix_caching ? "cached" : "uncached",
                                              w.num_blocks, w.budget,
                                              w.num_micro_batches > 1 ? "_disjoint" : "");
                         });

}  // namespace
}  // namespace moebius::engine
