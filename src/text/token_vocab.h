// The model's vocabulary: tokens as tokenizer.json spells them, and their ids. Immutable, any
// thread.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/json_node.h"

namespace moebius::text {

class TokenVocab {
 public:
  // Ids at or past this are refused: tables are as long as the highest id.
  static constexpr TokenId kMaxId = 1 << 22;

  TokenVocab() = default;
  static Result<TokenVocab> Parse(const JsonNode& node);  // {"token": id, ...}

  std::optional<TokenId> Find(std::string_view token) const;
  // Empty if the id is not in the vocabulary.
  std::string_view TokenText(TokenId id) const;
  // Number of tokens; ids may have gaps.
  size_t size() const { return ids_.size(); }
  // One past the highest id.
  TokenId end_id() const { return static_cast<TokenId>(tokens_.size()); }

 private:
  struct Hash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  std::unordered_map<std::string, TokenId, Hash, std::equal_to<>> ids_;
  std::vector<const std::string*> tokens_;  // by id: keys of ids_; nullptr in a gap
};

}  // namespace moebius::text
