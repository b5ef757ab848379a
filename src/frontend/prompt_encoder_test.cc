#include "frontend/prompt_encoder.h"

#include <gtest/gtest.h>

#include <limits>

#include "frontend/fake_engine_test.h"

namespace moebius::frontend {
namespace {

PromptEncoder Encoder(const std::string& chat_template) {
  return {MakeByteTokenizer(), text::ChatTemplate::FromSource(chat_template)};
}

engine::EngineLimits Limits() {
  engine::EngineLimits limits;
  limits.vocab_size = 257;
  limits.max_model_len = 8;
  return limits;
}

std::string ErrorOf(const PromptEncoder& encoder, const GenerateRequest& request) {
  const Status status = encoder.Check(request, Limits());
  return status ? "" : status.error().message();
}

TEST(PromptEncoder, ChecksWhatAnEngineWouldRefuse) {
  const PromptEncoder encoder = Encoder("[{{ messages[0].content }}]");
  GenerateRequest request;
  request.prompt = MakeConversation({{"user", "hi"}});
  EXPECT_EQ(ErrorOf(encoder, request), "");
  request.sampling.temperature = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(ErrorOf(encoder, request).find("temperature is nan"), std::string::npos);
  request.sampling = {};
  request.sampling.max_tokens = -3;
  EXPECT_NE(ErrorOf(encoder, request).find("max_tokens is -3"), std::string::npos);
  request.sampling = {};
  request.sampling.stop_token_ids = {257};
  EXPECT_NE(ErrorOf(encoder, request).find("stop_token_ids is 257"), std::string::npos);
  request.sampling = {};
  request.stop = {""};
  EXPECT_NE(ErrorOf(encoder, request).find("stop[0]"), std::string::npos);
  request.stop = {};
  request.prompt = std::vector<TokenId>{5, 257};
  EXPECT_NE(ErrorOf(encoder, request).find("prompt token 1 has id 257"), std::string::npos);
  request.prompt = MakeConversation({{"user", "123456"}});
  EXPECT_NE(ErrorOf(encoder, request).find("prompt has 8 tokens"), std::string::npos);
}

TEST(PromptEncoder, ABrokenTemplateIsKnownWithoutAConversation) {
  EXPECT_TRUE(Encoder("x").TemplateStatus());
  const PromptEncoder broken = Encoder("{% nonsense %}");
  EXPECT_TRUE(broken.has_chat_template());
  EXPECT_NE(broken.TemplateStatus().error().message().find("nonsense"), std::string::npos);
  const PromptEncoder none(MakeByteTokenizer(), MakeError(ErrorCode::kNotFound, "none"));
  EXPECT_FALSE(none.has_chat_template());
  EXPECT_EQ(none.TemplateStatus().error().code(), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace moebius::frontend
