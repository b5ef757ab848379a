#include "kv/block_cache.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace moebius::kv {
namespace {

std::vector<TokenId> Range(int begin, int count) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), begin);
  return tokens;
}

TEST(BlockPool, TakesFreshBlocksBeforeKeptOnesAndTheOldestKeptFirst) {
  BlockPool pool(3);
  const BlockId a = pool.Take(), b = pool.Take(), c = pool.Take();
  EXPECT_FALSE(pool.Take().valid());
  pool.Unref(b, true);
  pool.Unref(a, true);
  pool.Unref(c, false);
  EXPECT_EQ(pool.num_free(), 3);
  EXPECT_EQ(pool.num_kept(), 2);
  EXPECT_EQ(pool.Take(), c);
  EXPECT_EQ(pool.Take(), b);
  EXPECT_EQ(pool.Take(), a);
  EXPECT_EQ(pool.num_kept(), 0);
}

TEST(BlockPool, AHitLeavesTheFreeListAndReturnsAtItsEnd) {
  BlockPool pool(2);
  const BlockId a = pool.Take(), b = pool.Take();
  pool.Unref(a, true);
  pool.Unref(b, true);
  pool.Ref(a);
  pool.Ref(a);
  EXPECT_EQ(pool.refs(a), 2);
  EXPECT_EQ(pool.num_free(), 1);
  pool.Unref(a, true);
  EXPECT_EQ(pool.num_free(), 1);
  pool.Unref(a, true);
  EXPECT_EQ(pool.Take(), b);
}

TEST(BlockPool, SpoiledBlocksAreTakenFirst) {
  BlockPool pool(2);
  const BlockId a = pool.Take(), b = pool.Take();
  pool.Unref(a, true);
  pool.Unref(b, true);
  pool.Spoil(b);
  EXPECT_EQ(pool.num_kept(), 1);
  EXPECT_EQ(pool.Take(), b);
}

PrefixHash EverythingCollides(PrefixHash, std::string_view, std::span<const TokenId>) {
  return {7, 7};
}

TEST(PrefixIndex, ACollidingHashIsNoHit) {
  PrefixIndex index(4, 2, &EverythingCollides);
  const std::vector<TokenId> one = {1, 2}, other = {1, 3};
  BlockId displaced;
  PrefixCursor cursor;
  ASSERT_TRUE(index.Insert(cursor, one, BlockId(0), &displaced));
  PrefixCursor at_root;
  EXPECT_FALSE(index.Find(at_root, other).valid());
  PrefixCursor salted("tenant");
  EXPECT_FALSE(index.Find(salted, one).valid());
  // The same tokens behind another prefix: same hash, same tokens, another parent.
  EXPECT_FALSE(index.Find(cursor, one).valid());
  EXPECT_EQ(index.Find(at_root, one), BlockId(0));
  // The newer of two that collide stays.
  PrefixCursor again;
  ASSERT_TRUE(index.Insert(again, other, BlockId(1), &displaced));
  EXPECT_EQ(displaced, BlockId(0));
  EXPECT_FALSE(index.Contains(BlockId(0)));
  EXPECT_EQ(index.size(), 1);
}

TEST(PrefixIndex, TheSameTokensAreIndexedOnce) {
  PrefixIndex index(4, 2);
  const std::vector<TokenId> tokens = {1, 2}, next = {3, 4};
  BlockId displaced;
  PrefixCursor a, b;
  EXPECT_TRUE(index.Insert(a, tokens, BlockId(0), &displaced));
  EXPECT_FALSE(index.Insert(b, tokens, BlockId(1), &displaced));
  EXPECT_EQ(a.parent, b.parent);
  EXPECT_TRUE(index.Insert(b, next, BlockId(2), &displaced));
  EXPECT_EQ(index.Find(a, next), BlockId(2));  // one chain for both
  EXPECT_FALSE(displaced.valid());
}

TEST(PrefixIndex, AChainWhoseBeginningIsGoneIsNoHitAndMakesRoom) {
  PrefixIndex index(6, 2);
  const std::vector<TokenId> first = {1, 2}, second = {3, 4};
  BlockId displaced;
  PrefixCursor cursor;
  index.Insert(cursor, first, BlockId(0), &displaced);
  index.Insert(cursor, second, BlockId(1), &displaced);
  index.Erase(BlockId(0));
  PrefixCursor fresh;
  EXPECT_FALSE(index.Find(fresh, first).valid());
  index.Insert(fresh, first, BlockId(2), &displaced);
  EXPECT_FALSE(index.Find(fresh, second).valid());
  EXPECT_TRUE(index.Insert(fresh, second, BlockId(3), &displaced));
  EXPECT_EQ(displaced, BlockId(1));
}

