#include "kv/block_cache.h"

namespace moebius::kv {

BlockCache::BlockCache(int64_t num_blocks, int64_t block_size, bool share_prefixes)
    : block_size_(block_size),
      share_prefixes_(share_prefixes),
      pool_(num_blocks),
      index_(num_blocks, block_size) {}

std::vector<BlockId> BlockCache::Find(PrefixCursor& cursor, std::span<const TokenId> tokens) const {
  std::vector<BlockId> found;
  if (!share_prefixes_) return found;
  const size_t block_size = static_cast<size_t>(block_size_);
  for (size_t begin = 0; begin + block_size <= tokens.size(); begin += block_size) {
    const BlockId block = index_.Find(cursor, tokens.subspan(begin, block_size));
    if (!block.valid()) break;
    found.push_back(block);
  }
  return found;
}

void BlockCache::Hold(std::span<const BlockId> blocks) {
  for (const BlockId block : blocks) pool_.Ref(block);
}

bool BlockCache::Take(int64_t count, std::vector<BlockId>* blocks) {
  if (pool_.num_free() < count) return false;
  for (int64_t i = 0; i < count; ++i) {
    const BlockId block = pool_.Take();
    index_.Erase(block);
    blocks->push_back(block);
  }
  return true;
}

void BlockCache::Publish(PrefixCursor& cursor, std::span<const TokenId> tokens, BlockId block) {
  if (!share_prefixes_) return;
  BlockId displaced;
  index_.Insert(cursor, tokens, block, &displaced);
  if (displaced.valid()) pool_.Spoil(displaced);
}

void BlockCache::Release(std::span<const BlockId> blocks) {
  for (auto it = blocks.rbegin(); it != blocks.rend(); ++it) {
    pool_.Unref(*it, index_.Contains(*it));
  }
}

}  // namespace moebius::kv
