#include "bench/load/request_body.h"

#include <nlohmann/json.hpp>

namespace moebius::load {

using nlohmann::ordered_json;

Result<std::string> RequestBody(const BodyOptions& options, const LoadRequest& request) {
  ordered_json body;
  body["model"] = options.model;
  if (options.chat) {
    if (!request.prompt_ids.empty()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "a chat takes no token ids: use --backend openai, or a data set of texts");
    }
    body["messages"] = request.messages.empty()
                           ? ordered_json::array({{{"role", "user"}, {"content", request.prompt}}})
                           : ordered_json::parse(request.messages);
    body["max_completion_tokens"] = request.output_len;
  } else {
    if (request.prompt_ids.empty()) {
      body["prompt"] = request.prompt;
    } else {
      body["prompt"] = request.prompt_ids;
    }
    body["max_tokens"] = request.output_len;
  }
  if (options.logprobs) {
    if (options.chat) {
      body["logprobs"] = true;
      body["top_logprobs"] = *options.logprobs;
    } else {
      body["logprobs"] = *options.logprobs;
    }
  }
  if (options.ignore_eos) body["ignore_eos"] = true;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (options.continuous_usage) body["stream_options"]["continuous_usage_stats"] = true;
  if (!options.extra_body.empty()) {
    const ordered_json extra = ordered_json::parse(options.extra_body, nullptr, false);
    if (!extra.is_object()) {
      return MakeError(ErrorCode::kInvalidArgument, "--extra-body is '{}', expected a JSON object",
                       options.extra_body);
    }
    for (const auto& [key, value] : extra.items()) body[key] = value;
  }
  return body.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace moebius::load
