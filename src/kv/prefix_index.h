// Finds the KV block that already holds a stretch of tokens after a given prefix. Only full blocks
// are indexed. A block's key is a hash chained over all tokens before it (and the salt), so one
// look-up decides a block; a hit counts only after its tokens, its salt and the very entry before
// it have been compared, so that no collision of hashes, found or forged, can give one request
// another's KV. Owned by a scheduler, its thread only.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"

namespace moebius::kv {

struct PrefixHash {
  uint64_t low = 0;
  uint64_t high = 0;
  bool operator==(const PrefixHash&) const = default;
};

// A place in a chain of blocks: behind the block that was found or inserted last. Starts at the
// root of a salt's chains, whose string outlives the cursor.
struct PrefixCursor {
  PrefixCursor() = default;
  explicit PrefixCursor(std::string_view salt) : salt(salt) {}

  std::string_view salt;
  PrefixHash hash;      // of everything before
  uint64_t parent = 0;  // the entry before; 0: none
};

class PrefixIndex {
 public:
  // The hash of one block behind `before` (`salt` matters to the first block of a chain only).
  using HashFunction = PrefixHash (*)(PrefixHash before, std::string_view salt,
                                      std::span<const TokenId> tokens);
  static PrefixHash Xxh3(PrefixHash before, std::string_view salt, std::span<const TokenId> tokens);

  PrefixIndex(int64_t num_blocks, int64_t block_size, HashFunction hash = &Xxh3);

  // The block that holds `tokens` (block_size of them) behind the cursor, which moves on; not
  // valid(): none, and the cursor stays.
  BlockId Find(PrefixCursor& cursor, std::span<const TokenId> tokens) const;

  // `block` holds `tokens` behind the cursor, which moves on. Where another block is known for the
  // same tokens, that one stays and the result is false: `block` is a private copy. A known block
  // that has the hash but not the content (a collision, or a chain whose beginning is gone) is
  // forgotten; its id goes to *displaced.
  bool Insert(PrefixCursor& cursor, std::span<const TokenId> tokens, BlockId block,
              BlockId* displaced);

  // The block's content is about to go. Not indexed: no effect.
  void Erase(BlockId block);

  bool Contains(BlockId block) const { return entries_[block.Index()].id != 0; }
  int64_t size() const { return static_cast<int64_t>(by_hash_.size()); }

 private:
  struct Entry {
    uint64_t id = 0;  // never used twice; 0: the block is not indexed
    uint64_t parent = 0;
    PrefixHash hash;
    std::string salt;  // of a first block
  };
  struct HashOfHash {
    size_t operator()(const PrefixHash& hash) const { return static_cast<size_t>(hash.low); }
  };

  bool Holds(BlockId block, const PrefixCursor& cursor, std::span<const TokenId> tokens) const;
  std::span<const TokenId> Tokens(BlockId block) const;

  int64_t block_size_;
  HashFunction hash_;
  uint64_t next_id_ = 1;
  std::vector<Entry> entries_;   // by block
  std::vector<TokenId> tokens_;  // by block, block_size each
  std::unordered_map<PrefixHash, BlockId, HashOfHash> by_hash_;
};

}  // namespace moebius::kv
