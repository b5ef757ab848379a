#include "serve/openai/call_fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <utility>

#include "engine/request.h"
#include "model/field_reader.h"
#include "serve/openai/unsupported.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

constexpr char kWhere[] = "request";
// Each is looked for at every byte, or every token, of the output.
constexpr size_t kMaxStops = 128;
constexpr size_t kMaxIdBytes = 256;
// Of all choices of a call together: each holds its own copy.
constexpr int64_t kMaxPromptTokens = int64_t{1} << 24;

// Reads one field with a FieldReader and says which one was wrong.
template <typename F>
auto ReadField(const JsonBody& body, const char* name, const F& read)
    -> ApiResult<decltype(read(std::declval<model::FieldReader&>()))> {
  model::FieldReader reader(body.fields(), kWhere);
  auto value = read(reader);
  if (!reader.status()) return tl::unexpected(RequestError(reader.status().error(), name));
  return value;
}

ApiResult<int64_t> IntField(const JsonBody& body, const char* name, int64_t fallback, int64_t min,
                            int64_t max) {
  return ReadField(body, name, [&](model::FieldReader& reader) {
    return reader.IntOr(name, fallback, min, max);
  });
}

// For chat a switch and a number, for completions one number: how many of the best to show, -1 for
// no log probabilities.
ApiResult<int32_t> NumLogprobs(const JsonBody& body, Endpoint endpoint, const ApiContext& context) {
  const int64_t most = context.max_logprobs;
  if (endpoint == Endpoint::kCompletion) {
    SERVE_ASSIGN(const int64_t logprobs, IntField(body, "logprobs", -1, 0, most));
    return static_cast<int32_t>(logprobs);
  }
  SERVE_ASSIGN(const bool wanted, BoolField(body, "logprobs", false));
  SERVE_ASSIGN(const int64_t top, IntField(body, "top_logprobs", 0, 0, most));
  if (top > 0 && !wanted) {
    return BadRequest("top_logprobs", "top_logprobs is {}, which needs logprobs to be true", top);
  }
  return wanted ? static_cast<int32_t>(top) : -1;
}

ApiResult<void> ReadStream(const JsonBody& body, CallFields& fields) {
  SERVE_ASSIGN(fields.stream, BoolField(body, "stream", false));
  if (!body.Has("stream_options")) return {};
  const json& options = body.fields()["stream_options"];
  if (!options.is_object()) {
    return BadRequest("stream_options", "stream_options is a JSON {}, expected an object",
                      options.type_name());
  }
  if (!fields.stream) {
    return BadRequest("stream_options", "stream_options is given, which needs stream to be true");
  }
  model::FieldReader reader(options, kWhere, "stream_options.");
  fields.include_usage = reader.BoolOr("include_usage", false);
  fields.continuous_usage = reader.BoolOr("continuous_usage_stats", false) && fields.include_usage;
  if (!reader.status()) {
    return tl::unexpected(RequestError(reader.status().error(), "stream_options"));
  }
  return {};
}

// The fields that carry vLLM's names of sampling parameters, as one object.
json SamplingObject(const JsonBody& body, Endpoint endpoint) {
  json object = json::object();
  for (const std::string& name : frontend::SamplingFieldNames()) {
    if (name == "logprobs" || name == "prompt_logprobs" || !body.Has(name.c_str())) continue;
    object[name] = body.fields()[name];
  }
  if (endpoint == Endpoint::kChat && body.Has("max_completion_tokens")) {
    object["max_tokens"] = body.fields()["max_completion_tokens"];
  }
  return object;
}

// The first field that is wrong by itself.
std::string WrongField(const json& object) {
  for (const auto& [name, value] : object.items()) {
    if (!frontend::ParseSamplingFields({{name, value}}, kWhere)) return name;
  }
  return "";
}

tl::unexpected<ApiError> TooMany(const char* name, size_t most) {
  return BadRequest(name, "{} is a list longer than {}", name, most);
}

ApiResult<void> ReadSampling(const JsonBody& body, Endpoint endpoint, const ApiContext& context,
                             CallFields& fields) {
  const json object = SamplingObject(body, endpoint);
  const auto parsed = frontend::ParseSamplingFields(object, kWhere);
  if (!parsed) return tl::unexpected(RequestError(parsed.error(), WrongField(object)));
  frontend::SamplingFields sampling = context.defaults;
  sampling.Override(*parsed);
  if (endpoint == Endpoint::kCompletion && !sampling.max_tokens) sampling.max_tokens = 16;
  if (parsed->cache_salt && parsed->cache_salt->empty()) {
    return BadRequest("cache_salt", "cache_salt is empty, expected a text, or null");
  }
  if (parsed->allowed_token_ids && parsed->allowed_token_ids->empty()) {
    return BadRequest("allowed_token_ids",
                      "allowed_token_ids is empty: there would be no token to draw");
  }
  const auto is_short = [](const auto& list, size_t most) { return !list || list->size() <= most; };
  if (!is_short(parsed->stop, kMaxStops)) return TooMany("stop", kMaxStops);
  if (!is_short(parsed->stop_token_ids, kMaxStops)) return TooMany("stop_token_ids", kMaxStops);
  const auto vocab_size = static_cast<size_t>(context.limits.vocab_size);
  if (!is_short(parsed->allowed_token_ids, vocab_size)) {
    return TooMany("allowed_token_ids", vocab_size);
  }
  sampling.Apply(fields.request);
  return {};
}

