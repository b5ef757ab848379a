// For tests of this folder: the demo model's tokenizer and chat template, and answers as an engine
// would have given them.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "frontend/prompt_encoder.h"
#include "serve/openai/api_call.h"

namespace moebius::serve {

// The demo's tokenizer with its own template or another one.
std::unique_ptr<frontend::PromptEncoder> DemoEncoder();
std::unique_ptr<frontend::PromptEncoder> EncoderWith(const std::string& template_source);
// A tokenizer of tests/golden/tokenizers.
std::unique_ptr<frontend::PromptEncoder> GoldenEncoder(const std::string& name,
                                                       const std::string& template_source);

ApiContext ContextOf(const frontend::PromptEncoder& encoder);

// An answer that says `text` and ends; its tokens are those of the encoder's tokenizer.
frontend::GenerateOutput Answer(const frontend::PromptEncoder& encoder, const std::string& text,
                                int64_t num_prompt_tokens = 0);

// A log probability of each token with the `num_top` best: the token itself, and its neighbours by
// id.
std::vector<frontend::TokenLogprob> LogprobsOf(const frontend::PromptEncoder& encoder,
                                               const std::vector<TokenId>& tokens, int num_top);

// Plays an answer to a stream token by token, each with its text; returns all that came, ending
// included.
std::string Stream(ApiCall& call, const frontend::PromptEncoder& encoder,
                   const frontend::GenerateOutput& answer);

// The events of a stream; [DONE] is checked and left out.
std::vector<nlohmann::json> Events(const std::string& stream);

// Calls that must parse.
std::unique_ptr<ApiCall> Chat(const ApiContext& context, nlohmann::json body);
std::unique_ptr<ApiCall> Completion(const ApiContext& context, const nlohmann::json& body);
const std::vector<TokenId>& PromptIds(const ApiCall& call, size_t choice = 0);

// The error of a call that must fail.
ApiError ErrorOf(const CallResult& result);

}  // namespace moebius::serve
