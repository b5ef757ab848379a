#include "frontend/generation.h"

#include <utility>

namespace moebius::frontend {

Conversation MakeConversation(const std::vector<text::ChatMessage>& messages) {
  std::vector<text::jinja::Value> items;
  items.reserve(messages.size());
  for (const text::ChatMessage& message : messages) {
    text::jinja::Dict dict;
    dict.Set("role", text::jinja::Value::String(message.role));
    dict.Set("content", text::jinja::Value::String(message.content));
    items.push_back(text::jinja::Value::Dict(std::move(dict)));
  }
  Conversation conversation;
  conversation.messages = text::jinja::Value::List(std::move(items));
  return conversation;
}

Generation::Generation(const text::Tokenizer* tokenizer, const GenerateRequest& request)
    : tokenizer_(tokenizer),
      stops_(request.stop, request.include_stop_str_in_output),
      min_tokens_(static_cast<size_t>(request.sampling.min_tokens)),
      include_stop_(request.include_stop_str_in_output) {
  if (tokenizer != nullptr) detokenizer_.emplace(*tokenizer, request.skip_special_tokens);
}

Delta Generation::Push(const engine::TokenChunk& chunk) {
  const size_t text_begin = output_.text.size();
  const size_t tokens_begin = output_.token_ids.size();
  const size_t logprobs_begin = output_.logprobs.size();
  for (const engine::LogprobEntry& entry : chunk.prompt_logprobs) {
    output_.prompt_logprobs.push_back(MakeLogprob(entry));
  }
  for (size_t i = 0; i < chunk.tokens.size() && !stopped(); ++i) {
    // The token that ended the request is an output, but not part of what the model says.
    const bool is_end =
        chunk.stop_token && i + 1 == chunk.tokens.size() && chunk.tokens[i] == *chunk.stop_token;
    PushToken(chunk.tokens[i], !is_end || include_stop_);
    if (i < chunk.logprobs.size()) {
      output_.logprobs.push_back(MakeLogprob(chunk.logprobs[i]));
    }
  }
  if (chunk.finish) Finish(chunk);
  return {std::string_view(output_.text).substr(text_begin),
          std::span(output_.token_ids).subspan(tokens_begin),
          std::span(output_.logprobs).subspan(logprobs_begin)};
}

void Generation::ForgetLogprobs() {
  output_.logprobs = {};
  output_.prompt_logprobs = {};
}

void Generation::PushToken(TokenId token, bool in_text) {
  output_.token_ids.push_back(token);
  if (!detokenizer_ || !in_text) return;
  const std::string piece = detokenizer_->Push(token);
  output_.text +=
      output_.token_ids.size() < min_tokens_ ? stops_.Bypass(piece) : stops_.Push(piece);
}

TokenLogprob Generation::MakeLogprob(const engine::LogprobEntry& entry) const {
  TokenLogprob logprob{entry.token, BytesOf(entry.token), entry.logprob, entry.rank, {}};
  for (size_t i = 0; i < entry.top_tokens.size(); ++i) {
    logprob.top.push_back(
        {entry.top_tokens[i], BytesOf(entry.top_tokens[i]), entry.top_logprobs[i]});
  }
  return logprob;
}

void Generation::Finish(const engine::TokenChunk& chunk) {
  finished_ = true;
  if (!stopped() && detokenizer_) {
    output_.text += stops_.Push(detokenizer_->Finish());
    output_.text += stops_.Flush();
  }
  output_.usage = chunk.usage;
  output_.usage.num_output_tokens = static_cast<int64_t>(output_.token_ids.size());
  if (stopped()) {
    output_.finish = engine::FinishReason::kStop;
    output_.stop_string = stops_.match();
    return;
  }
  output_.finish = *chunk.finish;
  output_.stop_token = chunk.stop_token;
  output_.error = chunk.error;
}

std::string Generation::BytesOf(TokenId token) const {
  return tokenizer_ == nullptr ? std::string() : tokenizer_->TokenBytes(token);
}

}  // namespace moebius::frontend