// Scoring: nothing is to be generated, but the engine ends a request by a token.
void HideOutput(CallFields& fields) {
  engine::SamplingParams& sampling = fields.request.sampling;
  if (!fields.echo || sampling.max_tokens != 0) return;
  fields.hide_output = true;
  sampling.max_tokens = 1;
  sampling.min_tokens = 0;
}

ApiResult<void> ReadLogprobs(const JsonBody& body, Endpoint endpoint, const ApiContext& context,
                             CallFields& fields) {
  SERVE_ASSIGN(fields.num_logprobs, NumLogprobs(body, endpoint, context));
  SERVE_ASSIGN(const int64_t prompt_logprobs,
               IntField(body, "prompt_logprobs", -1, 0, context.max_logprobs));
  fields.num_prompt_logprobs = static_cast<int32_t>(prompt_logprobs);
  if (fields.stream && fields.num_prompt_logprobs >= 0) {
    return BadRequest("prompt_logprobs", "prompt_logprobs is given, which a stream cannot carry");
  }
  engine::SamplingParams& sampling = fields.request.sampling;
  sampling.num_logprobs = fields.num_logprobs;
  sampling.num_prompt_logprobs = fields.num_prompt_logprobs;
  if (endpoint == Endpoint::kCompletion && fields.echo) {
    sampling.num_prompt_logprobs = std::max(sampling.num_prompt_logprobs, fields.num_logprobs);
  }
  return {};
}

ApiResult<void> ReadCount(const JsonBody& body, const ApiContext& context, CallFields& fields) {
  SERVE_ASSIGN(const int64_t n, IntField(body, "n", 1, 1, context.max_choices));
  fields.n = static_cast<int32_t>(n);
  SERVE_ASSIGN(const int64_t best_of,
               IntField(body, "best_of", n, 1, std::numeric_limits<int32_t>::max()));
  if (best_of != n) {
    return BadRequest("best_of", "best_of is {}, expected {}, as n: choosing is not supported yet",
                      best_of, n);
  }
  return {};
}

ApiResult<void> ReadTruncation(const JsonBody& body, CallFields& fields) {
  if (!body.Has("truncate_prompt_tokens")) return {};
  SERVE_ASSIGN(const int64_t count, IntField(body, "truncate_prompt_tokens", 0, -1,
                                             std::numeric_limits<int32_t>::max()));
  if (count == 0) {
    return BadRequest("truncate_prompt_tokens",
                      "truncate_prompt_tokens is 0, expected at least 1, or -1 for what fits");
  }
  fields.truncate_prompt_tokens = count;
  return {};
}

std::string RandomId() {
  // Unlike any other server's, and in turn: no two calls of this one share an id.
  static const std::string kPrefix = fmt::format("{:08x}{:08x}", std::random_device()(),
                                                 static_cast<uint32_t>(std::time(nullptr)));
  static std::atomic<uint64_t> next{0};
  return fmt::format("{}{:016x}", kPrefix, next++);
}

// What the field request_id says, else the request's id (the header's or made up), else one of our
// own.
ApiResult<std::string> MakeId(const JsonBody& body, Endpoint endpoint,
                              const std::string& request_id) {
  SERVE_ASSIGN(std::string id, ReadField(body, "request_id", [](model::FieldReader& reader) {
                 return reader.StringOr("request_id", "");
               }));
  if (id.empty()) id = request_id;
  if (id.size() > kMaxIdBytes) {
    return BadRequest("request_id", "request_id has {} bytes, expected at most {}", id.size(),
                      kMaxIdBytes);
  }
  if (id.empty()) id = RandomId();
  return (endpoint == Endpoint::kChat ? "chatcmpl-" : "cmpl-") + id;
}

ApiResult<void> ReadSwitches(const JsonBody& body, Endpoint endpoint, CallFields& fields) {
  const bool is_completion = endpoint == Endpoint::kCompletion;
  SERVE_ASSIGN(fields.echo, BoolField(body, "echo", false));
  SERVE_ASSIGN(fields.return_token_ids, BoolField(body, "return_token_ids", false));
  SERVE_ASSIGN(fields.tokens_as_token_ids, BoolField(body, "return_tokens_as_token_ids", false));
  SERVE_ASSIGN(fields.include_reasoning, BoolField(body, "include_reasoning", true));
  SERVE_ASSIGN(fields.add_special_tokens, BoolField(body, "add_special_tokens", is_completion));
  return {};
}

std::string NumPrompts(size_t count) {
  return fmt::format("{} prompt{}", count, count == 1 ? "" : "s");
}

}  // namespace

