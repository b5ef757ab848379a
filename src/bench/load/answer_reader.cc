#include "bench/load/answer_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace moebius::load {
namespace {

using nlohmann::json;

constexpr size_t kMaxErrorBody = 4096;

// A member that is there and not null.
const json* Find(const json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

int64_t IntOf(const json& object, const char* key, int64_t otherwise) {
  const json* value = Find(object, key);
  if (value == nullptr || !value->is_number_integer()) return otherwise;
  constexpr int64_t kMost = int64_t{1} << 31;  // no answer has more tokens; a wrong one says so
  return std::clamp<int64_t>(value->get<int64_t>(), 0, kMost);
}

std::string_view TextOf(const json& object, const char* key) {
  const json* value = Find(object, key);
  if (value == nullptr || !value->is_string()) return {};
  return value->get_ref<const std::string&>();
}

// What one choice of a chunk adds.
struct Delta {
  std::string_view text;
  bool says_something = false;  // text, reasoning, a tool call
  bool only_role = false;
};

Delta DeltaOf(const json& choice) {
  Delta delta;
  const json* chat = Find(choice, "delta");
  if (chat == nullptr) {
    delta.text = TextOf(choice, "text");
    delta.says_something = !delta.text.empty();
    return delta;
  }
  delta.text = TextOf(*chat, "content");
  std::string_view reasoning = TextOf(*chat, "reasoning_content");
  if (reasoning.empty()) reasoning = TextOf(*chat, "reasoning");
  const json* tools = Find(*chat, "tool_calls");
  delta.says_something =
      !delta.text.empty() || !reasoning.empty() || (tools != nullptr && !tools->empty());
  delta.only_role = !delta.says_something && Find(*chat, "role") != nullptr &&
                    Find(choice, "finish_reason") == nullptr;
  if (delta.text.empty()) delta.text = reasoning;
  return delta;
}

json ParseJson(std::string_view text) {
  return json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
}

}  // namespace

std::string ErrorMessageOf(std::string_view body) {
  const json parsed = ParseJson(body);
  if (parsed.is_object()) {
    const json* error = Find(parsed, "error");
    if (error != nullptr && error->is_string()) return error->get<std::string>();
    const std::string_view message = TextOf(error != nullptr ? *error : parsed, "message");
    if (!message.empty()) return std::string(message);
    const std::string_view detail = TextOf(parsed, "detail");
    if (!detail.empty()) return std::string(detail);
  }
  constexpr size_t kMaxShown = 300;
  return std::string(body.substr(0, kMaxShown));
}

void AnswerReader::OnData(std::string_view bytes, double arrival) {
  if (error_body_.size() < kMaxErrorBody) {
    error_body_.append(bytes.substr(0, kMaxErrorBody - error_body_.size()));
  }
  if (record_->status != 200) return;
  if (!sse_.Push(bytes, [&](std::string_view data) { OnEvent(data, arrival); })) {
    Fail(Outcome::kStreamError, "an event of the stream is longer than 16 MiB");
  }
}

void AnswerReader::OnEvent(std::string_view data, double arrival) {
  if (is_done_) return;
  if (data == "[DONE]") {
    is_done_ = true;
    return;
  }
  const json chunk = ParseJson(data);
  if (!chunk.is_object()) {
    return Fail(Outcome::kStreamError,
                "a chunk is no JSON object: " + std::string(data.substr(0, 100)));
  }
  if (Find(chunk, "error") != nullptr) return Fail(Outcome::kStreamError, ErrorMessageOf(data));
  const json* choices = Find(chunk, "choices");
  const bool has_choices = choices != nullptr && choices->is_array() && !choices->empty();
  int64_t new_tokens = -1;
  if (const json* usage = Find(chunk, "usage")) {
    record_->has_usage = true;
    record_->prompt_tokens = IntOf(*usage, "prompt_tokens", record_->prompt_tokens);
    record_->output_tokens = IntOf(*usage, "completion_tokens", record_->output_tokens);
    if (const json* details = Find(*usage, "prompt_tokens_details")) {
      record_->cached_tokens = IntOf(*details, "cached_tokens", record_->cached_tokens);
    }
    if (const json* details = Find(*usage, "completion_tokens_details")) {
      record_->reasoning_tokens = IntOf(*details, "reasoning_tokens", record_->reasoning_tokens);
    }
    if (has_choices) {
      continuous_usage_ = true;
      new_tokens = record_->output_tokens - counted_tokens_;
      counted_tokens_ = record_->output_tokens;
    }
  }
  if (!has_choices) return;

  bool counts = false;
  for (const json& choice : *choices) {
    const Delta delta = DeltaOf(choice);
    if (keep_text_) record_->text += delta.text;
    const std::string_view reason = TextOf(choice, "finish_reason");
    if (!reason.empty()) record_->finish_reason = reason;
    counts = counts || delta.says_something || !delta.only_role;
  }
  if (continuous_usage_ && new_tokens >= 0) counts = new_tokens > 0;
  if (!counts) return;
  record_->events.push_back({arrival, new_tokens > 0 ? static_cast<double>(new_tokens) : 1.0});
}

void AnswerReader::SpreadTokens() {
  std::vector<TokenEvent>& events = record_->events;
  if (!record_->has_usage) {
    record_->output_tokens = static_cast<int64_t>(events.size());
    return;
  }
  double sum = 0;
  for (const TokenEvent& event : events) sum += event.tokens;
  const auto n = static_cast<double>(record_->output_tokens);
  record_->exact_events = continuous_usage_ && sum == n;
  if (record_->exact_events || events.empty()) return;
  for (TokenEvent& event : events) event.tokens = n / static_cast<double>(events.size());
}

void AnswerReader::OnEnd(const Status& transport, double now) {
  record_->end = now;
  SpreadTokens();
  if (!record_->ok()) return;
  if (!transport) {
    const ErrorCode code = transport.error().code();
    return Fail(code == ErrorCode::kDeadline    ? Outcome::kTimeout
                : code == ErrorCode::kCancelled ? Outcome::kCancelled
                                                : Outcome::kBroken,
                transport.error().message());
  }
  if (record_->status != 200) return FailByStatus();
  if (!is_done_ && record_->finish_reason.empty()) {
    if (record_->events.empty() && !sse_.HasRest()) {
      return Fail(Outcome::kEmpty, "HTTP 200 without a chunk: " + ErrorMessageOf(error_body_));
    }
    return Fail(Outcome::kBroken, "the stream ended without [DONE] or a finish_reason");
  }
  if (record_->events.empty()) Fail(Outcome::kEmpty, "a whole stream without a token");
}

void AnswerReader::FailByStatus() {
  const int status = record_->status;
  Fail(status == 429                    ? Outcome::kRateLimited
       : status == 504 || status == 408 ? Outcome::kTimeout
       : status >= 500 && status < 600  ? Outcome::kServerError
                                        : Outcome::kClientError,
       fmt::format("HTTP {}: {}", status, ErrorMessageOf(error_body_)));
}

void AnswerReader::Fail(Outcome outcome, std::string error) {
  if (!record_->ok()) return;  // the first reason is the reason
  record_->outcome = outcome;
  record_->error = std::move(error);
}

}  // namespace moebius::load
