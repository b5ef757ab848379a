// The KV blocks that sequences hold, with prefixes shared between them: a block pool and the index
// of what its blocks contain. Blocks that a sequence writes belong to it alone; a published block
// is never written again until it has been free and taken anew. Owned by a scheduler, its thread
// only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "kv/block_pool.h"
#include "kv/prefix_index.h"

namespace moebius::kv {

class BlockCache {
 public:
  // share_prefixes false: nothing is ever found or kept.
  BlockCache(int64_t num_blocks, int64_t block_size, bool share_prefixes);

  int64_t block_size() const { return block_size_; }
  int64_t num_blocks() const { return pool_.size(); }
  int64_t num_free() const { return pool_.num_free(); }
  int64_t num_cached() const { return pool_.num_kept(); }  // free, but can still be found
  int64_t NumBlocksFor(int64_t num_tokens) const {
    return (num_tokens + block_size_ - 1) / block_size_;
  }
  int32_t refs(BlockId block) const { return pool_.refs(block); }

  // The longest chain of known full blocks that begins `tokens` at the cursor, which moves behind
  // it. They are not held yet: Hold them before anything else is taken.
  std::vector<BlockId> Find(PrefixCursor& cursor, std::span<const TokenId> tokens) const;
  void Hold(std::span<const BlockId> blocks);

  // Appends `count` blocks of the caller's own to *blocks, or, where fewer are free, none (false).
  bool Take(int64_t count, std::vector<BlockId>* blocks);

  // The caller's `block` has been filled with `tokens` (one block of them) behind the cursor, which
  // moves on: others may find it from now on.
  void Publish(PrefixCursor& cursor, std::span<const TokenId> tokens, BlockId block);

  // Gives back what one sequence held, in its order: the end of a chain is reused before what it
  // hangs on.
  void Release(std::span<const BlockId> blocks);

 private:
  int64_t block_size_;
  bool share_prefixes_;
  BlockPool pool_;
  PrefixIndex index_;
};

}  // namespace moebius::kv
