#include "rank/rank_choice_blocks.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace moebius::rank {

BlockChain::BlockChain(int64_t block_size, std::string salt)
    : block_size_(static_cast<size_t>(block_size)), salt_(std::move(salt)) {
  MOEBIUS_CHECK_GE(block_size, 1);
}

void BlockChain::Append(std::span<const TokenId> tokens) {
  while (tail_.size() + tokens.size() >= block_size_) {
    const size_t num_taken = block_size_ - tail_.size();
    if (tail_.empty()) {
      Close(tokens.first(num_taken));
    } else {
      tail_.insert(tail_.end(), tokens.begin(), tokens.begin() + static_cast<int64_t>(num_taken));
      Close(tail_);
      tail_.clear();
    }
    tokens = tokens.subspan(num_taken);
  }
  tail_.insert(tail_.end(), tokens.begin(), tokens.end());
}

BlockChain BlockChain::Continuation() const {
  BlockChain next(static_cast<int64_t>(block_size_), salt_);
  next.hash_ = hash_;
  next.tail_ = tail_;
  return next;
}

void BlockChain::Close(std::span<const TokenId> block) {
  hash_ = kv::PrefixIndex::Xxh3(hash_, salt_, block);
  salt_.clear();
  blocks_.push_back(hash_.low);
}

void RoutedBlocks::Insert(std::span<const uint64_t> chain) {
  // What would be forgotten in the same call need not come in.
  chain = chain.first(std::min(chain.size(), max_blocks_));
  for (size_t i = chain.size(); i-- > 0;) {
    const auto [place, is_new] = places_.try_emplace(chain[i]);
    if (is_new) {
      place->second = by_use_.insert(by_use_.begin(), chain[i]);
    } else {
      by_use_.splice(by_use_.begin(), by_use_, place->second);
    }
  }
  while (places_.size() > max_blocks_) {
    places_.erase(by_use_.back());
    by_use_.pop_back();
  }
}

int64_t RoutedBlocks::CountLeading(std::span<const uint64_t> chain) const {
  const auto end = std::ranges::partition_point(
      chain, [this](uint64_t block) { return places_.contains(block); });
  return end - chain.begin();
}

}  // namespace moebius::rank
