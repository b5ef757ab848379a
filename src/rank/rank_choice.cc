#include "rank/rank_choice.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/check.h"

namespace moebius::rank {

RoutedRequest::RoutedRequest(const engine::RequestInput& input, int64_t block_size)
    : num_prompt_tokens(static_cast<int64_t>(input.prompt.size())),
      num_decode_tokens(
          std::min<int64_t>(input.sampling.max_tokens.value_or(kDecodeHorizon), kDecodeHorizon)),
      chain(block_size, input.cache_salt) {
  chain.Append(input.prompt);
  if (input.sampling.num_prompt_logprobs < 0 && num_prompt_tokens > 0) {
    num_cacheable = static_cast<size_t>((num_prompt_tokens - 1) / block_size);
  }
}

RankChoice::RankChoice(const RankChoiceOptions& options)
    : block_size_(options.block_size),
      loads_(static_cast<size_t>(options.num_ranks)),
      blocks_(static_cast<size_t>(options.num_ranks), RoutedBlocks(options.max_blocks)) {
  MOEBIUS_CHECK_GE(options.num_ranks, 1);
}

std::vector<int> RankChoice::Order(const RoutedRequest& request) const {
  struct Candidate {
    int64_t cost;
    int64_t num_computed;  // of this prompt
    size_t turns;          // until it is this rank's
  };
  const size_t num_ranks = loads_.size();
  std::vector<Candidate> candidates;
  candidates.reserve(num_ranks);
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    const int64_t computed =
        request.num_prompt_tokens - CachedTokens(static_cast<int>(rank), request);
    candidates.push_back(
        {loads_[rank].num_tokens() + computed, computed, (rank + num_ranks - turn_) % num_ranks});
  }
  std::vector<int> ranks(num_ranks);
  std::iota(ranks.begin(), ranks.end(), 0);
  std::ranges::sort(ranks, {}, [&](int rank) {
    const Candidate& candidate = candidates[static_cast<size_t>(rank)];
    return std::tuple(candidate.cost, candidate.num_computed, candidate.turns);
  });
  return ranks;
}

RankBacklog RankChoice::Assign(int rank, const RoutedRequest& request) {
  const RankBacklog load = {1, request.num_prompt_tokens - CachedTokens(rank, request),
                            request.num_decode_tokens};
  RankBacklog& total = loads_[static_cast<size_t>(rank)];
  total.num_requests += load.num_requests;
  total.num_prompt_tokens += load.num_prompt_tokens;
  total.num_decode_tokens += load.num_decode_tokens;
  turn_ = (static_cast<size_t>(rank) + 1) % loads_.size();
  return load;
}

void RankChoice::Remove(int rank, const RankBacklog& load) {
  RankBacklog& total = loads_[static_cast<size_t>(rank)];
  total.num_requests -= load.num_requests;
  total.num_prompt_tokens -= load.num_prompt_tokens;
  total.num_decode_tokens -= load.num_decode_tokens;
  MOEBIUS_CHECK(total.num_requests >= 0 && total.num_prompt_tokens >= 0 &&
                total.num_decode_tokens >= 0);
}

void RankChoice::Remember(int rank, std::span<const uint64_t> chain) {
  blocks_[static_cast<size_t>(rank)].Insert(chain);
}

int64_t RankChoice::CachedTokens(int rank, const RoutedRequest& request) const {
  const std::span<const uint64_t> chain = request.chain.blocks();
  return blocks_[static_cast<size_t>(rank)].CountLeading(chain.first(request.num_cacheable)) *
         block_size_;
}

}  // namespace moebius::rank
