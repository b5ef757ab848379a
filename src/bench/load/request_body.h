// The JSON body of one request to an OpenAI-compatible server. Plain function, any thread.
#pragma once

#include <optional>
#include <string>

#include "base/result.h"
#include "bench/load/dataset.h"

namespace moebius::load {

struct BodyOptions {
  bool chat = false;  // /v1/chat/completions, else /v1/completions
  std::string model;
  bool ignore_eos = false;
  bool continuous_usage = false;  // ask for usage with every chunk
  std::optional<int> logprobs;
  std::string extra_body;  // a JSON object whose members come last and win; empty: none
};

// kInvalidArgument: --extra-body is no JSON object, or a chat was given token ids.
Result<std::string> RequestBody(const BodyOptions& options, const LoadRequest& request);

}  // namespace moebius::load
