// One OpenAI call, understood: what to generate and how to say what came. The server runs the
// requests; this knows the words. Made on a text thread; afterwards one thread at a time.
//
// Choices are numbered prompt by prompt: choice = prompt * n + i. Each is one GenerateRequest.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"
#include "frontend/prompt_encoder.h"
#include "frontend/request.h"
#include "frontend/sampling_fields.h"

namespace moebius::serve {

// An error as OpenAI's clients read it.
struct ApiError {
  int status = 400;
  std::string message;
  std::string param;                 // the field, or empty: null
  std::string type;                  // empty: by status (BadRequestError, NotFoundError ...)
  std::optional<int> retry_after_s;  // 429 and 503
};
std::string ErrorBody(const ApiError& error);  // {"error": {"message", "type", "param", "code"}}
ApiError ToApiError(const Error& error);       // by the error's code

// What a call is judged by: the same for all calls of one server, and outlives them.
struct ApiContext {
  std::vector<std::string> model_names;  // the first one is echoed
  const frontend::PromptEncoder* encoder = nullptr;
  engine::EngineLimits limits;
  frontend::SamplingFields defaults;  // of the model's folder and the server's flags
  int32_t max_logprobs = 20;
  std::string reasoning_parser;  // "": none; "auto", or a name: text up to </think> is reasoning
  int64_t max_choices = 1024;    // of one call: prompts * n
};

class ApiCall {
 public:
  virtual ~ApiCall() = default;

  // One a choice; prompts are encoded already (token ids).
  virtual const std::vector<frontend::GenerateRequest>& requests() const = 0;
  virtual bool is_stream() const = 0;
  virtual const std::string& id() const = 0;  // chatcmpl-..., cmpl-...
  virtual int64_t n() const = 0;              // choices a prompt

  // Streamed: server-sent events for what is new of a choice, maybe none. `output` is what came so
  // far; of log probabilities, the delta's are enough. The role chunk comes with the first delta.
  // The delta that ends a choice (finish is kStop or kLength) is kept for OnFinish, which must
  // follow: its text and its end are one chunk.
  virtual std::string OnDelta(size_t choice, const frontend::Delta& delta,
                              const frontend::GenerateOutput& output) = 0;
  // The choice has ended (finish is not kError): its last chunk.
  virtual std::string OnFinish(size_t choice, const frontend::GenerateOutput& output) = 0;
  // All have: usage if asked for, and [DONE].
  virtual std::string OnEnd(std::span<const frontend::GenerateOutput> outputs) = 0;
  // Something failed when the stream had begun: the error event and [DONE].
  virtual std::string OnError(const ApiError& error) = 0;

  // Not streamed: the whole answer.
  virtual std::string Body(std::span<const frontend::GenerateOutput> outputs) = 0;
};

// From a request's body (at most kMaxJsonDepth deep) to a call. Encodes prompts: not for the
// engine's or an HTTP thread. `request_id`: what X-Request-Id said, or empty.
using CallResult = tl::expected<std::unique_ptr<ApiCall>, ApiError>;
constexpr int kMaxJsonDepth = 64;
CallResult ParseChatCompletion(std::string_view body, const ApiContext& context,
                               const std::string& request_id);
CallResult ParseCompletion(std::string_view body, const ApiContext& context,
                           const std::string& request_id);

// The calls that need no engine: the whole answer.
using BodyResult = tl::expected<std::string, ApiError>;
BodyResult Tokenize(std::string_view body, const ApiContext& context);
BodyResult Detokenize(std::string_view body, const ApiContext& context);
BodyResult TokenizerInfo(const ApiContext& context);
std::string Models(const ApiContext& context, const std::string& root, int64_t created);
BodyResult Model(std::string_view name, const ApiContext& context, const std::string& root,
                 int64_t created);

}  // namespace moebius::serve
