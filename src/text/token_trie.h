// Finds which of a set of strings stands at a place of a text, the longest if several do. Filled
// once, then any thread may search.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "text/flat_hash.h"

namespace moebius::text {

class TokenTrie {
 public:
  struct Entry {
    std::string_view text;
    TokenId id;
  };
  struct Match {
    TokenId id;
    size_t begin;
    size_t end;
  };

  TokenTrie() = default;
  // Empty texts never match; of equal texts the first counts.
  explicit TokenTrie(const std::vector<Entry>& entries);

  bool empty() const { return end_ids_.size() <= 1; }

  // The first match that begins at `from` or later.
  std::optional<Match> FindNext(std::string_view text, size_t from) const;

 private:
  static constexpr TokenId kNoToken = -1;

  FlatHash<uint32_t> children_;   // PairKey(node, byte) -> node
  std::vector<TokenId> end_ids_;  // per node: the string that ends there; node 0 is the root
  std::array<bool, 256> starts_{};
};

}  // namespace moebius::text
