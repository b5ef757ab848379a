// Prompts are computed in one of so many steps; decodes go on in the others.
#include <gtest/gtest.h>

#include <mutex>
#include <vector>

#include "engine/testing/engine_fixture.h"

namespace moebius::engine {
namespace {

using testing::EngineTest;
using testing::kLong;
using testing::SmallOptions;

class PrefillInterval : public EngineTest {
 protected:
  // A request that draws all the time, and prompts of several chunks that come meanwhile.
  std::vector<std::vector<TokenId>> RunMixed(int64_t interval, std::vector<StepRecord>* steps) {
    EngineOptions options = SmallOptions();
    options.prefill_interval = interval;
    options.max_num_batched_tokens = 12;
    options.enable_prefix_caching = false;
    std::mutex mutex;
    options.on_step = [&](const StepRecord& record) {
      const std::lock_guard lock(mutex);
      steps->push_back(record);
    };
    const auto client = Start(options);
    TokenStream first;
    EXPECT_TRUE(client->Submit(Make({1, 2, 3}, 60), first.Sink()));
    std::vector<TokenId> beginning = first.Next(kLong)->tokens;
    std::vector<TokenStream> others(3);
    for (size_t i = 0; i < others.size(); ++i) {
      std::vector<TokenId> prompt;
      for (int t = 0; t < 30; ++t) prompt.push_back(static_cast<TokenId>(t * 3 % 11 + 1));
      EXPECT_TRUE(client->Submit(Make(prompt, 2 + static_cast<int32_t>(i)), others[i].Sink()));
    }
    std::vector<std::vector<TokenId>> answers;
    for (TokenStream& stream : others) answers.push_back(stream.Collect(kLong)->tokens);
    const std::vector<TokenId> rest = first.Collect(kLong)->tokens;
    beginning.insert(beginning.end(), rest.begin(), rest.end());
    answers.push_back(beginning);
    return answers;
  }
};

TEST_F(PrefillInterval, KeepsTheOtherStepsShort) {
  hooks_.delay_ms = 1;
  std::vector<StepRecord> before;
  const auto expected = RunMixed(1, &before);
  std::vector<StepRecord> steps;
  EXPECT_EQ(RunMixed(4, &steps), expected);
  int num_mixed = 0;
  for (const StepRecord& step : steps) {
    // The last row of a prompt, alone, is as cheap as a drawn one.
    if (step.num_prefill_tokens <= 1 || step.num_decode_tokens == 0) continue;
    ++num_mixed;
    EXPECT_EQ(step.step_id % 4, 0) << step.num_prefill_tokens;
  }
  EXPECT_GE(num_mixed, 3);  // chunks of three prompts, three chunks each
  int num_elsewhere = 0;
  for (const StepRecord& step : before) {
    num_elsewhere +=
        step.num_prefill_tokens > 1 && step.num_decode_tokens > 0 && step.step_id % 4 != 0;
  }
  EXPECT_GT(num_elsewhere, 0);
}

}  // namespace
}  // namespace moebius::engine
