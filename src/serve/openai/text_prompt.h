// The field prompt of a completion: a text, a list of texts, of token ids, or of lists of token
// ids. Free functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "base/ids.h"
#include "serve/openai/api_call.h"
#include "serve/openai/api_result.h"
#include "serve/openai/json_body.h"

namespace moebius::serve {

struct TextPrompt {
  std::vector<TokenId> tokens;
  std::string text;  // as it came; decoded from ids if `want_text`
};

// 400 says what of the field is wrong.
ApiResult<std::vector<TextPrompt>> EncodePrompts(const JsonBody& body, const ApiContext& context,
                                                 bool add_special_tokens, bool want_text);

// A JSON list of token ids below the model's vocabulary; `param` names it.
ApiResult<std::vector<TokenId>> ReadTokenIds(const nlohmann::json& list, const ApiContext& context,
                                             const std::string& param);

}  // namespace moebius::serve
