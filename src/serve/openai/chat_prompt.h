// From a request's messages to a prompt: what a conversation may hold, how the chat template gets
// it, and how its text becomes token ids. Free functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "base/ids.h"
#include "serve/openai/api_call.h"
#include "serve/openai/api_result.h"
#include "serve/openai/json_body.h"

namespace moebius::serve {

struct ChatPrompt {
  std::vector<TokenId> tokens;
  std::string text;          // what was encoded
  std::string last_message;  // the last message's content if the answer belongs to the same role
  bool continues = false;    // the answer continues the last message
};

// Reads messages, tools, documents, reasoning_effort, chat_template_kwargs, add_generation_prompt
// and continue_final_message. 400 names what is wrong with them, or says what the template
// refused.
ApiResult<ChatPrompt> EncodeChat(const JsonBody& body, const ApiContext& context,
                                 bool add_special_tokens);

}  // namespace moebius::serve
