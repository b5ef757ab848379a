#include "text/token_trie.h"

#include <cstdint>

namespace moebius::text {

TokenTrie::TokenTrie(const std::vector<Entry>& entries) : end_ids_{kNoToken} {
  size_t num_bytes = 0;
  for (const Entry& entry : entries) num_bytes += entry.text.size();
  children_ = FlatHash<uint32_t>(num_bytes);
  for (const Entry& entry : entries) {
    if (entry.text.empty()) continue;
    starts_[static_cast<uint8_t>(entry.text[0])] = true;
    uint32_t node = 0;
    for (const char byte : entry.text) {
      const uint64_t key = PairKey(node, static_cast<uint8_t>(byte));
      if (const uint32_t* child = children_.Find(key)) {
        node = *child;
      } else {
        node = static_cast<uint32_t>(end_ids_.size());
        children_.Set(key, node);
        end_ids_.push_back(kNoToken);
      }
    }
    if (end_ids_[node] == kNoToken) end_ids_[node] = entry.id;
  }
}

std::optional<TokenTrie::Match> TokenTrie::FindNext(std::string_view text, size_t from) const {
  if (empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<uint8_t>(text[begin])]) continue;
    std::optional<Match> longest;
    uint32_t node = 0;
    for (size_t pos = begin; pos < text.size(); ++pos) {
      const uint32_t* child = children_.Find(PairKey(node, static_cast<uint8_t>(text[pos])));
      if (child == nullptr) break;
      node = *child;
      if (end_ids_[node] != kNoToken) longest = Match{end_ids_[node], begin, pos + 1};
    }
    if (longest) return longest;
  }
  return std::nullopt;
}

}  // namespace moebius::text
