// The "added_tokens" of a tokenizer.json: tokens found in a text before anything splits it, special
// ones among them. Immutable after Parse, any thread.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/json_node.h"
#include "text/normalizer.h"
#include "text/regex.h"
#include "text/token_trie.h"
#include "text/token_vocab.h"

namespace moebius::text {

// A part of a text: an added token, or text between two.
struct Section {
  std::optional<TokenId> id;
  Span span;
};

class AddedTokens {
 public:
  // `node` may be null. A token that is in `vocab` has its id there; the others come after the
  // vocabulary in order, whatever ids they state.
  static Result<AddedTokens> Parse(const std::optional<JsonNode>& node, const TokenVocab& vocab,
                                   const Normalizer& normalizer);

  // Cuts `text` (valid) at the tokens that are matched as the user wrote them, or at those that are
  // matched after normalisation. The longest of those that begin first wins.
  void Split(std::string_view text, bool normalized, std::vector<Section>& sections) const;

  std::optional<TokenId> Find(std::string_view token) const;
  // Empty if the id is of no added token.
  std::string_view TokenText(TokenId id) const;
  // The same in the spelling that decoders expect: normalised if the token is.
  std::string_view DecodeText(TokenId id) const;
  // Whether some special token is spelled like this.
  bool IsSpecial(std::string_view token) const { return special_.contains(std::string(token)); }
  // One past the highest id.
  TokenId end_id() const { return by_id_.empty() ? 0 : by_id_.rbegin()->first + 1; }

 private:
  struct Token {
    std::string content;
    std::string decode_text;
    bool single_word;  // matches only between characters that are no part of words
    bool lstrip;       // takes the white space before it too
    bool rstrip;
    bool normalized;
    bool special;
  };

  static Result<Token> ParseToken(const JsonNode& node);
  bool IsWordCharacter(char32_t c) const;

  std::map<TokenId, Token> by_id_;
  std::unordered_map<std::string, TokenId> ids_;
  std::unordered_set<std::string> special_;
  TokenTrie raw_;
  TokenTrie normalized_;
  std::optional<Regex> word_;  // one character of a word; only where a token asks
};

}  // namespace moebius::text
