// What the two endpoints that generate have in common: the fields of a request other than its
// prompt, read and judged. Plain values; made once a request, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "frontend/request.h"
#include "serve/openai/api_call.h"
#include "serve/openai/api_result.h"
#include "serve/openai/json_body.h"

namespace moebius::serve {

enum class Endpoint { kChat, kCompletion };

struct CallFields {
  frontend::GenerateRequest request;  // all but its prompt
  std::string id;                     // chatcmpl-..., cmpl-...
  std::string model;                  // as answers name it
  int64_t created = 0;                // seconds since 1970
  int32_t n = 1;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool echo = false;
  bool hide_output = false;   // max_tokens 0: the one token that the engine draws is not shown
  int32_t num_logprobs = -1;  // shown with each token: -1 none, else the best so many
  int32_t num_prompt_logprobs = -1;  // of the field prompt_logprobs
  bool return_token_ids = false;
  bool tokens_as_token_ids = false;  // "token_id:5" instead of a token's text
  bool include_reasoning = true;
  bool add_special_tokens = true;
  std::optional<int64_t> truncate_prompt_tokens;
};

// Reads the fields, known ones that cannot be honoured included.
ApiResult<CallFields> ParseCallFields(const JsonBody& body, Endpoint endpoint,
                                      const ApiContext& context, const std::string& request_id);

// 404 unless the field `model` is absent, empty or a name of this server.
ApiResult<void> CheckModel(const JsonBody& body, const ApiContext& context);

// A field that is true or false; `fallback` where it is absent or null.
ApiResult<bool> BoolField(const JsonBody& body, const char* name, bool fallback);

// Cuts a prompt as truncate_prompt_tokens says (its end stays), and checks that it and the output
// asked for fit the model.
ApiResult<void> FitPrompt(const CallFields& fields, const ApiContext& context, const char* param,
                          std::vector<TokenId>& prompt);

// One request a choice, prompt by prompt; checks what the engine would refuse.
ApiResult<std::vector<frontend::GenerateRequest>> MakeRequests(
    const CallFields& fields, const ApiContext& context, std::vector<std::vector<TokenId>> prompts);

}  // namespace moebius::serve
