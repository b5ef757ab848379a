// Requests and answers as lines of JSON: {"id", "prompt" | "messages" | "prompt_ids", sampling
// fields} in
// (or OpenAI's {"custom_id", "body"}), {"id", "text", "token_ids", "finish_reason", "usage", ...}
// out. Plain functions, any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "frontend/request.h"
#include "frontend/sampling_fields.h"

namespace moebius::app {

struct BatchLine {
  int number = 0;       // in the file, from 1
  std::string id_json;  // a string or a number as JSON; the line's number if it has none
  frontend::Prompt prompt;
  frontend::SamplingFields sampling;
};

// One line of a file; `where` is "file:line" and begins errors, which name the field: kCorrupt,
// kInvalidArgument. `prompt` becomes a conversation of one user message if `chat` is set.
Result<BatchLine> ParseBatchLine(std::string_view text, const std::string& where, int number);

// Every line that is not blank; no such line is an error. The first bad one is the error.
Result<std::vector<BatchLine>> ReadBatchFile(const std::string& path);

// The answer's line, without the line end; what cannot be encoded as UTF-8 is replaced.
std::string FormatAnswer(const BatchLine& line, const frontend::GenerateOutput& output);
std::string FormatFailure(const BatchLine& line, const Error& error);

}  // namespace moebius::app
