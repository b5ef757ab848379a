// For tests: a device whose "model" is a hash. The KV of a token is a hash of that token and of the
// KV before it, read back through the block table as attention would; the next token is a hash of
// all KV rows of the context and the sampling seed. A single wrong, stale or overwritten block
// changes the output, and ExpectedAnswer says from the tokens alone what it should be.
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
template <typename IsAllowed>
TokenId FakeDraw(uint64_t sum, uint64_t seed, int64_t position, int64_t vocab_size,
                 const IsAllowed& is_allowed) {
  uint64_t draw = Mix(sum, Mix(seed, static_cast<uint64_t>(position)));
  while (true) {
    const TokenId token = static_cast<TokenId>(draw % static_cast<uint64_t>(vocab_size));
    if (is_allowed(token)) return token;
    draw = Mix(draw, 1);
  }
}

// The "log probability" of a given token, and the ids that stand for the best ones.
inline float FakeScore(uint64_t sum, TokenId token) {
  return -static_cast<float>(Mix(sum, static_cast<uint64_t>(token)) % 4096);
}
inline TokenId FakeTop(uint64_t sum, int64_t place, int64_t vocab_size) {
  return static_cast<TokenId>(Mix(sum, 99 + static_cast<uint64_t>(place)) %
                              static_cast<uint64_t>(vocab_size));
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
      if (i > 0) {
        EXPECT_LT(plan.logit_rows[i - 1], plan.logit_rows[i]);
      }
      Sample(plan, i, &output);
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

  void Sample(const StepPlan& plan, size_t i, StepOutput* output) const {
    const PlannedSample& sample = plan.samples[i];
    const size_t seq = static_cast<size_t>(sample.seq_idx);
    const int32_t rows_behind = plan.query_start[seq + 1] - 1 - plan.logit_rows[i];
    const int32_t position = plan.context_len[seq] - rows_behind;
    EXPECT_EQ(sample.row.position, position);
    uint64_t sum = 0;
    for (int32_t p = 0; p < position; ++p) sum = FakeAttend(sum, kv_[KvRow(plan, seq, p)], p);
    SampledToken& sampled = output->sampled.emplace_back();
    sampled.top_begin = static_cast<int64_t>(output->top_tokens.size());
    if (sample.row.given >= 0) {
      sampled.token = sample.row.given;
      sampled.logprob = FakeScore(sum, sampled.token);
      sampled.num_top = sample.row.num_logprobs;
      for (int64_t place = 0; place < sampled.num_top; ++place) {
        output->top_tokens.push_back(FakeTop(sum, place, vocab_size_));
        output->top_logprobs.push_back(0);
      }
      return;
    }
    EXPECT_EQ(rows_behind, 0);
    const auto banned = std::span(plan.ids).subspan(static_cast<size_t>(sample.banned.begin),
                                                    static_cast<size_t>(sample.banned.count));
    const std::span<const uint32_t> mask = sample.row.allowed_mask;
    sampled.token = FakeDraw(sum, sample.row.seed, position, vocab_size_, [&](TokenId token) {
      const bool in_mask =
          mask.empty() || ((mask[static_cast<size_t>(token / 32)] >> (token % 32)) & 1) != 0;
      return in_mask && std::ranges::find(banned, token) == banned.end();
    });
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
struct FakeAnswer {
  std::vector<TokenId> tokens;
  std::vector<float> prompt_scores;              // from the second prompt token on ...
  std::vector<std::vector<TokenId>> prompt_top;  // ... if asked for
};

// Bad words by their definition: no word may be the end of the output.
inline bool EndsWithABadWord(const std::vector<TokenId>& output, const SamplingParams& sampling) {
  return std::ranges::any_of(sampling.bad_words, [&](const std::vector<TokenId>& word) {
    return word.size() <= output.size() && std::equal(word.rbegin(), word.rend(), output.rbegin());
  });
}

inline FakeAnswer ExpectedAnswer(const RequestInput& input, int64_t vocab_size,
                                 int64_t max_model_len, const std::vector<TokenId>& eos_token_ids) {
  const SamplingParams& sampling = input.sampling;
  std::vector<TokenId> end_tokens = sampling.stop_token_ids;
  if (!sampling.ignore_eos) {
    end_tokens.insert(end_tokens.end(), eos_token_ids.begin(), eos_token_ids.end());
  }
  const auto contains = [](const std::vector<TokenId>& list, TokenId token) {
    return std::ranges::find(list, token) != list.end();
  };
  FakeAnswer answer;
  uint64_t kv = 0, sum = 0;
  int64_t position = 0;
  const auto add = [&](TokenId token) {
    kv = FakeKv(kv, token, position);
    sum = FakeAttend(sum, kv, position++);
  };
  for (const TokenId token : input.prompt) {
    if (position > 0 && sampling.num_prompt_logprobs >= 0) {
      answer.prompt_scores.push_back(FakeScore(sum, token));
      std::vector<TokenId>& top = answer.prompt_top.emplace_back();
      for (int32_t i = 0; i < sampling.num_prompt_logprobs; ++i) {
        top.push_back(FakeTop(sum, i, vocab_size));
      }
    }
    add(token);
  }
  int64_t max_output = max_model_len - static_cast<int64_t>(input.prompt.size());
  if (sampling.max_tokens) max_output = std::min<int64_t>(max_output, *sampling.max_tokens);
  std::vector<TokenId>& output = answer.tokens;
  while (static_cast<int64_t>(output.size()) < max_output) {
    const bool may_end = static_cast<int64_t>(output.size()) >= sampling.min_tokens;
    const auto is_allowed = [&](TokenId token) {
      if (!may_end && contains(end_tokens, token)) return false;
      const auto& allowed = sampling.allowed_token_ids;
      if (!allowed.empty() && !contains(allowed, token)) return false;
      std::vector<TokenId> longer = output;
      longer.push_back(token);
      return !EndsWithABadWord(longer, sampling);
    };
    const TokenId token = FakeDraw(sum, *sampling.seed, position, vocab_size, is_allowed);
    output.push_back(token);
    if (may_end && contains(end_tokens, token)) break;
    add(token);
  }
  return answer;
}

}  // namespace moebius::engine::testing
