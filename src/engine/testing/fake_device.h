// For tests: a device whose "model" is a hash. The KV of a token is a hash of that token and of the
// KV before it, read back through the block table as attention would; the next token is a hash of
// all KV rows of the context and the sampling seed. A single wrong, stale or overwritten block
// changes the output, and ExpectedOutput says from the tokens alone what it should be.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "engine/request.h"
#include "engine/step_plan.h"
#include "engine/step_runner.h"

namespace moebius::engine::testing {

inline uint64_t Mix(uint64_t a, uint64_t b) {
  uint64_t x = a * 0x9e3779b97f4a7c15ull ^ (b + 0x7f4a7c15ull);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

struct FakeModelParams {
  int64_t vocab_size = 50;
};

// KV of the token at `position` behind a token with KV `before` (0 for the first).
inline uint64_t FakeKv(uint64_t before, TokenId token, int64_t position) {
  return Mix(before, static_cast<uint64_t>(token) * 1000003u + static_cast<uint64_t>(position)) | 1;
}
inline uint64_t FakeAttend(uint64_t sum, uint64_t kv, int64_t position) {
  return sum + kv * static_cast<uint64_t>(2 * position + 1);
}
inline TokenId FakeDraw(uint64_t sum, uint64_t seed, int64_t position, int64_t vocab_size,
                        std::span<const TokenId> banned) {
  uint64_t draw = Mix(sum, Mix(seed, static_cast<uint64_t>(position)));
  while (true) {
    const TokenId token = static_cast<TokenId>(draw % static_cast<uint64_t>(vocab_size));
    if (std::ranges::find(banned, token) == banned.end()) return token;
    draw = Mix(draw, 1);
  }
}

class FakeDevice {
 public:
  FakeDevice(int64_t num_blocks, int64_t block_size, int64_t vocab_size)
      : block_size_(block_size),
        vocab_size_(vocab_size),
        kv_(static_cast<size_t>(num_blocks * block_size)) {}

  // Keeps the plan's tokens as launched: the plan must not change while its step is out.
  StepOutput Run(const StepPlan& plan) {
    std::vector<TokenId> tokens = plan.tokens;
    for (TokenId& token : tokens) {
      if (!IsPreviousRow(token)) continue;
      EXPECT_EQ(plan.previous_step, last_step_);
      token = last_sampled_.at(static_cast<size_t>(RowOfPrevious(token)));
    }
    Write(plan, tokens);
    StepOutput output;
    output.step_id = plan.step_id;
    for (size_t i = 0; i < plan.samples.size(); ++i) {
      const PlannedSample& sample = plan.samples[i];
      const size_t seq = static_cast<size_t>(sample.seq_idx);
      EXPECT_EQ(plan.logit_rows[i], plan.query_start[seq + 1] - 1);
      EXPECT_EQ(sample.row.position, plan.context_len[seq]);
      uint64_t sum = 0;
      for (int32_t p = 0; p < plan.context_len[seq]; ++p) {
        sum = FakeAttend(sum, kv_[KvRow(plan, seq, p)], p);
      }
      const auto banned = std::span(plan.ids).subspan(static_cast<size_t>(sample.banned.begin),
                                                      static_cast<size_t>(sample.banned.count));
      output.sampled.push_back(
          {.token = FakeDraw(sum, sample.row.seed, sample.row.position, vocab_size_, banned)});
    }
    last_step_ = plan.step_id;
    last_sampled_.clear();
    for (const SampledToken& sampled : output.sampled) last_sampled_.push_back(sampled.token);
    return output;
  }

 private:
  size_t KvRow(const StepPlan& plan, size_t seq, int64_t position) const {
    const int64_t block = plan.block_table[seq * static_cast<size_t>(plan.max_blocks) +
                                           static_cast<size_t>(position / block_size_)];
    return static_cast<size_t>(block * block_size_ + position % block_size_);
  }

  void Write(const StepPlan& plan, const std::vector<TokenId>& tokens) {
    std::set<int64_t> blocks_written_before;
    for (size_t seq = 0; seq < plan.context_len.size(); ++seq) {
      const int32_t begin = plan.query_start[seq], end = plan.query_start[seq + 1];
      std::set<int64_t> blocks;
      for (int32_t row = begin; row < end; ++row) {
        const size_t r = static_cast<size_t>(row);
        const int64_t position = plan.context_len[seq] - (end - row);
        EXPECT_EQ(plan.positions[r], position);
        EXPECT_EQ(static_cast<size_t>(plan.kv_rows[r]), KvRow(plan, seq, position));
        const uint64_t before = position == 0 ? 0 : kv_.at(KvRow(plan, seq, position - 1));
        kv_.at(static_cast<size_t>(plan.kv_rows[r])) = FakeKv(before, tokens[r], position);
        blocks.insert(plan.kv_rows[r] / block_size_);
      }
      for (const int64_t block : blocks) {
        EXPECT_TRUE(blocks_written_before.insert(block).second) << "two writers of " << block;
      }
    }
  }

  int64_t block_size_;
  int64_t vocab_size_;
  std::vector<uint64_t> kv_;
  int64_t last_step_ = -1;
  std::vector<TokenId> last_sampled_;
};

// What a request that runs alone, uncached and undisturbed puts out.
inline std::vector<TokenId> ExpectedOutput(const RequestInput& input, int64_t vocab_size,
                                           int64_t max_model_len,
                                           const std::vector<TokenId>& eos_token_ids) {
  std::vector<TokenId> end_tokens = input.sampling.stop_token_ids;
  if (!input.sampling.ignore_eos) {
    end_tokens.insert(end_tokens.end(), eos_token_ids.begin(), eos_token_ids.end());
  }
  uint64_t kv = 0, sum = 0;
  int64_t position = 0;
  const auto add = [&](TokenId token) {
    kv = FakeKv(kv, token, position);
    sum = FakeAttend(sum, kv, position++);
  };
  for (const TokenId token : input.prompt) add(token);
  int64_t max_output = max_model_len - static_cast<int64_t>(input.prompt.size());
  if (input.sampling.max_tokens) {
    max_output = std::min<int64_t>(max_output, *input.sampling.max_tokens);
  }
  std::vector<TokenId> output;
  while (static_cast<int64_t>(output.size()) < max_output) {
    const bool may_end = static_cast<int64_t>(output.size()) >= input.sampling.min_tokens;
    const std::span<const TokenId> banned =
        may_end ? std::span<const TokenId>() : std::span<const TokenId>(end_tokens);
    const TokenId token = FakeDraw(sum, *input.sampling.seed, position, vocab_size, banned);
    output.push_back(token);
    if (may_end && std::ranges::find(end_tokens, token) != end_tokens.end()) break;
    add(token);
  }
  return output;
}

}  // namespace moebius::engine::testing
