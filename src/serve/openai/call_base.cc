#include "serve/openai/call_base.h"

#include <algorithm>
#include <utility>

#include "serve/openai/json_text.h"

namespace moebius::serve {
namespace {

using engine::FinishReason;
using frontend::GenerateOutput;

constexpr char kDone[] = "data: [DONE]\n\n";

const char* FinishName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "\"stop\"";
    case FinishReason::kLength:
      return "\"length\"";
    case FinishReason::kCancelled:
      return "\"abort\"";
    case FinishReason::kError:
      break;
  }
  return "\"error\"";
}

void AppendCounts(std::string& out, int64_t prompt, int64_t completion, int64_t cached,
                  int64_t reasoning) {
  out += R"("usage":{"prompt_tokens":)";
  AppendInt(out, prompt);
  out += R"(,"total_tokens":)";
  AppendInt(out, prompt + completion);
  out += R"(,"completion_tokens":)";
  AppendInt(out, completion);
  out += R"(,"prompt_tokens_details":{"cached_tokens":)";
  AppendInt(out, cached);
  out += '}';
  if (reasoning >= 0) {
    out += R"(,"completion_tokens_details":{"reasoning_tokens":)";
    AppendInt(out, reasoning);
    out += '}';
  }
  out += '}';
}

std::string Head(const char* object, const CallFields& fields) {
  std::string head = R"({"id":)";
  AppendJsonString(head, fields.id);
  head += R"(,"object":")";
  head += object;
  head += R"(","created":)";
  AppendInt(head, fields.created);
  head += R"(,"model":)";
  AppendJsonString(head, fields.model);
  head += R"(,"choices":[)";
  return head;
}

}  // namespace

CallBase::CallBase(CallFields fields, std::vector<frontend::GenerateRequest> requests,
                   const ApiContext& context)
    : fields_(std::move(fields)),
      requests_(std::move(requests)),
      context_(&context),
      said_(requests_.size()) {}

const std::vector<TokenId>& CallBase::prompt_tokens(size_t choice) const {
  return std::get<std::vector<TokenId>>(requests_[choice].prompt);
}

News CallBase::Take(size_t choice, const GenerateOutput& output, bool is_last) {
  Said& said = said_[choice];
  News news;
  news.is_first = !std::exchange(said.anything, true);
  news.is_last = is_last;
  if (fields_.hide_output) return news;
  news.text = std::string_view(output.text).substr(said.text);
  news.tokens = std::span(output.token_ids).subspan(said.tokens);
  // A stream's output keeps no more of them than those.
  const size_t num_logprobs = std::min(news.tokens.size(), output.logprobs.size());
  news.logprobs = std::span(output.logprobs).last(num_logprobs);
  said.text = output.text.size();
  said.tokens = output.token_ids.size();
  return news;
}

std::string CallBase::OnDelta(size_t choice, const frontend::Delta& delta,
                              const GenerateOutput& output) {
  // What ends now is said with its end, in one chunk: a chunk is a sign of a token, for clients
  // that measure.
  const bool ends = output.finish == FinishReason::kStop || output.finish == FinishReason::kLength;
  std::string out;
  if (ends || fields_.hide_output || (delta.text.empty() && delta.tokens.empty())) return out;
  AppendChunks(out, choice, Take(choice, output, false), output);
  return out;
}

std::string CallBase::OnFinish(size_t choice, const GenerateOutput& output) {
  std::string out;
  AppendChunks(out, choice, Take(choice, output, true), output);
  return out;
}

std::string CallBase::OnEnd(std::span<const GenerateOutput> outputs) {
  std::string out;
  if (fields_.include_usage) {
    BeginChunk(out);
    out += "],";
    AppendUsage(out, outputs);
    out += "}\n\n";
  }
  return out += kDone;
}

std::string CallBase::OnError(const ApiError& error) {
  return "data: " + ErrorBody(error) + "\n\n" + kDone;
}

std::string CallBase::Body(std::span<const GenerateOutput> outputs) {
  std::string out = Head(ObjectName(false), fields_);
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (i > 0) out += ',';
    AppendChoice(out, i, Take(i, outputs[i], true), outputs[i]);
  }
  out += "],";
  AppendUsage(out, outputs);
  AppendExtras(out, outputs);
  out += '}';
  return out;
}

void CallBase::BeginChunk(std::string& out) const {
  if (chunk_head_.empty()) chunk_head_ = "data: " + Head(ObjectName(true), fields_);
  out += chunk_head_;
}

void CallBase::EndChunk(std::string& out, size_t choice, const GenerateOutput& output) const {
  if (fields_.continuous_usage) {
    out += ',';
    AppendCounts(out, static_cast<int64_t>(prompt_tokens(choice).size()), NumOutputTokens(output),
                 output.usage.num_cached_tokens, -1);
  }
  out += "}\n\n";
}

void CallBase::AppendFinish(std::string& out, size_t choice, const News& news,
                            const GenerateOutput& output) const {
  out += R"("finish_reason":)";
  if (!news.is_last) {
    out += R"(null,"stop_reason":null)";
    return;
  }
  out += FinishName(fields_.hide_output ? FinishReason::kLength : output.finish);
  out += R"(,"stop_reason":)";
  // The model's own end is a stop without a reason; what the client asked for is one.
  const std::vector<TokenId>& stops = requests_[choice].sampling.stop_token_ids;
  if (output.stop_string && !fields_.hide_output) {
    AppendJsonString(out, *output.stop_string);
  } else if (output.stop_token && !fields_.hide_output &&
             std::find(stops.begin(), stops.end(), *output.stop_token) != stops.end()) {
    AppendInt(out, *output.stop_token);
  } else {
    out += "null";
  }
}

int64_t CallBase::NumOutputTokens(const GenerateOutput& output) const {
  return fields_.hide_output ? 0 : static_cast<int64_t>(output.token_ids.size());
}

void CallBase::AppendUsage(std::string& out, std::span<const GenerateOutput> outputs) const {
  int64_t prompt = 0;
  int64_t completion = 0;
  int64_t cached = 0;
  int64_t reasoning = -1;
  for (size_t i = 0; i < outputs.size(); ++i) {
    // The choices of one prompt share it.
    if (i % static_cast<size_t>(fields_.n) == 0) {
      prompt += static_cast<int64_t>(prompt_tokens(i).size());
      cached += outputs[i].usage.num_cached_tokens;
    }
    completion += NumOutputTokens(outputs[i]);
    const int64_t thought = NumReasoningTokens(i, outputs[i]);
    if (thought >= 0) reasoning = std::max<int64_t>(reasoning, 0) + thought;
  }
  AppendCounts(out, prompt, completion, cached, reasoning);
}

}  // namespace moebius::serve
