// Which data-parallel rank a request goes to, counted in tokens:
//
//   cost(rank) = tokens that the rank still has to compute + tokens of this prompt not cached there
//
// and the cheapest takes it. So a conversation stays where its beginning is cached until that rank
// is behind by more tokens than the cache spares, and a prompt that all ranks know spreads. What a
// rank has to compute is what it was sent: a prompt, less what is cached, until its first token
// comes; and for every request until its end the tokens it will draw, of which at most
// kDecodeHorizon count (one a step: that is how many steps ahead the choice looks). What is cached
// is what was sent there before (rank_choice_blocks.h).
//
// Knows neither engines nor threads; owned by a DataParallelClient, which guards it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/request.h"
#include "rank/rank_choice_blocks.h"

namespace moebius::rank {

constexpr int64_t kDecodeHorizon = 64;

struct RankChoiceOptions {
  int num_ranks = 1;
  int64_t block_size = 16;                // tokens; the engines'
  int64_t max_blocks = int64_t{1} << 16;  // remembered of each rank; 0: none is cached anywhere
};

// What of a request the choice looks at.
struct RoutedRequest {
  RoutedRequest(const engine::RequestInput& input, int64_t block_size);

  int64_t num_prompt_tokens = 0;
  int64_t num_decode_tokens = 0;  // to draw, within the horizon
  // The prompt's; and how many of its blocks a cache may serve: not the one with the last token,
  // and none where every row of the prompt must be computed.
  BlockChain chain;
  size_t num_cacheable = 0;
};

// What a rank has to compute.
struct RankBacklog {
  int64_t num_requests = 0;  // routed and not ended
  int64_t num_prompt_tokens = 0;
  int64_t num_decode_tokens = 0;
  int64_t num_tokens() const { return num_prompt_tokens + num_decode_tokens; }
  bool operator==(const RankBacklog&) const = default;
};

class RankChoice {
 public:
  explicit RankChoice(const RankChoiceOptions& options);

  // All ranks, the best first. Of equal cost, one that has more cached is better; ranks that are
  // equal in both take turns.
  std::vector<int> Order(const RoutedRequest& request) const;

  // The rank's share grows by the request; the result is what it grew by and leaves by.
  RankBacklog Assign(int rank, const RoutedRequest& request);
  void Remove(int rank, const RankBacklog& load);

  // The rank has, or will have by the time that others need it, these blocks: a chain from its
  // beginning.
  void Remember(int rank, std::span<const uint64_t> chain);

  // Tokens of the prompt that need not be computed there.
  int64_t CachedTokens(int rank, const RoutedRequest& request) const;
  const std::vector<RankBacklog>& loads() const { return loads_; }

 private:
  const int64_t block_size_;
  std::vector<RankBacklog> loads_;  // by rank, as the next
  std::vector<RoutedBlocks> blocks_;
  size_t turn_ = 0;  // the rank behind the one that was assigned last
};

}  // namespace moebius::rank
