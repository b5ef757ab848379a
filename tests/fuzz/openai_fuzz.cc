// Reads arbitrary bytes as requests of OpenAI's API: no crash, no hang; and whatever is answered,
// whole or streamed, errors included, is JSON. The first byte chooses the endpoint; the output that
// a request gets is made of the input's own bytes.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "frontend/prompt_encoder.h"
#include "serve/openai/api_call.h"

namespace {

using namespace moebius;         // NOLINT
using namespace moebius::serve;  // NOLINT

const std::string kRoot = MOEBIUS_SOURCE_DIR;

const ApiContext& Context() {
  static const frontend::PromptEncoder encoder = [] {
    std::ifstream file(kRoot + "/tests/golden/templates/qwen3_think.jinja");
    std::ostringstream source;
    source << file.rdbuf();
    return frontend::PromptEncoder(text::Tokenizer::Load(kRoot + "/models/demo").value(),
                                   text::ChatTemplate::FromSource(source.str()));
  }();
  static const ApiContext context = [] {
    ApiContext made;
    made.model_names = {"demo"};
    made.encoder = &encoder;
    made.limits.vocab_size = encoder.tokenizer()->vocab_size();
    made.limits.max_model_len = 512;
    made.reasoning_parser = "auto";
    made.max_choices = 8;
    return made;
  }();
  return context;
}

void CheckJson(std::string_view text) {
  if (nlohmann::json::accept(text)) return;
  std::fprintf(stderr, "not JSON: %.*s\n", static_cast<int>(text.size()), text.data());
  std::abort();
}

void CheckEvents(std::string_view stream) {
  while (!stream.empty()) {
    const size_t end = stream.find("\n\n");
    if (end == std::string_view::npos || !stream.starts_with("data: ")) std::abort();
    const std::string_view event = stream.substr(6, end - 6);
    if (event != "[DONE]") CheckJson(event);
    stream.remove_prefix(end + 2);
  }
}

std::vector<frontend::TokenLogprob> Logprobs(const std::vector<TokenId>& tokens, size_t begin,
                                             int num_top, const std::string& bytes) {
  std::vector<frontend::TokenLogprob> logprobs;
  for (size_t i = begin; num_top >= 0 && i < tokens.size(); ++i) {
    frontend::TokenLogprob& logprob = logprobs.emplace_back();
    logprob.token = tokens[i];
    logprob.bytes = bytes.substr(0, 9);
    for (int k = 0; k < num_top; ++k) logprob.top.push_back({k, bytes.substr(0, 3), -1.0f});
  }
  return logprobs;
}

// Says that every choice gave `said`, in two pieces.
void Answer(ApiCall& call, const std::string& said) {
  std::vector<frontend::GenerateOutput> outputs;
  for (const frontend::GenerateRequest& request : call.requests()) {
    frontend::GenerateOutput& output = outputs.emplace_back();
    output.text = said;
    output.token_ids = {5, 2};
    output.finish = engine::FinishReason::kStop;
    output.stop_token = 2;
    output.logprobs = Logprobs(output.token_ids, 0, request.sampling.num_logprobs, said);
    output.prompt_logprobs = Logprobs(std::get<std::vector<TokenId>>(request.prompt), 1,
                                      request.sampling.num_prompt_logprobs, said);
  }
  if (!call.is_stream()) return CheckJson(call.Body(outputs));
  for (size_t choice = 0; choice < outputs.size(); ++choice) {
    frontend::GenerateOutput first = outputs[choice];
    first.text.resize(said.size() / 2);
    first.token_ids.resize(1);
    if (!first.logprobs.empty()) first.logprobs.resize(1);
    first.finish = engine::FinishReason::kError;
    CheckEvents(call.OnDelta(choice, {first.text, first.token_ids, first.logprobs}, first));
    CheckEvents(call.OnFinish(choice, outputs[choice]));
  }
  CheckEvents(call.OnEnd(outputs));
}

void CheckBody(const BodyResult& body) { CheckJson(body ? *body : ErrorBody(body.error())); }

void CheckCall(const CallResult& call, const std::string& body) {
  if (!call) {
    CheckJson(ErrorBody(call.error()));
    if (call.error().status >= 500) std::abort();  // nothing that a client says is our fault
  } else {
    Answer(**call, body);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      CheckBody(Detokenize(body, Context()));
      break;
    case 1:
      CheckBody(Tokenize(body, Context()));
      break;
    case 2:
      CheckCall(ParseCompletion(body, Context(), ""), body);
      break;
    default:
      CheckCall(ParseChatCompletion(body, Context(), ""), body);
  }
  return 0;
}
