#include "kv/prefix_index.h"

#include <xxhash.h>

#include <algorithm>

#include "base/check.h"

namespace moebius::kv {

PrefixHash PrefixIndex::Xxh3(PrefixHash before, std::string_view salt,
                             std::span<const TokenId> tokens) {
  // A chain hash seeds the next; 64 of its bits as seed and the other 64 folded in keep all 128.
  const uint64_t seed = XXH3_64bits_withSeed(salt.data(), salt.size(), before.low);
  const XXH128_hash_t hash = XXH3_128bits_withSeed(tokens.data(), tokens.size_bytes(), seed);
  return {hash.low64 ^ before.high, hash.high64};
}

PrefixIndex::PrefixIndex(int64_t num_blocks, int64_t block_size, HashFunction hash)
    : block_size_(block_size),
      hash_(hash),
      entries_(static_cast<size_t>(num_blocks)),
      tokens_(static_cast<size_t>(num_blocks * block_size)) {
  by_hash_.reserve(static_cast<size_t>(num_blocks));
}

BlockId PrefixIndex::Find(PrefixCursor& cursor, std::span<const TokenId> tokens) const {
  const PrefixHash hash =
      hash_(cursor.hash, cursor.parent == 0 ? cursor.salt : std::string_view(), tokens);
  const auto it = by_hash_.find(hash);
  if (it == by_hash_.end() || !Holds(it->second, cursor, tokens)) return BlockId();
  cursor.hash = hash;
  cursor.parent = entries_[it->second.Index()].id;
  return it->second;
}

bool PrefixIndex::Insert(PrefixCursor& cursor, std::span<const TokenId> tokens, BlockId block,
                         BlockId* displaced) {
  MOEBIUS_CHECK_EQ(static_cast<int64_t>(tokens.size()), block_size_);
  MOEBIUS_CHECK(!Contains(block));
  const PrefixHash hash =
      hash_(cursor.hash, cursor.parent == 0 ? cursor.salt : std::string_view(), tokens);
  const auto [it, is_new] = by_hash_.try_emplace(hash, block);
  if (!is_new) {
    if (Holds(it->second, cursor, tokens)) {
      cursor.hash = hash;
      cursor.parent = entries_[it->second.Index()].id;
      return false;
    }
    *displaced = it->second;
    entries_[it->second.Index()].id = 0;
    it->second = block;
  }
  Entry& entry = entries_[block.Index()];
  entry.id = next_id_++;
  entry.parent = cursor.parent;
  entry.hash = hash;
  entry.salt = cursor.parent == 0 ? cursor.salt : std::string_view();
  std::copy(tokens.begin(), tokens.end(), tokens_.begin() + block.value() * block_size_);
  cursor.hash = hash;
  cursor.parent = entry.id;
  return true;
}

void PrefixIndex::Erase(BlockId block) {
  Entry& entry = entries_[block.Index()];
  if (entry.id == 0) return;
  by_hash_.erase(entry.hash);
  entry.id = 0;
}

bool PrefixIndex::Holds(BlockId block, const PrefixCursor& cursor,
                        std::span<const TokenId> tokens) const {
  const Entry& entry = entries_[block.Index()];
  return entry.parent == cursor.parent && (cursor.parent != 0 || entry.salt == cursor.salt) &&
         std::ranges::equal(Tokens(block), tokens);
}

std::span<const TokenId> PrefixIndex::Tokens(BlockId block) const {
  return std::span(tokens_).subspan(block.Index() * static_cast<size_t>(block_size_),
                                    static_cast<size_t>(block_size_));
}

}  // namespace moebius::kv
