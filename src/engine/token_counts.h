// Which tokens one request has seen and how often each came out: what the sampling penalties need,
// kept up to date token by token. Owned by its sequence, engine thread only; but what a span of
// seen() holds stays where it is and as it is, so a plan may point to it.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "base/ids.h"

namespace moebius::engine {

class TokenCounts {
 public:
  // max_tokens: prompt and output together.
  TokenCounts(std::span<const TokenId> prompt, int64_t max_tokens) {
    seen_.reserve(static_cast<size_t>(max_tokens));
    for (const TokenId token : prompt) See(token);
  }

  void AddOutput(TokenId token) {
    int32_t& place = See(token);
    if (place < 0) {
      place = static_cast<int32_t>(output_.size());
      output_.push_back(token);
      counts_.push_back(0);
    }
    ++counts_[static_cast<size_t>(place)];
  }

  std::span<const TokenId> seen() const { return seen_; }      // distinct, prompt and output
  std::span<const TokenId> output() const { return output_; }  // distinct
  std::span<const int32_t> counts() const { return counts_; }  // of output()

 private:
  int32_t& See(TokenId token) {
    const auto [it, is_new] = places_.try_emplace(token, -1);
    if (is_new) seen_.push_back(token);
    return it->second;
  }

  std::vector<TokenId> seen_;
  std::vector<TokenId> output_;
  std::vector<int32_t> counts_;
  std::unordered_map<TokenId, int32_t> places_;  // in output_; -1: seen in the prompt only
};

}  // namespace moebius::engine
