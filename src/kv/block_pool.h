// The KV blocks of a rank as numbers: who holds how many references, and in which order free ones
// are used again. A block is free when nobody holds it; a free block may still be worth keeping
// (its prefix can be found), so those are taken last, least recently released first. Owned by a
// scheduler, its thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"

namespace moebius::kv {

class BlockPool {
 public:
  explicit BlockPool(int64_t num_blocks);

  int64_t size() const { return static_cast<int64_t>(blocks_.size()) - kNumLists; }
  int64_t num_free() const { return num_free_; }
  int64_t num_kept() const { return num_kept_; }  // of the free ones, those worth keeping
  int32_t refs(BlockId block) const { return blocks_[block.Index()].refs; }

  // A free block, now with one reference: one not worth keeping if there is any. No block is free:
  // an id that is not valid().
  BlockId Take();

  // One more holder. A free block (a cache hit) stops being free.
  void Ref(BlockId block);

  // One holder less; the last one's block becomes free and goes to the end of its list.
  void Unref(BlockId block, bool worth_keeping);

  // A free block that is not worth keeping any more is the next to be taken.
  void Spoil(BlockId block);

 private:
  // Two circular lists through the blocks, headed by two extra entries behind the real ones.
  static constexpr int32_t kNumLists = 2;
  struct Block {
    int32_t refs = 0;
    int32_t prev = 0;
    int32_t next = 0;
    bool kept = false;
  };

  int32_t Head(bool kept) const { return static_cast<int32_t>(size()) + (kept ? 1 : 0); }
  void Link(int32_t block, int32_t before);
  void Unlink(int32_t block);

  std::vector<Block> blocks_;
  int64_t num_free_ = 0;
  int64_t num_kept_ = 0;
};

}  // namespace moebius::kv
