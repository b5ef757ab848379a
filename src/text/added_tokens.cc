#include "text/added_tokens.h"

#include <algorithm>

#include "base/log.h"
#include "text/unicode.h"

namespace moebius::text {
namespace {

// Matching looks this far ahead from each place of a text, at most.
constexpr size_t kMaxTokenBytes = 4096;

// What \w means to the library, for its single_word tokens.
constexpr std::string_view kWordCharacter =
    R"(\A[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]\z)";

}  // namespace

Result<AddedTokens::Token> AddedTokens::ParseToken(const JsonNode& node) {
  Token token;
  MOEBIUS_ASSIGN(token.content, node.GetString("content"));
  if (token.content.size() > kMaxTokenBytes) {
    return node.Unsupported(fmt::format("an added token of {} bytes, expected at most {}",
                                        token.content.size(), kMaxTokenBytes));
  }
  MOEBIUS_ASSIGN(token.single_word, node.GetBool("single_word"));
  MOEBIUS_ASSIGN(token.lstrip, node.GetBool("lstrip"));
  MOEBIUS_ASSIGN(token.rstrip, node.GetBool("rstrip"));
  MOEBIUS_ASSIGN(token.normalized, node.GetBool("normalized"));
  MOEBIUS_ASSIGN(token.special, node.GetBool("special"));
  return token;
}

Result<AddedTokens> AddedTokens::Parse(const std::optional<JsonNode>& node, const TokenVocab& vocab,
                                       const Normalizer& normalizer) {
  AddedTokens added;
  std::vector<JsonNode> list;
  if (node) {
    MOEBIUS_ASSIGN(list, node->AsArray());
  }
  auto next_id = static_cast<TokenId>(vocab.size());
  RegexScratch scratch;
  for (const JsonNode& entry : list) {
    MOEBIUS_ASSIGN(Token token, ParseToken(entry));
    MOEBIUS_ASSIGN(const JsonNode id_node, entry.Get("id"));
    MOEBIUS_ASSIGN(const int64_t stated_id, id_node.AsInt());
    if (token.content.empty()) continue;
    std::optional<TokenId> id = added.Find(token.content);
    if (!id) id = vocab.Find(token.content);
    if (!id) id = next_id++;
    if (*id != stated_id) {
      LogWarning("tokenizer.json: {}: '{}' states the id {} but has {}", entry.path(),
                 token.content, stated_id, *id);
    }
    token.decode_text = token.content;
    if (token.normalized) normalizer.Apply(token.decode_text, scratch);
    added.ids_[token.content] = *id;
    if (token.special) added.special_.insert(token.content);
    added.by_id_[*id] = std::move(token);
  }
  std::vector<TokenTrie::Entry> raw;
  std::vector<TokenTrie::Entry> normalized;
  for (const auto& [id, token] : added.by_id_) {
    (token.normalized ? normalized : raw).push_back({token.decode_text, id});
  }
  added.raw_ = TokenTrie(raw);
  added.normalized_ = TokenTrie(normalized);
  const auto single_word = [](const auto& entry) { return entry.second.single_word; };
  if (std::any_of(added.by_id_.begin(), added.by_id_.end(), single_word)) {
    MOEBIUS_ASSIGN(added.word_, Regex::Compile(kWordCharacter));
  }
  return added;
}

bool AddedTokens::IsWordCharacter(char32_t c) const {
  RegexScratch scratch;  // few tokens ask
  std::vector<Span> matches;
  word_->FindAll(Utf8(c), scratch, matches);
  return !matches.empty();
}

void AddedTokens::Split(std::string_view text, bool normalized,
                        std::vector<Section>& sections) const {
  const TokenTrie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;
  size_t from = 0;
  while (const auto match = trie.FindNext(text, from)) {
    from = match->end;  // even if it is discarded
    const Token& token = by_id_.at(match->id);
    auto [begin, end] = Span{match->begin, match->end};
    if (token.single_word) {
      if (begin > 0 && IsWordCharacter(DecodeBefore(text, begin).value)) continue;
      if (end < text.size() && IsWordCharacter(DecodeAt(text, end).value)) continue;
    }
    if (token.lstrip) {
      while (begin > done && IsWhitespace(DecodeBefore(text, begin).value)) {
        begin -= static_cast<size_t>(DecodeBefore(text, begin).size);
      }
      begin = std::max(begin, done);
    }
    if (token.rstrip) {
      while (end < text.size() && IsWhitespace(DecodeAt(text, end).value)) {
        end += static_cast<size_t>(DecodeAt(text, end).size);
      }
    }
    if (done < begin) sections.push_back({std::nullopt, {done, begin}});
    // Nothing is left of a token that the one before took for its white space.
    if (begin < end) sections.push_back({match->id, {begin, end}});
    done = end;
  }
  if (done < text.size()) sections.push_back({std::nullopt, {done, text.size()}});
}

std::optional<TokenId> AddedTokens::Find(std::string_view token) const {
  const auto it = ids_.find(std::string(token));
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

std::string_view AddedTokens::TokenText(TokenId id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? std::string_view() : it->second.content;
}

std::string_view AddedTokens::DecodeText(TokenId id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? std::string_view() : it->second.decode_text;
}

}  // namespace moebius::text
