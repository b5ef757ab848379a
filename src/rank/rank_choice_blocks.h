// What the choice of a rank remembers of prompts: the full KV blocks that were sent to a rank, as
// hashes of their tokens and of all tokens before them, the least recently used forgotten. It
// follows the ranks' own prefix caches without asking them, so it may be wrong both ways; then a
// request is computed on a rank that had not been the best for it. Plain values; their owner guards
// them.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "kv/prefix_index.h"

namespace moebius::rank {

// The blocks of a text that grows.
class BlockChain {
 public:
  BlockChain(int64_t block_size, std::string salt);

  void Append(std::span<const TokenId> tokens);

  // The full blocks so far, one hash each: equal ones have equal beginnings (and salts).
  const std::vector<uint64_t>& blocks() const { return blocks_; }

  // A chain that goes on behind this one and has only the blocks to come.
  BlockChain Continuation() const;

 private:
  void Close(std::span<const TokenId> block);

  size_t block_size_;
  std::string salt_;  // until the first block has it
  kv::PrefixHash hash_;
  std::vector<TokenId> tail_;  // of the block that is not full yet
  std::vector<uint64_t> blocks_;
};

// The blocks that one rank was sent, at most `max_blocks`.
class RoutedBlocks {
 public:
  explicit RoutedBlocks(int64_t max_blocks) : max_blocks_(static_cast<size_t>(max_blocks)) {}

  // The blocks of a chain from its beginning; they are the last to be forgotten now, the beginning
  // after all others.
  void Insert(std::span<const uint64_t> chain);

  // How many blocks of the chain are known, from its beginning on. A block is never forgotten after
  // one that follows it, so a few look-ups tell.
  int64_t CountLeading(std::span<const uint64_t> chain) const;

  int64_t size() const { return static_cast<int64_t>(places_.size()); }

 private:
  size_t max_blocks_;
  std::list<uint64_t> by_use_;  // the latest first
  std::unordered_map<uint64_t, std::list<uint64_t>::iterator> places_;
};

}  // namespace moebius::rank
