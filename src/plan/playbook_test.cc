#include "plan/playbook.h"

#include <gtest/gtest.h>

namespace moebius::plan {
namespace {

PlaybookQuestion DeepSeekR1(int64_t concurrency) {
  return {.concurrency = concurrency,
          .num_experts = 256,
          .top_k = 8,
          .num_heads = 128,
          .latent_attention = true};
}
PlaybookQuestion Qwen235B(int64_t concurrency) {
  return {.concurrency = concurrency, .num_experts = 128, .top_k = 8, .num_heads = 64};
}
PlaybookQuestion Maverick(int64_t concurrency) {
  return {.concurrency = concurrency, .num_experts = 128, .top_k = 1, .num_heads = 40};
}
PlaybookQuestion KimiK2(int64_t concurrency) {
  PlaybookQuestion question = DeepSeekR1(concurrency);
  question.num_experts = 384;
  question.num_heads = 64;
  return question;
}

// Its quick guide.
TEST(Playbook, QuickGuideRows) {
  for (const int64_t low : {1, 64, 128}) {
    EXPECT_EQ(AskPlaybook(DeepSeekR1(low)).text, "TP8+EP");
    EXPECT_EQ(AskPlaybook(Qwen235B(low)).text, "TP8+EP");
    EXPECT_EQ(AskPlaybook(Maverick(low)).text, "TP8");
  }
  for (const int64_t high : {512, 1024}) {
    EXPECT_EQ(AskPlaybook(DeepSeekR1(high)).text, "DP8+EP");
    EXPECT_EQ(AskPlaybook(Qwen235B(high)).text, "DP8+EP");
    EXPECT_EQ(AskPlaybook(Maverick(high)).text, "DP8");
  }
}

TEST(Playbook, OpenRangesAreSaidToBeOpen) {
  const PlaybookAnswer middle = AskPlaybook(Qwen235B(256));
  EXPECT_EQ(middle.parallel, PlaybookParallel::kTpOrDp);
  EXPECT_FALSE(middle.decided());
  EXPECT_EQ(middle.text, "TP8+EP or DP8+EP: the rules do not decide, measure");

  // 8 of 384 is 2.08 %: between the thresholds.
  const PlaybookAnswer kimi = AskPlaybook(KimiK2(64));
  EXPECT_EQ(kimi.expert_parallel, PlaybookEp::kUndecided);
  EXPECT_EQ(kimi.text, "TP8+EP or TP8: the rules do not decide, measure");
}

TEST(Playbook, LatentAttentionUnderDpTakesEpWhateverTheDensity) {
  const PlaybookAnswer kimi = AskPlaybook(KimiK2(1024));
  EXPECT_EQ(kimi.text, "DP8+EP");
  EXPECT_TRUE(kimi.decided());
  PlaybookQuestion sparse = KimiK2(1024);
  sparse.top_k = 1;
  EXPECT_EQ(AskPlaybook(sparse).text, "DP8+EP");
  sparse.concurrency = 64;
  EXPECT_EQ(AskPlaybook(sparse).text, "TP8");
  // Where TP or DP is open, EP is on for DP only.
  sparse.concurrency = 256;
  EXPECT_EQ(AskPlaybook(sparse).text, "TP8 or DP8+EP: the rules do not decide, measure");
}

TEST(Playbook, MemoryAndHeads) {
  PlaybookQuestion tight = Maverick(16);
  tight.memory_tight = true;
  // What the rules say to the load comes first, what they say to tight memory beside it.
  EXPECT_EQ(AskPlaybook(tight).text, "TP8");
  ASSERT_TRUE(AskPlaybook(tight).tight);
  EXPECT_EQ(ConfigName(*AskPlaybook(tight).tight), "DP8+EP");
  EXPECT_FALSE(AskPlaybook(Maverick(16)).tight);
  PlaybookQuestion middle = DeepSeekR1(256);
  middle.memory_tight = true;
  EXPECT_FALSE(AskPlaybook(middle).decided());
  PlaybookQuestion high = DeepSeekR1(1024);
  high.memory_tight = true;
  EXPECT_FALSE(AskPlaybook(high).tight);  // the answer in any case

  PlaybookQuestion heads = Qwen235B(16);
  heads.num_heads = 60;
  EXPECT_EQ(AskPlaybook(heads).parallel, PlaybookParallel::kDpOrPp);
  EXPECT_FALSE(AskPlaybook(heads).decided());

  PlaybookQuestion large = DeepSeekR1(16);
  large.num_gpus = 16;
  large.weights_fit_node = false;
  EXPECT_EQ(AskPlaybook(large).configs.front().pipeline_parallel_size, 2);
  EXPECT_EQ(AskPlaybook(large).configs.front().tensor_parallel_size, 8);
}

TEST(Playbook, FourQuestions) {
  EXPECT_EQ(AskPlaybook(DeepSeekR1(64)).steps.size(), 4u);
  EXPECT_NE(AskPlaybook(DeepSeekR1(64)).steps[1].found.find("3.12 %"), std::string::npos);
}

}  // namespace
}  // namespace moebius::plan
