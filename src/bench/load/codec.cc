#include "bench/load/codec.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "text/tokenizer.h"

namespace moebius::load {
namespace {

using nlohmann::json;

class TokenizerCodec : public PromptCodec {
 public:
  explicit TokenizerCodec(std::unique_ptr<text::Tokenizer> tokenizer)
      : tokenizer_(std::move(tokenizer)) {
    // Without special tokens: they would end or bend what a prompt means.
    for (TokenId id = 0; id < tokenizer_->model_vocab_size(); ++id) {
      if (!tokenizer_->IsSpecial(id) && !tokenizer_->TokenText(id).empty()) ids_.push_back(id);
    }
  }
  std::span<const TokenId> ids() const override { return ids_; }
  bool has_text() const override { return true; }
  Result<std::vector<TokenId>> Encode(std::string_view text) override {
    return tokenizer_->Encode(text, /*add_special_tokens=*/false);
  }
  Result<std::string> Decode(std::span<const TokenId> ids) override {
    return tokenizer_->Decode(ids, /*skip_special=*/true);
  }

 private:
  std::unique_ptr<text::Tokenizer> tokenizer_;
  std::vector<TokenId> ids_;
};

class ServerCodec : public PromptCodec {
 public:
  ServerCodec(LoadClient& client, std::string model) : client_(client), model_(std::move(model)) {}

  // A text with many different tokens, of which random prompts are then drawn.
  Status LearnIds() {
    std::string text;
    for (int i = 0; i < 400; ++i) {
      text += fmt::format("{} {} ", i * 37, std::string(1, static_cast<char>('a' + i % 26)));
    }
    text +=
        "The quick brown fox jumps over the lazy dog while seven wizards quietly examine every "
        "ancient book about weather, music, history, numbers, rivers, engines and gardens.";
    MOEBIUS_ASSIGN(ids_, Encode(text));
    std::ranges::sort(ids_);
    ids_.erase(std::ranges::unique(ids_).begin(), ids_.end());
    if (!ids_.empty()) return {};
    return MakeError(ErrorCode::kUnavailable, "/tokenize gave no tokens");
  }
  std::span<const TokenId> ids() const override { return ids_; }
  bool has_text() const override { return true; }

  Result<std::vector<TokenId>> Encode(std::string_view text) override {
    const json answer =
        Ask("/tokenize",
            {{"model", model_}, {"prompt", std::string(text)}, {"add_special_tokens", false}});
    if (answer.is_object() && answer.contains("tokens") && answer["tokens"].is_array() &&
        std::ranges::all_of(answer["tokens"], [](const json& id) { return id.is_number(); })) {
      return answer["tokens"].get<std::vector<TokenId>>();
    }
    return MakeError(ErrorCode::kUnavailable, "/tokenize: {}", problem_);
  }
  Result<std::string> Decode(std::span<const TokenId> ids) override {
    const json answer =
        Ask("/detokenize",
            {{"model", model_}, {"tokens", std::vector<TokenId>(ids.begin(), ids.end())}});
    if (answer.is_object() && answer.contains("prompt") && answer["prompt"].is_string()) {
      return answer["prompt"].get<std::string>();
    }
    return MakeError(ErrorCode::kUnavailable, "/detokenize: {}", problem_);
  }

 private:
  json Ask(const std::string& target, const json& body) {
    const auto answer =
        client_.Fetch(target, body.dump(-1, ' ', false, json::error_handler_t::replace));
    problem_ = answer ? "an answer without the field that was expected" : answer.error().message();
    return answer ? json::parse(*answer, nullptr, false) : json();
  }

  LoadClient& client_;
  std::string model_;
  std::string problem_;  // of the last request
  std::vector<TokenId> ids_;
};

class IdCodec : public PromptCodec {
 public:
  explicit IdCodec(int64_t vocab_size) : ids_(static_cast<size_t>(vocab_size)) {
    std::iota(ids_.begin(), ids_.end(), 0);
  }
  std::span<const TokenId> ids() const override { return ids_; }
  bool has_text() const override { return false; }
  Result<std::vector<TokenId>> Encode(std::string_view) override { return NoText(); }
  Result<std::string> Decode(std::span<const TokenId>) override { return NoText(); }

 private:
  static tl::unexpected<Error> NoText() {
    return MakeError(ErrorCode::kInternal, "no text is known of these ids");
  }
  std::vector<TokenId> ids_;
};

}  // namespace

Result<std::unique_ptr<PromptCodec>> OpenTokenizerCodec(const std::filesystem::path& folder) {
  MOEBIUS_ASSIGN(auto tokenizer, text::Tokenizer::Load(folder));
  auto codec = std::make_unique<TokenizerCodec>(std::move(tokenizer));
  if (codec->ids().empty()) {
    return MakeError(ErrorCode::kCorrupt, "{}: its tokenizer has no plain tokens", folder.string());
  }
  return codec;
}

Result<std::unique_ptr<PromptCodec>> OpenServerCodec(LoadClient& client, const std::string& model) {
  auto codec = std::make_unique<ServerCodec>(client, model);
  MOEBIUS_TRY(codec->LearnIds());
  return codec;
}

std::unique_ptr<PromptCodec> MakeIdCodec(int64_t vocab_size) {
  return std::make_unique<IdCodec>(vocab_size);
}

}  // namespace moebius::load
