#include "engine/sample_inputs.h"

#include <algorithm>
#include <deque>

namespace moebius::engine {
namespace {

// A copy of `list` with `extra` at its end.
template <typename T>
std::span<T> Extend(std::span<const T> list, T extra, std::deque<std::vector<T>>* all) {
  std::vector<T>& copy = all->emplace_back();
  copy.reserve(list.size() + 1);
  copy.assign(list.begin(), list.end());
  copy.push_back(extra);
  return copy;
}

}  // namespace

void SampleInputs::Prepare(const StepPlan& plan, std::span<const TokenId> tokens,
                           StepOutput* output) {
  rows_.clear();
  results_.clear();
  ids_.clear();
  counts_.clear();
  int64_t num_top = 0;
  for (const PlannedSample& sample : plan.samples) num_top += std::max(sample.row.num_logprobs, 0);
  output->top_tokens.resize(static_cast<size_t>(num_top));
  output->top_logprobs.resize(static_cast<size_t>(num_top));
  output->sampled.clear();
  num_top = 0;
  for (size_t i = 0; i < plan.samples.size(); ++i) {
    const PlannedSample& sample = plan.samples[i];
    kernels::SampleRow& row = rows_.emplace_back(sample.row);
    row.output_tokens = View(plan.ids, sample.output);
    row.output_counts = View(plan.counts, {sample.counts_begin, sample.output.count});
    row.banned_tokens = View(plan.ids, sample.banned);
    if (sample.mask.count > 0) row.allowed_mask = View(plan.masks, sample.mask);
    const size_t input_row = static_cast<size_t>(plan.logit_rows[i]);
    if (IsPreviousRow(plan.tokens[input_row])) {
      CountPending(tokens[input_row], &row);
    }
    const size_t count = static_cast<size_t>(std::max(row.num_logprobs, 0));
    const size_t begin = static_cast<size_t>(num_top);
    num_top += static_cast<int64_t>(count);
    kernels::SampleResult& result = results_.emplace_back();
    result.top_tokens = std::span(output->top_tokens).subspan(begin, count);
    result.top_logprobs = std::span(output->top_logprobs).subspan(begin, count);
    output->sampled.push_back(
        {.top_begin = static_cast<int64_t>(begin), .num_top = static_cast<int64_t>(count)});
  }
}

void SampleInputs::CountPending(TokenId token, kernels::SampleRow* row) {
  if (row->repetition_penalty != 1.0f &&
      std::ranges::find(row->seen_tokens, token) == row->seen_tokens.end()) {
    row->seen_tokens = Extend(row->seen_tokens, token, &ids_);
  }
  if (row->presence_penalty == 0.0f && row->frequency_penalty == 0.0f) return;
  const auto it = std::ranges::find(row->output_tokens, token);
  if (it == row->output_tokens.end()) {
    row->output_tokens = Extend(row->output_tokens, token, &ids_);
    row->output_counts = Extend(row->output_counts, int32_t{1}, &counts_);
    return;
  }
  const auto place = static_cast<size_t>(it - row->output_tokens.begin());
  const std::span<int32_t> counts = Extend(row->output_counts, int32_t{0}, &counts_);
  ++counts[place];
  row->output_counts = counts.first(row->output_tokens.size());
}

}  // namespace moebius::engine
