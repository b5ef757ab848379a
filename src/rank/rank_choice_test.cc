// Which rank a request goes to: prefixes remembered, tokens counted, turns taken.
#include "rank/rank_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <numeric>
#include <random>

namespace moebius::rank {
namespace {

constexpr int64_t kBlockSize = 4;

std::vector<TokenId> TokensFrom(int64_t count, TokenId first = 0) {
  std::vector<TokenId> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

std::vector<TokenId> Joined(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

RoutedRequest Request(std::vector<TokenId> prompt, int32_t max_tokens = 8) {
  engine::RequestInput input;
  input.prompt = std::move(prompt);
  input.sampling.max_tokens = max_tokens;
  return {input, kBlockSize};
}

RankChoice Choice(int num_ranks, int64_t max_blocks = 1000) {
  return RankChoice({num_ranks, kBlockSize, max_blocks});
}

// As a client does.
int Route(RankChoice& choice, const RoutedRequest& request) {
  const int rank = choice.Order(request)[0];
  choice.Assign(rank, request);
  choice.Remember(rank, request.chain.blocks());
  return rank;
}

TEST(BlockChain, IsTheTextHoweverItComes) {
  const std::vector<TokenId> text = TokensFrom(23);
  BlockChain whole(kBlockSize, "salt");
  whole.Append(text);
  EXPECT_EQ(whole.blocks().size(), 5U);
  for (const size_t piece : {1, 3, 4, 7, 9}) {
    BlockChain pieces(kBlockSize, "salt");
    for (size_t begin = 0; begin < text.size(); begin += piece) {
      pieces.Append(std::span(text).subspan(begin, std::min(piece, text.size() - begin)));
    }
    EXPECT_EQ(pieces.blocks(), whole.blocks()) << piece;
  }
  for (const int64_t cut : {0, 2, 4, 11, 23}) {
    BlockChain first(kBlockSize, "salt");
    first.Append(std::span(text).first(static_cast<size_t>(cut)));
    BlockChain rest = first.Continuation();
    rest.Append(std::span(text).subspan(static_cast<size_t>(cut)));
    std::vector<uint64_t> both = first.blocks();
    both.insert(both.end(), rest.blocks().begin(), rest.blocks().end());
    EXPECT_EQ(both, whole.blocks()) << cut;
  }
}

TEST(BlockChain, BlockStandsForAllBeforeIt) {
  BlockChain chain(kBlockSize, "");
  chain.Append(TokensFrom(8));
  BlockChain other(kBlockSize, "");
  other.Append(Joined(TokensFrom(4, 100), TokensFrom(4, 4)));
  EXPECT_NE(chain.blocks()[1], other.blocks()[1]);
  BlockChain salted(kBlockSize, "of another user");
  salted.Append(TokensFrom(8));
  EXPECT_NE(chain.blocks()[0], salted.blocks()[0]);
  EXPECT_NE(chain.blocks()[1], salted.blocks()[1]);
}

// Against a list of what was used last: chains that share beginnings, in random order.
TEST(RoutedBlocks, ForgetsWhatWasNotUsedForLong) {
  std::mt19937 random(3);
  for (const int64_t max_blocks : {0, 1, 5, 40}) {
    RoutedBlocks blocks(max_blocks);
    std::list<uint64_t> by_use;
    for (int step = 0; step < 2000; ++step) {
      std::vector<uint64_t> chain;
      uint64_t node = 1;
      for (uint32_t i = 0, size = random() % 12; i < size; ++i) {
        node = node * 3 + random() % 2;  // no two paths of the tree share a node
        chain.push_back(node);
      }
      if (random() % 2 == 0) {
        blocks.Insert(chain);
        const size_t num_kept = std::min(chain.size(), static_cast<size_t>(max_blocks));
        for (size_t i = num_kept; i-- > 0;) {
          by_use.remove(chain[i]);
          by_use.push_front(chain[i]);
        }
        by_use.resize(std::min(by_use.size(), static_cast<size_t>(max_blocks)));
      }
      const auto unknown = std::ranges::find_if(
          chain, [&](uint64_t block) { return std::ranges::find(by_use, block) == by_use.end(); });
      ASSERT_EQ(blocks.CountLeading(chain), unknown - chain.begin());
      ASSERT_EQ(blocks.size(), static_cast<int64_t>(by_use.size()));
    }
  }
}

TEST(RankChoice, EqualRanksTakeTurns) {
  RankChoice choice = Choice(3);
  for (int i = 0; i < 9; ++i) {
    EXPECT_EQ(Route(choice, Request(TokensFrom(10, 1000 * i))), i % 3);
  }
  RankChoice idle = Choice(3);
  for (int i = 0; i < 9; ++i) {
    const RoutedRequest request = Request(TokensFrom(10, 1000 * i));
    const int rank = idle.Order(request)[0];
    EXPECT_EQ(rank, i % 3);
    idle.Remove(rank, idle.Assign(rank, request));
  }
}

TEST(RankChoice, OrderIsByCost) {
  RankChoice choice = Choice(3);
  choice.Assign(0, Request(TokensFrom(30)));
  choice.Assign(1, Request(TokensFrom(10)));
  choice.Assign(2, Request(TokensFrom(20)));
  EXPECT_EQ(choice.Order(Request(TokensFrom(5, 500))), (std::vector<int>{1, 2, 0}));
}

TEST(RankChoice, TokensCountNotRequests) {
  RankChoice choice = Choice(2);
  EXPECT_EQ(Route(choice, Request(TokensFrom(1000), 1)), 0);
  // Requests of 10 + 1 tokens: as many as the long one weighs go elsewhere.
  for (int i = 0; i < 91; ++i) {
    EXPECT_EQ(Route(choice, Request(TokensFrom(10, 2000 + 10 * i), 1)), 1) << i;
  }
  EXPECT_EQ(choice.loads()[0], (RankBacklog{1, 1000, 1}));
  EXPECT_EQ(choice.loads()[1], (RankBacklog{91, 910, 91}));
  EXPECT_EQ(Route(choice, Request(TokensFrom(10, 5000), 1)), 0);
}

TEST(RankChoice, PrefixWinsUntilItsRankIsBehindByMore) {
  RankChoice choice = Choice(2);
  const std::vector<TokenId> shared = TokensFrom(100);
  choice.Remember(0, Request(shared).chain.blocks());
  const RoutedRequest request = Request(Joined(shared, TokensFrom(5, 500)));
  EXPECT_EQ(choice.CachedTokens(0, request), 100);
  EXPECT_EQ(choice.CachedTokens(1, request), 0);
  choice.Assign(0, Request(TokensFrom(91, 1000)));  // and 8 to draw: 99 behind
  EXPECT_EQ(choice.Order(request)[0], 0);
  // As far behind as the cache spares: computing less is better.
  choice.Assign(0, Request(TokensFrom(1, 2000), 0));
  EXPECT_EQ(choice.Order(request)[0], 0);
  choice.Assign(0, Request(TokensFrom(1, 3000), 0));
  EXPECT_EQ(choice.Order(request)[0], 1);
}

TEST(RankChoice, OnlyWhatACacheServesIsSpared) {
  RankChoice choice = Choice(2);
  const RoutedRequest request = Request(TokensFrom(16));
  choice.Remember(0, request.chain.blocks());
  // The last token is always computed, and so its block.
  EXPECT_EQ(choice.CachedTokens(0, request), 12);
  EXPECT_EQ(choice.CachedTokens(0, Request(TokensFrom(17))), 16);
  EXPECT_EQ(choice.Assign(0, request), (RankBacklog{1, 4, 8}));
  engine::RequestInput scored;
  scored.prompt = TokensFrom(17);
  scored.sampling.num_prompt_logprobs = 0;
  EXPECT_EQ(choice.CachedTokens(0, {scored, kBlockSize}), 0);
  engine::RequestInput salted;
  salted.prompt = TokensFrom(17);
  salted.cache_salt = "mine";
  EXPECT_EQ(choice.CachedTokens(0, {salted, kBlockSize}), 0);
  RankChoice forgetful = Choice(2, 0);
  forgetful.Remember(0, request.chain.blocks());
  EXPECT_EQ(forgetful.CachedTokens(0, request), 0);
}

TEST(RankChoice, DecodesCountUpToTheHorizon) {
  engine::RequestInput input;
  input.prompt = TokensFrom(3);
  EXPECT_EQ(RoutedRequest(input, kBlockSize).num_decode_tokens, kDecodeHorizon);
  input.sampling.max_tokens = 1 << 30;
  EXPECT_EQ(RoutedRequest(input, kBlockSize).num_decode_tokens, kDecodeHorizon);
  input.sampling.max_tokens = 2;
  EXPECT_EQ(RoutedRequest(input, kBlockSize).num_decode_tokens, 2);
}

// Everybody has the same system prompt: it is computed on every rank once, then work is even.
TEST(RankChoice, PopularPrefixSpreads) {
  RankChoice choice = Choice(4);
  const std::vector<TokenId> system = TokensFrom(400);
  for (int i = 0; i < 400; ++i) {
    Route(choice, Request(Joined(system, TokensFrom(10, 1000 + 10 * i)), 20));
  }
  for (const RankBacklog& load : choice.loads()) {
    EXPECT_GT(load.num_requests, 80);
    EXPECT_LT(load.num_requests, 120);
  }
}

// Long prompts among short ones, in bursts: no rank is ever behind another by more
// than the longest request. (Counting requests puts several long prompts on one rank: the bound is
// broken by far.)
TEST(RankChoice, LongAndShortPromptsBalance) {
  constexpr int64_t kLongest = 4000;
  const auto worst_gap = [&](bool by_tokens) {
    RankChoice choice = Choice(4, 0);
    std::mt19937 random(11);
    struct Routed {
      int rank;
      RankBacklog load;
    };
    std::vector<Routed> under_way;
    int64_t worst = 0;
    for (int i = 0; i < 5000; ++i) {
      const int64_t num_tokens = random() % 10 == 0 ? kLongest : 10 + random() % 30;
      const RoutedRequest request = Request(TokensFrom(num_tokens, 17 * i), 1);
      const auto& loads = choice.loads();
      const int rank =
          by_tokens
              ? choice.Order(request)[0]
              : static_cast<int>(std::ranges::min_element(loads, {}, &RankBacklog::num_requests) -
                                 loads.begin());
      under_way.push_back({rank, choice.Assign(rank, request)});
      const auto [least, most] = std::ranges::minmax_element(loads, {}, &RankBacklog::num_tokens);
      worst = std::max(worst, most->num_tokens() - least->num_tokens());
      if (under_way.size() == 200) {
        for (const Routed& routed : under_way) choice.Remove(routed.rank, routed.load);
        under_way.clear();
      }
    }
    return worst;
  };
  EXPECT_LE(worst_gap(true), kLongest + 1);
  EXPECT_GT(worst_gap(false), 3 * kLongest);
}

}  // namespace
}  // namespace moebius::rank
