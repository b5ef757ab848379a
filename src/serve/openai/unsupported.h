// Fields that clients of vLLM and OpenAI know and this server cannot honour yet: refused by name,
// so that nobody takes a plain answer for a constrained one. Their neutral values pass.
#pragma once

#include "serve/openai/api_result.h"
#include "serve/openai/json_body.h"

namespace moebius::serve {

// 400 names the first field that asks for something unsupported.
ApiResult<void> CheckUnsupported(const JsonBody& body);

// The fields tools and tool_choice: 400 for what is wrong with them or asks for a call; tools with
// tool_choice "none" pass (the chat template may show them).
ApiResult<void> CheckTools(const JsonBody& body);

}  // namespace moebius::serve
