#include "text/tokenizer.h"

#include <algorithm>
#include <fstream>
#include <mutex>
#include <sstream>

#include "base/check.h"
#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/json_node.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/unicode.h"

namespace moebius::text {
namespace {

Result<std::string> ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return MakeError(ErrorCode::kNotFound, "{}: cannot be opened", path.string());
  std::ostringstream content;
  content << file.rdbuf();
  if (file.bad()) return MakeError(ErrorCode::kCorrupt, "{}: cannot be read", path.string());
  return std::move(content).str();
}

struct NamedToken {
  std::string text;
  std::optional<TokenId> id;
};

// What one call of Encode works with; kept between calls for its cache of pieces.
struct Scratch {
  RegexScratch regex;
  BpeScratch bpe;
  Pieces pieces;
  std::vector<Section> raw_sections;
  std::vector<Section> sections;
};

class ScratchPool {
 public:
  std::unique_ptr<Scratch> Take() {
    {
      const std::lock_guard lock(mutex_);
      if (!free_.empty()) {
        std::unique_ptr<Scratch> scratch = std::move(free_.back());
        free_.pop_back();
        return scratch;
      }
    }
    return std::make_unique<Scratch>();
  }

  void Return(std::unique_ptr<Scratch> scratch) {
    // A huge text's buffers are not worth keeping.
    if (scratch->pieces.text.capacity() > kMaxKeptBytes) {
      scratch->pieces = Pieces();
      scratch->bpe = BpeScratch();
    }
    const std::lock_guard lock(mutex_);
    if (free_.size() < kMaxFree) free_.push_back(std::move(scratch));
  }

 private:
  static constexpr size_t kMaxKeptBytes = 16 << 20;
  static constexpr size_t kMaxFree = 16;

  std::mutex mutex_;
  std::vector<std::unique_ptr<Scratch>> free_;
};

}  // namespace

struct Tokenizer::Impl {
  Bpe model;
  Normalizer normalizer;
  AddedTokens added;
  PreTokenizer pre_tokenizer;
  PostProcessor post_processor;
  TokenDecoder decoder;
  NamedToken bos;
  NamedToken eos;
  NamedToken pad;
  mutable ScratchPool scratch;

  Status ParseTokenizer(const JsonNode& root);
  Status ParseConfig(const JsonNode& root);
  Status ParseNamed(const JsonNode& root, std::string_view key, NamedToken& token) const;
  std::optional<TokenId> Find(std::string_view token) const;
  // The spelling that the decoder gets.
  std::string_view DecodeText(TokenId id) const;
  // Appends the ids of a text without unnormalised added tokens in it.
  void EncodeSection(std::string_view section, bool starts_input, Scratch& work,
                     std::vector<TokenId>& ids) const;
};

Status Tokenizer::Impl::ParseTokenizer(const JsonNode& root) {
  MOEBIUS_ASSIGN(const JsonNode model_node, root.Get("model"));
  MOEBIUS_ASSIGN(model, Bpe::Parse(model_node));
  if (const auto node = root.Find("normalizer")) {
    MOEBIUS_ASSIGN(normalizer, Normalizer::Parse(*node));
  }
  MOEBIUS_ASSIGN(added, AddedTokens::Parse(root.Find("added_tokens"), model.vocab(), normalizer));
  if (const auto node = root.Find("pre_tokenizer")) {
    MOEBIUS_ASSIGN(pre_tokenizer, PreTokenizer::Parse(*node));
  }
  if (const auto node = root.Find("post_processor")) {
    MOEBIUS_ASSIGN(post_processor, PostProcessor::Parse(*node));
  }
  if (const auto node = root.Find("decoder")) {
    MOEBIUS_ASSIGN(decoder, TokenDecoder::Parse(*node));
  }
  return {};
}

Status Tokenizer::Impl::ParseNamed(const JsonNode& root, std::string_view key,
                                   NamedToken& token) const {
  const std::optional<JsonNode> node = root.Find(key);
  if (!node) return {};
  if (node->IsString()) {
    MOEBIUS_ASSIGN(token.text, node->AsString());
  } else {
    MOEBIUS_ASSIGN(token.text, node->GetString("content"));
  }
  token.id = Find(token.text);
  return {};
}

Status Tokenizer::Impl::ParseConfig(const JsonNode& root) {
  if (!root.IsObject()) return root.Corrupt("expected an object");
  MOEBIUS_TRY(ParseNamed(root, "bos_token", bos));
  MOEBIUS_TRY(ParseNamed(root, "eos_token", eos));
  MOEBIUS_TRY(ParseNamed(root, "pad_token", pad));
  const auto add_bos = root.Find("add_bos_token");
  const auto add_eos = root.Find("add_eos_token");
  if (add_bos && bos.id) {
    MOEBIUS_ASSIGN(const bool wanted, add_bos->AsBool());
    post_processor.SetBos(*bos.id, wanted);
  }
  if (add_eos && eos.id) {
    MOEBIUS_ASSIGN(const bool wanted, add_eos->AsBool());
    post_processor.SetEos(*eos.id, wanted);
  }
  return {};
}

std::optional<TokenId> Tokenizer::Impl::Find(std::string_view token) const {
  const std::optional<TokenId> id = added.Find(token);
  return id ? id : model.vocab().Find(token);
}

std::string_view Tokenizer::Impl::DecodeText(TokenId id) const {
  const std::string_view text = added.DecodeText(id);
  return text.empty() ? model.vocab().TokenText(id) : text;
}

