#include "frontend/generation.h"

#include <gtest/gtest.h>

#include "frontend/fake_engine_test.h"

namespace moebius::frontend {
namespace {

engine::LogprobEntry Entry(char token, float logprob, int32_t rank, char best) {
  return {token, logprob, rank, {best}, {-0.25f}};
}

TEST(Generation, LogprobsOfPromptAndOutputCarryTokensBytesAndRanks) {
  const auto tokenizer = MakeByteTokenizer();
  GenerateRequest request;
  Generation generation(tokenizer.get(), request);
  engine::TokenChunk chunk;
  chunk.tokens = Ids("c");
  chunk.prompt_logprobs = {Entry('b', -1.5f, 3, 'x'), Entry('a', -0.25f, 1, 'a')};
  chunk.logprobs = {Entry('c', -2.0f, 7, 'y')};
  const Delta delta = generation.Push(chunk);
  ASSERT_EQ(delta.logprobs.size(), 1u);
  EXPECT_EQ(delta.logprobs[0].token, 'c');
  EXPECT_EQ(delta.logprobs[0].rank, 7);
  EXPECT_EQ(delta.logprobs[0].top.at(0).bytes, "y");

  chunk = {};
  chunk.tokens = Ids("d");
  chunk.logprobs = {Entry('d', -1.0f, 2, 'z')};
  chunk.finish = engine::FinishReason::kLength;
  generation.Push(chunk);
  const GenerateOutput& output = generation.output();
  ASSERT_EQ(output.prompt_logprobs.size(), 2u);
  EXPECT_EQ(output.prompt_logprobs[0].token, 'b');
  EXPECT_EQ(output.prompt_logprobs[0].bytes, "b");
  EXPECT_EQ(output.prompt_logprobs[0].logprob, -1.5f);
  EXPECT_EQ(output.prompt_logprobs[0].rank, 3);
  ASSERT_EQ(output.prompt_logprobs[0].top.size(), 1u);
  EXPECT_EQ(output.prompt_logprobs[0].top[0].token, 'x');
  EXPECT_EQ(output.prompt_logprobs[0].top[0].logprob, -0.25f);
  EXPECT_EQ(output.prompt_logprobs[1].rank, 1);
  ASSERT_EQ(output.logprobs.size(), 2u);
  EXPECT_EQ(output.logprobs[1].rank, 2);
}

}  // namespace
}  // namespace moebius::frontend