ApiResult<bool> BoolField(const JsonBody& body, const char* name, bool fallback) {
  const json& fields = body.fields();
  const auto field = fields.find(name);
  if (field != fields.end() && field->is_number() && *field != 0 && *field != 1) {
    return BadRequest(name, "{} is {}, expected true or false", name, field->dump());
  }
  return ReadField(body, name,
                   [&](model::FieldReader& reader) { return reader.BoolOr(name, fallback); });
}

ApiResult<void> CheckModel(const JsonBody& body, const ApiContext& context) {
  SERVE_ASSIGN(const std::string model, ReadField(body, "model", [](model::FieldReader& reader) {
                 return reader.StringOr("model", "");
               }));
  const std::vector<std::string>& names = context.model_names;
  if (model.empty() || std::find(names.begin(), names.end(), model) != names.end()) return {};
  ApiError error;
  error.status = 404;
  error.message = fmt::format("the model '{}' does not exist here; this server has {}",
                              model.substr(0, kMaxIdBytes), fmt::join(names, ", "));
  error.param = "model";
  return tl::unexpected(std::move(error));
}

ApiResult<CallFields> ParseCallFields(const JsonBody& body, Endpoint endpoint,
                                      const ApiContext& context, const std::string& request_id) {
  SERVE_TRY(CheckModel(body, context));
  SERVE_TRY(CheckUnsupported(body));
  CallFields fields;
  SERVE_ASSIGN(fields.id, MakeId(body, endpoint, request_id));
  if (!context.model_names.empty()) fields.model = context.model_names.front();
  fields.created = static_cast<int64_t>(std::time(nullptr));
  SERVE_TRY(ReadStream(body, fields));
  SERVE_TRY(ReadCount(body, context, fields));
  SERVE_TRY(ReadSwitches(body, endpoint, fields));
  SERVE_TRY(ReadTruncation(body, fields));
  SERVE_TRY(ReadSampling(body, endpoint, context, fields));
  SERVE_TRY(ReadLogprobs(body, endpoint, context, fields));
  if (endpoint == Endpoint::kCompletion) HideOutput(fields);
  return fields;
}

ApiResult<void> FitPrompt(const CallFields& fields, const ApiContext& context, const char* param,
                          std::vector<TokenId>& prompt) {
  const int64_t limit = context.limits.max_model_len;
  const int64_t max_tokens = fields.request.sampling.max_tokens.value_or(0);
  if (fields.truncate_prompt_tokens) {
    int64_t keep = *fields.truncate_prompt_tokens;
    if (keep < 0) keep = std::max<int64_t>(1, limit - std::max<int64_t>(1, max_tokens));
    const int64_t excess = static_cast<int64_t>(prompt.size()) - keep;
    if (excess > 0) prompt.erase(prompt.begin(), prompt.begin() + excess);
  }
  const auto num_tokens = static_cast<int64_t>(prompt.size());
  if (num_tokens >= limit) {
    return BadRequest(param,
                      "the model's maximum context length is {} tokens; the prompt has {} tokens, "
                      "which leaves no room for output",
                      limit, num_tokens);
  }
  if (max_tokens > limit - num_tokens) {
    return BadRequest("max_tokens",
                      "the model's maximum context length is {} tokens; {} are requested: {} in "
                      "the prompt and {} for the output",
                      limit, num_tokens + max_tokens, num_tokens, max_tokens);
  }
  return {};
}

ApiResult<std::vector<frontend::GenerateRequest>> MakeRequests(
    const CallFields& fields, const ApiContext& context,
    std::vector<std::vector<TokenId>> prompts) {
  const int64_t count = static_cast<int64_t>(prompts.size()) * fields.n;
  if (count > context.max_choices) {
    return BadRequest("n", "{} with n = {} are {} choices, expected at most {}",
                      NumPrompts(prompts.size()), fields.n, count, context.max_choices);
  }
  // All are handed over before the first begins.
  if (count > context.limits.max_num_waiting) {
    return BadRequest("n",
                      "{} with n = {} are {} choices, but no more than {} may wait for the engine "
                      "(--max-num-waiting)",
                      NumPrompts(prompts.size()), fields.n, count, context.limits.max_num_waiting);
  }
  int64_t num_tokens = 0;
  for (const auto& prompt : prompts) num_tokens += static_cast<int64_t>(prompt.size());
  if (num_tokens * fields.n > kMaxPromptTokens) {
    return BadRequest("n", "the prompts have {} tokens, with n = {}, {}, expected at most {}",
                      num_tokens, fields.n, num_tokens * fields.n, kMaxPromptTokens);
  }
  std::vector<frontend::GenerateRequest> requests;
  requests.reserve(static_cast<size_t>(count));
  for (std::vector<TokenId>& prompt : prompts) {
    frontend::GenerateRequest request = fields.request;
    request.prompt = std::move(prompt);
    if (const Status status = context.encoder->Check(request, context.limits); !status) {
      return tl::unexpected(RequestError(status.error()));
    }
    for (int32_t i = 0; i < fields.n; ++i) {
      requests.push_back(request);
      // Choices of one seed differ from each other, and are the same in every call.
      auto& seed = requests.back().sampling.seed;
      if (seed) *seed += static_cast<uint64_t>(i);
    }
  }
  return requests;
}

}  // namespace moebius::serve