void Tokenizer::Impl::EncodeSection(std::string_view section, bool starts_input, Scratch& work,
                                    std::vector<TokenId>& ids) const {
  std::string text(section);
  if (!normalizer.Apply(text, work.regex)) starts_input = false;
  work.sections.clear();
  added.Split(text, /*normalized=*/true, work.sections);
  for (const Section& part : work.sections) {
    if (part.id) {
      ids.push_back(*part.id);
      continue;
    }
    Pieces& pieces = work.pieces;
    pieces.text.assign(text, part.span.begin, part.span.size());
    pieces.spans.assign(1, {0, pieces.text.size()});
    pieces.starts_input = starts_input && part.span.begin == 0;
    pre_tokenizer.Apply(pieces, work.regex);
    for (size_t i = 0; i < pieces.spans.size(); ++i) model.Encode(pieces[i], work.bpe, ids);
  }
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::Parse(std::string_view tokenizer_json,
                                                    std::string_view config_json) {
  auto impl = std::make_unique<Impl>();
  const auto in_file = [](const Error& error, const char* file) {
    return tl::unexpected<Error>(error.WithContext(file));
  };
  Result<JsonDocument> document = JsonDocument::Parse(tokenizer_json);
  if (!document) return in_file(document.error(), "tokenizer.json");
  if (const Status parsed = impl->ParseTokenizer(document->root()); !parsed) {
    return in_file(parsed.error(), "tokenizer.json");
  }
  if (!config_json.empty()) {
    document = JsonDocument::Parse(config_json);
    if (!document) return in_file(document.error(), "tokenizer_config.json");
    if (const Status parsed = impl->ParseConfig(document->root()); !parsed) {
      return in_file(parsed.error(), "tokenizer_config.json");
    }
  }
  return std::unique_ptr<Tokenizer>(new Tokenizer(std::move(impl)));
}

Result<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::filesystem::path& folder) {
  MOEBIUS_ASSIGN(const std::string tokenizer_json, ReadFile(folder / "tokenizer.json"));
  std::string config_json;
  const std::filesystem::path config_path = folder / "tokenizer_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(config_path, ignored)) {
    MOEBIUS_ASSIGN(config_json, ReadFile(config_path));
  }
  Result<std::unique_ptr<Tokenizer>> tokenizer = Parse(tokenizer_json, config_json);
  if (!tokenizer) return tl::unexpected<Error>(tokenizer.error().WithContext(folder.string()));
  return tokenizer;
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::vector<TokenId> Tokenizer::Encode(std::string_view text, bool add_special_tokens) const {
  std::string repaired;
  if (ValidPrefix(text) != text.size()) {
    repaired = ReplaceMalformed(text);
    text = repaired;
  }
  std::vector<TokenId> ids;
  ids.reserve(text.size() / 3 + 4);
  const PostProcessor& around = impl_->post_processor;
  if (add_special_tokens) ids = around.prefix;

  std::unique_ptr<Scratch> work = impl_->scratch.Take();
  work->raw_sections.clear();
  impl_->added.Split(text, /*normalized=*/false, work->raw_sections);
  for (const Section& section : work->raw_sections) {
    if (section.id) {
      ids.push_back(*section.id);
    } else {
      impl_->EncodeSection(text.substr(section.span.begin, section.span.size()),
                           section.span.begin == 0, *work, ids);
    }
  }
  impl_->scratch.Return(std::move(work));

  if (add_special_tokens) ids.insert(ids.end(), around.suffix.begin(), around.suffix.end());
  return ids;
}

std::string Tokenizer::Decode(std::span<const TokenId> ids, bool skip_special) const {
  std::string text;
  const std::unique_ptr<DecodeStream> stream = NewDecodeStream();
  for (const TokenId id : ids) PushTo(*stream, id, skip_special, text);
  stream->Finish(text);
  return text;
}

std::unique_ptr<DecodeStream> Tokenizer::NewDecodeStream() const {
  return impl_->decoder.NewStream();
}

void Tokenizer::PushTo(DecodeStream& stream, TokenId id, bool skip_special,
                       std::string& text) const {
  const std::string_view token = impl_->DecodeText(id);
  if (token.empty() || (skip_special && impl_->added.IsSpecial(token))) return;
  stream.Push(token, text);
}

std::optional<TokenId> Tokenizer::TokenToId(std::string_view token) const {
  return impl_->Find(token);
}

std::string_view Tokenizer::TokenText(TokenId id) const {
  const std::string_view text = impl_->added.TokenText(id);
  return text.empty() ? impl_->model.vocab().TokenText(id) : text;
}

std::string Tokenizer::TokenBytes(TokenId id) const {
  return impl_->decoder.TokenBytes(impl_->DecodeText(id));
}

bool Tokenizer::IsSpecial(TokenId id) const { return impl_->added.IsSpecial(TokenText(id)); }

int Tokenizer::vocab_size() const {
  return std::max(impl_->model.vocab().end_id(), impl_->added.end_id());
}

int Tokenizer::model_vocab_size() const { return impl_->model.vocab().end_id(); }

std::optional<TokenId> Tokenizer::bos_id() const { return impl_->bos.id; }
std::optional<TokenId> Tokenizer::eos_id() const { return impl_->eos.id; }
std::optional<TokenId> Tokenizer::pad_id() const { return impl_->pad.id; }
const std::string& Tokenizer::bos_token() const { return impl_->bos.text; }
const std::string& Tokenizer::eos_token() const { return impl_->eos.text; }
const std::string& Tokenizer::pad_token() const { return impl_->pad.text; }

}  // namespace moebius::text
