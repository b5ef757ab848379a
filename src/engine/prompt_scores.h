// The log probabilities of one request's prompt, gathered chunk by chunk until its first token is
// drawn. Owned by its sequence, engine thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/request.h"
#include "engine/step_runner.h"

namespace moebius::engine {

// What a step says of one of its tokens. The view lives as long as the lists.
inline TokenLogprobs ViewLogprobs(const SampledToken& sampled,
                                  const std::vector<TokenId>& top_tokens,
                                  const std::vector<float>& top_logprobs) {
  const auto begin = static_cast<size_t>(sampled.top_begin);
  const auto count = static_cast<size_t>(sampled.num_top);
  return {sampled.token, sampled.logprob, sampled.rank, std::span(top_tokens).subspan(begin, count),
          std::span(top_logprobs).subspan(begin, count)};
}

class PromptScores {
 public:
  // Prompt tokens scored so far, from the second on: the rows of as many tokens have been computed
  // and need not be computed for their scores again.
  int64_t size() const { return num_scored_; }

  // The next one's.
  void Add(const SampledToken& scored, const StepOutput& output) {
    const TokenLogprobs view = ViewLogprobs(scored, output.top_tokens, output.top_logprobs);
    SampledToken& entry = entries_.emplace_back(scored);
    entry.top_begin = static_cast<int64_t>(top_tokens_.size());
    top_tokens_.insert(top_tokens_.end(), view.top_tokens.begin(), view.top_tokens.end());
    top_logprobs_.insert(top_logprobs_.end(), view.top_logprobs.begin(), view.top_logprobs.end());
    ++num_scored_;
  }

  // All of them, for the event that has them. The views live until Drop.
  std::vector<TokenLogprobs> Views() const {
    std::vector<TokenLogprobs> views;
    views.reserve(entries_.size());
    for (const SampledToken& entry : entries_) {
      views.push_back(ViewLogprobs(entry, top_tokens_, top_logprobs_));
    }
    return views;
  }

  // They have been told: only their number is kept.
  void Drop() {
    entries_ = {};
    top_tokens_ = {};
    top_logprobs_ = {};
  }

 private:
  int64_t num_scored_ = 0;
  std::vector<SampledToken> entries_;
  std::vector<TokenId> top_tokens_;
  std::vector<float> top_logprobs_;
};

}  // namespace moebius::engine
