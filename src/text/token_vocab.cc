#include "text/token_vocab.h"

#include <algorithm>

namespace moebius::text {

Result<TokenVocab> TokenVocab::Parse(const JsonNode& node) {
  using Entries = std::vector<std::pair<std::string, int64_t>>;
  MOEBIUS_ASSIGN(Entries entries, node.AsIntMap());
  TokenVocab vocab;
  vocab.ids_.reserve(entries.size());
  TokenId end_id = 0;
  for (auto& [token, id] : entries) {
    if (id < 0 || id >= kMaxId) {
      return node.Corrupt(
          fmt::format("'{}' has the id {}, expected 0 to {}", token, id, kMaxId - 1));
    }
    end_id = std::max(end_id, static_cast<TokenId>(id + 1));
    vocab.ids_.emplace(std::move(token), static_cast<TokenId>(id));
  }
  vocab.tokens_.assign(static_cast<size_t>(end_id), nullptr);
  for (const auto& [token, id] : vocab.ids_) {
    const std::string*& slot = vocab.tokens_[static_cast<size_t>(id)];
    if (slot != nullptr) {
      return node.Corrupt(fmt::format("'{}' and '{}' have the same id {}", *slot, token, id));
    }
    slot = &token;
  }
  return vocab;
}

std::optional<TokenId> TokenVocab::Find(std::string_view token) const {
  const auto it = ids_.find(token);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

std::string_view TokenVocab::TokenText(TokenId id) const {
  if (id < 0 || id >= end_id() || tokens_[static_cast<size_t>(id)] == nullptr) return {};
  return *tokens_[static_cast<size_t>(id)];
}

}  // namespace moebius::text
