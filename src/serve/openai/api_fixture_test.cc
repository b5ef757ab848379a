#include "serve/openai/api_fixture_test.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "text/detokenizer.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

const std::filesystem::path kRoot = MOEBIUS_SOURCE_DIR;

std::unique_ptr<frontend::PromptEncoder> MakeEncoder(const std::filesystem::path& folder,
                                                     Result<text::ChatTemplate> chat_template) {
  auto tokenizer = text::Tokenizer::Load(folder);
  EXPECT_TRUE(tokenizer) << tokenizer.error().message();
  return std::make_unique<frontend::PromptEncoder>(*std::move(tokenizer), std::move(chat_template));
}

}  // namespace

std::unique_ptr<frontend::PromptEncoder> DemoEncoder() {
  return MakeEncoder(kRoot / "models/demo", text::ChatTemplate::Load(kRoot / "models/demo"));
}

std::unique_ptr<frontend::PromptEncoder> EncoderWith(const std::string& template_source) {
  return MakeEncoder(kRoot / "models/demo", text::ChatTemplate::FromSource(template_source));
}

std::unique_ptr<frontend::PromptEncoder> GoldenEncoder(const std::string& name,
                                                       const std::string& template_source) {
  return MakeEncoder(kRoot / "tests/golden/tokenizers" / name,
                     text::ChatTemplate::FromSource(template_source));
}

ApiContext ContextOf(const frontend::PromptEncoder& encoder) {
  ApiContext context;
  context.model_names = {"demo", "alias"};
  context.encoder = &encoder;
  context.limits.vocab_size = encoder.tokenizer()->vocab_size();
  context.limits.max_model_len = 512;
  context.limits.eos_token_ids = {2};
  return context;
}

frontend::GenerateOutput Answer(const frontend::PromptEncoder& encoder, const std::string& text,
                                int64_t num_prompt_tokens) {
  frontend::GenerateOutput output;
  output.text = text;
  output.token_ids = encoder.tokenizer()->Encode(text, false);
  output.finish = engine::FinishReason::kLength;
  output.usage.num_prompt_tokens = num_prompt_tokens;
  output.usage.num_output_tokens = static_cast<int64_t>(output.token_ids.size());
  return output;
}

std::vector<frontend::TokenLogprob> LogprobsOf(const frontend::PromptEncoder& encoder,
                                               const std::vector<TokenId>& tokens, int num_top) {
  std::vector<frontend::TokenLogprob> logprobs;
  const text::Tokenizer& tokenizer = *encoder.tokenizer();
  for (const TokenId token : tokens) {
    frontend::TokenLogprob& logprob = logprobs.emplace_back();
    logprob.token = token;
    logprob.bytes = tokenizer.TokenBytes(token);
    logprob.logprob = -0.5f;
    logprob.rank = 1;
    for (int k = 0; k < num_top; ++k) {
      logprob.top.push_back(
          {token + k, tokenizer.TokenBytes(token + k), -0.5f - static_cast<float>(k)});
    }
  }
  return logprobs;
}

std::string Stream(ApiCall& call, const frontend::PromptEncoder& encoder,
                   const frontend::GenerateOutput& answer) {
  std::vector<frontend::GenerateOutput> outputs(call.requests().size(), answer);
  std::string stream;
  for (size_t choice = 0; choice < outputs.size(); ++choice) {
    text::Detokenizer detokenizer(*encoder.tokenizer(), true);
    frontend::GenerateOutput so_far;
    so_far.prompt_logprobs = answer.prompt_logprobs;
    for (size_t i = 0; i < answer.token_ids.size(); ++i) {
      const size_t text_begin = so_far.text.size();
      const bool is_last = i + 1 == answer.token_ids.size();
      so_far.token_ids.push_back(answer.token_ids[i]);
      if (!answer.logprobs.empty()) so_far.logprobs.push_back(answer.logprobs[i]);
      so_far.text += detokenizer.Push(answer.token_ids[i]);
      if (is_last) so_far.text = answer.text;
      if (is_last) so_far.finish = answer.finish;
      const frontend::Delta delta{std::string_view(so_far.text).substr(text_begin),
                                  std::span(so_far.token_ids).last(1),
                                  {}};
      stream += call.OnDelta(choice, delta, so_far);
    }
    stream += call.OnFinish(choice, answer);
  }
  return stream + call.OnEnd(outputs);
}

std::vector<json> Events(const std::string& stream) {
  std::vector<json> events;
  bool is_done = false;
  for (size_t pos = 0; pos < stream.size();) {
    const size_t end = stream.find("\n\n", pos);
    EXPECT_NE(end, std::string::npos) << "an event without its end";
    if (end == std::string::npos) break;
    const std::string line = stream.substr(pos, end - pos);
    EXPECT_EQ(line.rfind("data: ", 0), 0u) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
    EXPECT_FALSE(is_done) << "after [DONE]: " << line;
    is_done = line == "data: [DONE]";
    if (!is_done) {
      const json event = json::parse(line.substr(6), nullptr, false);
      EXPECT_FALSE(event.is_discarded()) << line;
      events.push_back(event);
    }
    pos = end + 2;
  }
  EXPECT_TRUE(is_done);
  return events;
}

std::unique_ptr<ApiCall> Chat(const ApiContext& context, json body) {
  if (!body.contains("messages")) body["messages"] = {{{"role", "user"}, {"content", "Hi"}}};
  CallResult call = ParseChatCompletion(body.dump(), context, "");
  EXPECT_TRUE(call) << call.error().message;
  return call ? *std::move(call) : nullptr;
}

std::unique_ptr<ApiCall> Completion(const ApiContext& context, const json& body) {
  CallResult call = ParseCompletion(body.dump(), context, "");
  EXPECT_TRUE(call) << call.error().message;
  return call ? *std::move(call) : nullptr;
}

const std::vector<TokenId>& PromptIds(const ApiCall& call, size_t choice) {
  return std::get<std::vector<TokenId>>(call.requests()[choice].prompt);
}

ApiError ErrorOf(const CallResult& result) {
  EXPECT_FALSE(result);
  return result ? ApiError() : result.error();
}

}  // namespace moebius::serve
