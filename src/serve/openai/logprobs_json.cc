#include "serve/openai/logprobs_json.h"

#include <algorithm>
#include <vector>

#include "serve/openai/json_text.h"
#include "text/unicode.h"

namespace moebius::serve {
namespace {

std::string IdName(TokenId token) { return "token_id:" + std::to_string(token); }

void AppendToken(std::string& out, TokenId token, std::string_view bytes, bool as_token_id) {
  if (as_token_id) {
    AppendJsonString(out, IdName(token));
  } else {
    AppendJsonString(out, bytes);
  }
}

template <typename T>  // frontend::TokenLogprob or its Top
void AppendChatEntry(std::string& out, const T& entry, bool as_token_id) {
  out += R"({"token":)";
  AppendToken(out, entry.token, entry.bytes, as_token_id);
  out += R"(,"logprob":)";
  AppendLogprob(out, entry.logprob);
  out += R"(,"bytes":)";
  AppendBytes(out, entry.bytes);
}

size_t NumTop(const frontend::TokenLogprob& logprob, const LogprobStyle& style) {
  return std::min(logprob.top.size(), static_cast<size_t>(std::max(style.num_top, 0)));
}

void AppendRanked(std::string& out, TokenId token, std::string_view bytes, float logprob,
                  int64_t rank, bool as_token_id) {
  out += '"';
  AppendInt(out, token);
  out += R"(":{"logprob":)";
  AppendLogprob(out, logprob);
  out += R"(,"rank":)";
  AppendInt(out, rank);
  out += R"(,"decoded_token":)";
  AppendToken(out, token, bytes, as_token_id);
  out += '}';
}

// Characters that begin in `text`: a token may hold the end of one and the beginning of another.
int64_t NumCharacters(std::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

void AppendComma(std::string& out) {
  if (!out.empty()) out += ',';
}

}  // namespace

void AppendChatLogprobs(std::string& out, std::span<const frontend::TokenLogprob> logprobs,
                        const LogprobStyle& style) {
  out += R"({"content":[)";
  for (size_t i = 0; i < logprobs.size(); ++i) {
    if (i > 0) out += ',';
    AppendChatEntry(out, logprobs[i], style.as_token_ids);
    out += R"(,"top_logprobs":[)";
    for (size_t k = 0; k < NumTop(logprobs[i], style); ++k) {
      if (k > 0) out += ',';
      AppendChatEntry(out, logprobs[i].top[k], style.as_token_ids);
      out += '}';
    }
    out += "]}";
  }
  out += "]}";
}

void AppendPromptLogprobs(std::string& out, std::span<const frontend::TokenLogprob> logprobs,
                          const LogprobStyle& style) {
  out += "[null";
  for (const frontend::TokenLogprob& logprob : logprobs) {
    out += ",{";
    AppendRanked(out, logprob.token, logprob.bytes, logprob.logprob, logprob.rank,
                 style.as_token_ids);
    for (size_t k = 0; k < NumTop(logprob, style); ++k) {
      const auto& top = logprob.top[k];
      if (top.token == logprob.token) continue;
      out += ',';
      AppendRanked(out, top.token, top.bytes, top.logprob, static_cast<int64_t>(k) + 1,
                   style.as_token_ids);
    }
    out += '}';
  }
  out += ']';
}

void CompletionLogprobs::AddToken(TokenId token, std::string_view bytes, std::string_view text) {
  for (std::string* list : {&tokens_, &token_logprobs_, &top_logprobs_, &text_offset_}) {
    AppendComma(*list);
  }
  AppendToken(tokens_, token, bytes, style_.as_token_ids);
  // A token that goes on with a character stands where that character does.
  const bool goes_on =
      !text.empty() && (static_cast<unsigned char>(text[0]) & 0xC0) == 0x80 && offset_ > 0;
  AppendInt(text_offset_, offset_ - (goes_on ? 1 : 0));
  offset_ += NumCharacters(text);
}

void CompletionLogprobs::AddFirst(TokenId token, std::string_view bytes, std::string_view text) {
  AddToken(token, bytes, text);
  token_logprobs_ += "null";
  top_logprobs_ += "null";
}

void CompletionLogprobs::Add(const frontend::TokenLogprob& logprob, std::string_view text) {
  AddToken(logprob.token, logprob.bytes, text);
  AppendLogprob(token_logprobs_, logprob.logprob);
  AddTop(logprob);
}

// The token itself and the best ones by their texts. Where texts coincide (parts of characters are
// all U+FFFD), the token keeps its own and the others are named by their ids: none is lost.
void CompletionLogprobs::AddTop(const frontend::TokenLogprob& logprob) {
  std::vector<std::string> taken;
  const auto add = [&](TokenId token, std::string_view bytes, float value) {
    std::string name = style_.as_token_ids ? IdName(token) : text::ReplaceMalformed(bytes);
    if (std::find(taken.begin(), taken.end(), name) != taken.end()) name = IdName(token);
    if (!taken.empty()) top_logprobs_ += ',';
    AppendJsonString(top_logprobs_, name);
    top_logprobs_ += ':';
    AppendLogprob(top_logprobs_, value);
    taken.push_back(std::move(name));
  };
  top_logprobs_ += '{';
  add(logprob.token, logprob.bytes, logprob.logprob);
  for (size_t k = 0; k < NumTop(logprob, style_); ++k) {
    const auto& top = logprob.top[k];
    if (top.token != logprob.token) add(top.token, top.bytes, top.logprob);
  }
  top_logprobs_ += '}';
}

void CompletionLogprobs::AppendTo(std::string& out) const {
  out += R"({"text_offset":[)";
  out += text_offset_;
  out += R"(],"token_logprobs":[)";
  out += token_logprobs_;
  out += R"(],"tokens":[)";
  out += tokens_;
  out += R"(],"top_logprobs":[)";
  out += top_logprobs_;
  out += "]}";
}

std::string_view PromptTexts::Next(TokenId token) {
  if (tokenizer_ == nullptr) return {};
  const std::string bytes = tokenizer_->TokenBytes(token);
  size_t size = 0;
  if (rest_.starts_with(bytes)) {
    size = bytes.size();
  } else if (bytes.starts_with(' ') && rest_.starts_with(bytes.substr(1))) {
    size = bytes.size() - 1;  // a space that encoding put before the text
  } else if (!tokenizer_->IsSpecial(token)) {
    size = std::min(bytes.size(), rest_.size());  // normalised on its way
  }
  const std::string_view text = rest_.substr(0, size);
  rest_.remove_prefix(size);
  return text;
}

}  // namespace moebius::serve
