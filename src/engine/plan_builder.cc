#include "engine/plan_builder.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace moebius::engine {
namespace {

template <typename T>
PlannedSample::Slice Append(std::vector<T>& all, std::span<const T> more) {
  const int64_t begin = static_cast<int64_t>(all.size());
  all.insert(all.end(), more.begin(), more.end());
  return {begin, static_cast<int64_t>(more.size())};
}

void AddRows(const PlanItem& item, int64_t block_size, StepPlan* plan) {
  const Sequence& sequence = *item.sequence;
  const int64_t num_known = static_cast<int64_t>(sequence.tokens.size());
  for (int64_t p = item.first_row; p < item.first_row + item.num_rows; ++p) {
    plan->tokens.push_back(p < num_known ? sequence.tokens[static_cast<size_t>(p)]
                                         : PreviousRow(item.input_row));
    plan->positions.push_back(static_cast<Position>(p));
    const BlockId block = sequence.blocks[static_cast<size_t>(p / block_size)];
    plan->kv_rows.push_back(block.value() * block_size + p % block_size);
  }
}

// One-token bad words, and the last tokens of longer ones that the output is about to complete.
void AddBadWords(const Sequence& sequence, StepPlan* plan) {
  const auto output = std::span(sequence.tokens).subspan(static_cast<size_t>(sequence.num_prompt));
  for (const std::vector<TokenId>& word : sequence.sampling.bad_words) {
    const auto rest = std::span(word).first(word.size() - 1);
    if (rest.size() > output.size()) continue;
    if (std::ranges::equal(rest, output.last(rest.size()))) plan->ids.push_back(word.back());
  }
}

// The mask that the constraint gives, without what the request does not allow.
PlannedSample::Slice AddMask(Sequence& sequence, int64_t vocab_size, StepPlan* plan) {
  const size_t begin = plan->masks.size();
  const size_t count = static_cast<size_t>((vocab_size + 31) / 32);
  plan->masks.resize(begin + count);
  const auto mask = std::span(plan->masks).subspan(begin, count);
  sequence.constraint->FillMask(mask);
  for (size_t i = 0; i < sequence.allowed_mask.size(); ++i) mask[i] &= sequence.allowed_mask[i];
  return {static_cast<int64_t>(begin), static_cast<int64_t>(count)};
}

void AddScores(const PlanItem& item, int32_t seq_idx, int64_t first_row, StepPlan* plan) {
  const Sequence& sequence = *item.sequence;
  MOEBIUS_CHECK(item.score_begin == item.score_end || item.first_score == plan->num_samples());
  for (int64_t p = item.score_begin; p < item.score_end; ++p) {
    plan->logit_rows.push_back(static_cast<int32_t>(first_row + p - item.first_row));
    PlannedSample& sample = plan->samples.emplace_back();
    sample.seq_idx = seq_idx;
    sample.row.given = sequence.tokens[static_cast<size_t>(p + 1)];
    sample.row.position = p + 1;
    sample.row.num_logprobs = sequence.sampling.num_prompt_logprobs;
  }
}

void AddSample(const PlanItem& item, int32_t seq_idx, int64_t vocab_size, StepPlan* plan) {
  Sequence& sequence = *item.sequence;
  const SamplingParams& params = sequence.sampling;
  PlannedSample& sample = plan->samples.emplace_back();
  sample.seq_idx = seq_idx;
  sample.row.temperature = params.temperature;
  sample.row.top_k = std::max(params.top_k, 0);
  sample.row.top_p = params.top_p;
  sample.row.min_p = params.min_p;
  sample.row.repetition_penalty = params.repetition_penalty;
  sample.row.presence_penalty = params.presence_penalty;
  sample.row.frequency_penalty = params.frequency_penalty;
  sample.row.seed = sequence.seed;
  sample.row.position = item.first_row + item.num_rows;
  sample.row.num_logprobs = params.num_logprobs;
  sample.row.logit_bias = params.logit_bias;
  if (params.repetition_penalty != 1.0f) sample.row.seen_tokens = sequence.token_counts->seen();
  if (params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f) {
    sample.output = Append(plan->ids, sequence.token_counts->output());
    sample.counts_begin = Append(plan->counts, sequence.token_counts->counts()).begin;
  }
  sample.banned.begin = static_cast<int64_t>(plan->ids.size());
  if (item.num_output_planned < params.min_tokens) {
    Append(plan->ids, std::span<const TokenId>(sequence.end_tokens));
  }
  AddBadWords(sequence, plan);
  sample.banned.count = static_cast<int64_t>(plan->ids.size()) - sample.banned.begin;
  if (sequence.constraint) {
    sample.mask = AddMask(sequence, vocab_size, plan);
  } else {
    sample.row.allowed_mask = sequence.allowed_mask;
  }
}

}  // namespace

bool AllowsAnyToken(const StepPlan& plan, const PlannedSample& sample, int64_t vocab_size) {
  const auto slice = [](const auto& all, PlannedSample::Slice part) {
    return std::span(all).subspan(static_cast<size_t>(part.begin), static_cast<size_t>(part.count));
  };
  std::span<const uint32_t> mask = sample.row.allowed_mask;
  if (sample.mask.count > 0) mask = slice(plan.masks, sample.mask);
  std::vector<bool> allowed(static_cast<size_t>(vocab_size), true);
  for (size_t token = 0; token < allowed.size() && !mask.empty(); ++token) {
    allowed[token] = ((mask[token / 32] >> (token % 32)) & 1) != 0;
  }
  for (const TokenId token : slice(plan.ids, sample.banned)) {
    allowed[static_cast<size_t>(token)] = false;
  }
  return std::ranges::find(allowed, true) != allowed.end();
}

void BuildPlan(const std::vector<PlanItem>& items, int64_t vocab_size, int64_t block_size,
               StepPlan* plan) {
  plan->Clear();
  plan->block_size = block_size;
  for (const PlanItem& item : items) {
    const int64_t length = item.first_row + item.num_rows;
    plan->max_blocks = std::max(plan->max_blocks, (length + block_size - 1) / block_size);
  }
  // Not cleared: entries that no context needs may hold anything.
  plan->block_table.resize(items.size() * static_cast<size_t>(plan->max_blocks));
  plan->query_start.push_back(0);
  for (size_t i = 0; i < items.size(); ++i) {
    const PlanItem& item = items[i];
    const int64_t first_row = plan->num_rows();
    AddRows(item, block_size, plan);
    const int64_t length = item.first_row + item.num_rows;
    const size_t num_blocks = static_cast<size_t>((length + block_size - 1) / block_size);
    static_assert(sizeof(BlockId) == sizeof(int32_t));
    std::memcpy(&plan->block_table[i * static_cast<size_t>(plan->max_blocks)],
                item.sequence->blocks.data(), num_blocks * sizeof(int32_t));
    plan->query_start.push_back(static_cast<int32_t>(plan->num_rows()));
    plan->context_len.push_back(static_cast<int32_t>(length));
    AddScores(item, static_cast<int32_t>(i), first_row, plan);
    if (item.sample < 0) continue;
    MOEBIUS_CHECK_EQ(static_cast<int64_t>(item.sample), plan->num_samples());
    plan->logit_rows.push_back(static_cast<int32_t>(plan->num_rows() - 1));
    AddSample(item, static_cast<int32_t>(i), vocab_size, plan);
  }
}

}  // namespace moebius::engine
