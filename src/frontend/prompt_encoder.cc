#include "frontend/prompt_encoder.h"

#include <algorithm>
#include <utility>

#include "frontend/stop_strings.h"

namespace moebius::frontend {

PromptEncoder::PromptEncoder(std::unique_ptr<text::Tokenizer> tokenizer,
                             Result<text::ChatTemplate> chat_template)
    : tokenizer_(std::move(tokenizer)), chat_template_(std::move(chat_template)) {}

Status PromptEncoder::TemplateStatus() const {
  if (!has_chat_template()) {
    return MakeError(ErrorCode::kNotFound,
                     "messages: the model's folder has no chat template; give a plain prompt");
  }
  if (!chat_template_) return tl::unexpected(chat_template_.error());
  return {};
}

Result<std::string> PromptEncoder::Render(const Conversation& conversation) const {
  MOEBIUS_TRY(TemplateStatus());
  return chat_template_->Apply(conversation.messages, conversation.tools, conversation.options);
}

Result<std::vector<TokenId>> PromptEncoder::Encode(const Prompt& prompt) const {
  if (const auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) return *ids;
  if (tokenizer_ == nullptr) {
    return MakeError(
        ErrorCode::kNotFound,
        "prompt: the model's folder has no tokenizer.json; give token ids instead of text");
  }
  if (const auto* text = std::get_if<std::string>(&prompt)) return tokenizer_->Encode(*text, true);
  MOEBIUS_ASSIGN(const std::string text, Render(std::get<Conversation>(prompt)));
  return tokenizer_->Encode(text, false);
}

// A word is other tokens at the start of a text than after a space: both are forbidden.
Status PromptEncoder::AddBadWords(const std::vector<std::string>& words,
                                  engine::SamplingParams& sampling) const {
  if (words.empty()) return {};
  if (tokenizer_ == nullptr) {
    return MakeError(ErrorCode::kNotFound,
                     "bad_words: the model's folder has no tokenizer.json to encode them with");
  }
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string word =
        words[i].substr(std::min(words[i].find_first_not_of(' '), words[i].size()));
    if (word.empty()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "bad_words[{}] is empty: it needs at least one character", i);
    }
    std::vector<TokenId> first = tokenizer_->Encode(word, false);
    std::vector<TokenId> inner = tokenizer_->Encode(" " + word, false);
    if (inner != first) sampling.bad_words.push_back(std::move(inner));
    sampling.bad_words.push_back(std::move(first));
  }
  return {};
}

Result<engine::RequestInput> PromptEncoder::MakeInput(const GenerateRequest& request) const {
  if (!request.stop.empty() && tokenizer_ == nullptr) {
    return MakeError(ErrorCode::kNotFound,
                     "stop: the model's folder has no tokenizer.json, so there is no text to find "
                     "a stop string in; use stop_token_ids");
  }
  MOEBIUS_TRY(CheckStopStrings(request.stop));
  engine::RequestInput input;
  MOEBIUS_ASSIGN(input.prompt, Encode(request.prompt));
  input.sampling = request.sampling;
  MOEBIUS_TRY(AddBadWords(request.bad_words, input.sampling));
  input.cache_salt = request.cache_salt;
  input.priority = request.priority;
  input.data_parallel_rank = request.data_parallel_rank;
  input.arrival = request.arrival;
  return input;
}

Status PromptEncoder::Check(const GenerateRequest& request,
                            const engine::EngineLimits& limits) const {
  MOEBIUS_ASSIGN(const engine::RequestInput input, MakeInput(request));
  return engine::Validate(input, limits);
}

}  // namespace moebius::frontend
