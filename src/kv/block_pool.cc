#include "kv/block_pool.h"

#include "base/check.h"

namespace moebius::kv {

BlockPool::BlockPool(int64_t num_blocks) : blocks_(static_cast<size_t>(num_blocks + kNumLists)) {
  MOEBIUS_CHECK_GT(num_blocks, 0);
  for (const bool kept : {false, true}) {
    Block& head = blocks_[static_cast<size_t>(Head(kept))];
    head.prev = head.next = Head(kept);
  }
  for (int32_t block = 0; block < num_blocks; ++block) Link(block, Head(false));
  num_free_ = num_blocks;
}

BlockId BlockPool::Take() {
  for (const bool kept : {false, true}) {
    const int32_t head = Head(kept);
    const int32_t block = blocks_[static_cast<size_t>(head)].next;
    if (block == head) continue;
    Ref(BlockId(block));
    return BlockId(block);
  }
  return BlockId();
}

void BlockPool::Ref(BlockId block) {
  Block& b = blocks_[block.Index()];
  if (b.refs == 0) {
    Unlink(block.value());
    --num_free_;
    if (b.kept) --num_kept_;
    b.kept = false;
  }
  ++b.refs;
}

void BlockPool::Unref(BlockId block, bool worth_keeping) {
  Block& b = blocks_[block.Index()];
  MOEBIUS_CHECK_GT(b.refs, 0);
  if (--b.refs > 0) return;
  b.kept = worth_keeping;
  Link(block.value(), Head(worth_keeping));
  ++num_free_;
  if (worth_keeping) ++num_kept_;
}

void BlockPool::Spoil(BlockId block) {
  Block& b = blocks_[block.Index()];
  if (b.refs > 0 || !b.kept) return;
  Unlink(block.value());
  b.kept = false;
  --num_kept_;
  Link(block.value(), blocks_[static_cast<size_t>(Head(false))].next);
}

void BlockPool::Link(int32_t block, int32_t before) {
  Block& b = blocks_[static_cast<size_t>(block)];
  Block& next = blocks_[static_cast<size_t>(before)];
  b.prev = next.prev;
  b.next = before;
  blocks_[static_cast<size_t>(b.prev)].next = block;
  next.prev = block;
}

void BlockPool::Unlink(int32_t block) {
  const Block& b = blocks_[static_cast<size_t>(block)];
  blocks_[static_cast<size_t>(b.prev)].next = b.next;
  blocks_[static_cast<size_t>(b.next)].prev = b.prev;
}

}  // namespace moebius::kv