TEST(BlockCache, FindsTheLongestPublishedPrefixWithinOneSalt) {
  BlockCache cache(8, 4, true);
  const std::vector<TokenId> tokens = Range(0, 12);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(cache.Take(3, &blocks));
  PrefixCursor cursor("a");
  for (size_t i = 0; i < 3; ++i) {
    cache.Publish(cursor, std::span(tokens).subspan(i * 4, 4), blocks[i]);
  }
  cache.Release(blocks);
  EXPECT_EQ(cache.num_free(), 8);
  EXPECT_EQ(cache.num_cached(), 3);

  PrefixCursor same("a"), other("b"), none;
  EXPECT_EQ(cache.Find(same, std::span(tokens).first(11)),
            std::vector<BlockId>(blocks.begin(), blocks.begin() + 2));
  EXPECT_TRUE(cache.Find(other, tokens).empty());
  EXPECT_TRUE(cache.Find(none, tokens).empty());
}

TEST(BlockCache, TakeIsAllOrNothing) {
  BlockCache cache(4, 4, true);
  std::vector<BlockId> blocks;
  EXPECT_FALSE(cache.Take(5, &blocks));
  EXPECT_TRUE(blocks.empty());
  EXPECT_TRUE(cache.Take(4, &blocks));
  EXPECT_EQ(cache.num_free(), 0);
}

TEST(BlockCache, WithoutSharingNothingIsFound) {
  BlockCache cache(4, 2, false);
  const std::vector<TokenId> tokens = Range(0, 4);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(cache.Take(2, &blocks));
  PrefixCursor cursor, again;
  cache.Publish(cursor, std::span(tokens).first(2), blocks[0]);
  EXPECT_TRUE(cache.Find(again, tokens).empty());
  cache.Release(blocks);
  EXPECT_EQ(cache.num_cached(), 0);
}

// Random sequences over a shadow of what every block holds: a hit must hold exactly the tokens that
// were asked for, in blocks that nobody else is writing, and nothing leaks.
TEST(BlockCache, RandomSequencesNeverShareAWrongBlock) {
  constexpr int kBlockSize = 2;
  struct Sequence {
    std::vector<TokenId> tokens;
    std::vector<BlockId> blocks;
    std::string salt;
    size_t num_shared = 0;
  };
  std::mt19937 random(11);
  BlockCache cache(24, kBlockSize, true);
  std::vector<std::vector<TokenId>> content(24);
  std::vector<std::string> salt_of(24);
  std::vector<Sequence> live;
  int64_t num_hits = 0;
  for (int step = 0; step < 20000; ++step) {
    if (live.size() > 4 || (!live.empty() && random() % 3 == 0)) {
      const size_t victim = random() % live.size();
      cache.Release(live[victim].blocks);
      live.erase(live.begin() + static_cast<std::ptrdiff_t>(victim));
      continue;
    }
    Sequence sequence;
    sequence.salt = random() % 4 == 0 ? "x" : "";
    const size_t num_tokens = kBlockSize * (1 + random() % 5);
    for (size_t i = 0; i < num_tokens; ++i) {
      sequence.tokens.push_back(static_cast<TokenId>(random() % 2));
    }
    PrefixCursor cursor(sequence.salt);
    sequence.blocks = cache.Find(cursor, sequence.tokens);
    sequence.num_shared = sequence.blocks.size();
    num_hits += static_cast<int64_t>(sequence.num_shared);
    for (size_t i = 0; i < sequence.num_shared; ++i) {
      const size_t block = sequence.blocks[i].Index();
      // A block's shadow holds its whole chain, so that a wrong parent would show.
      ASSERT_EQ(content[block], std::vector<TokenId>(sequence.tokens.begin(),
                                                     sequence.tokens.begin() +
                                                         static_cast<int>(i + 1) * kBlockSize));
      ASSERT_EQ(salt_of[block], sequence.salt);
    }
    cache.Hold(sequence.blocks);
    const size_t num_wanted = num_tokens / kBlockSize - sequence.num_shared;
    if (!cache.Take(static_cast<int64_t>(num_wanted), &sequence.blocks)) {
      cache.Release(sequence.blocks);
      continue;
    }
    for (size_t i = sequence.num_shared; i < sequence.blocks.size(); ++i) {
      ASSERT_EQ(cache.refs(sequence.blocks[i]), 1);
      const size_t block = sequence.blocks[i].Index();
      content[block].assign(sequence.tokens.begin(),
                            sequence.tokens.begin() + static_cast<int>(i + 1) * kBlockSize);
      salt_of[block] = sequence.salt;
      cache.Publish(cursor, std::span(sequence.tokens).subspan(i * kBlockSize, kBlockSize),
                    sequence.blocks[i]);
    }
    live.push_back(std::move(sequence));
  }
  for (const Sequence& sequence : live) cache.Release(sequence.blocks);
  EXPECT_EQ(cache.num_free(), cache.num_blocks());
  EXPECT_GT(num_hits, 1000);
}

}  // namespace
}  // namespace moebius::kv
