// Sampling by a full sort.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <ranges>
#include <vector>

#include "kernels/random.h"
#include "kernels/ref/ref.h"

namespace moebius::kernels::ref {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

double LogSumExp(const float* logits, int64_t vocab) {
  const double top = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int64_t i = 0; i < vocab; ++i) sum += std::exp(logits[i] - top);
  return top + std::log(sum);
}

// Ids by logit, best first; ties to the lowest id.
std::vector<TokenId> Order(const float* logits, int64_t vocab) {
  std::vector<TokenId> ids(vocab);
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(),
                   [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
  return ids;
}

void AddBias(const SampleRow& row, float* logits) {
  for (const auto& [id, bias] : row.logit_bias) logits[id] += bias;
}

void Penalise(const SampleRow& row, float* logits) {
  for (const TokenId id : row.seen_tokens) {
    logits[id] =
        logits[id] > 0 ? logits[id] / row.repetition_penalty : logits[id] * row.repetition_penalty;
  }
  for (size_t i = 0; i < row.output_tokens.size(); ++i) {
    logits[row.output_tokens[i]] -=
        row.frequency_penalty * static_cast<float>(row.output_counts[i]);
    logits[row.output_tokens[i]] -= row.presence_penalty;
  }
}

void Forbid(const SampleRow& row, float* logits, int64_t vocab) {
  for (const TokenId id : row.banned_tokens) logits[id] = kNever;
  for (int64_t id = 0; id < vocab; ++id) {
    const bool allowed =
        row.allowed_mask.empty() || ((row.allowed_mask[id / 32] >> (id % 32)) & 1) != 0;
    if (!allowed) logits[id] = kNever;
  }
}

// The tokens that top-k, top-p and min-p leave, ascending, with their unnormalised probabilities.
std::vector<std::pair<TokenId, double>> Survivors(const SampleRow& row, const float* logits,
                                                  int64_t vocab) {
  std::vector<TokenId> order = Order(logits, vocab);
  while (!order.empty() && logits[order.back()] == kNever) order.pop_back();
  if (row.top_k > 0 && static_cast<size_t>(row.top_k) < order.size()) order.resize(row.top_k);
  std::vector<std::pair<TokenId, double>> left;
  double sum = 0;
  for (const TokenId id : order) {
    const double p =
        std::exp((static_cast<double>(logits[id]) - logits[order[0]]) / row.temperature);
    left.emplace_back(id, p);
    sum += p;
  }
  double mass = 0;
  size_t count = 0;
  while (count < left.size() && (count == 0 || mass < row.top_p * sum))
    mass += left[count++].second;
  if (row.top_p < 1.0f) left.resize(count);
  while (left.size() > 1 && left.back().second < row.min_p) left.pop_back();
  std::sort(left.begin(), left.end());
  return left;
}

TokenId Draw(const SampleRow& row, const float* logits, int64_t vocab) {
  if (row.temperature < kGreedyTemperature) {
    const TokenId best = Order(logits, vocab)[0];
    return logits[best] == kNever ? -1 : best;
  }
  const auto left = Survivors(row, logits, vocab);
  if (left.empty()) return -1;
  double sum = 0;
  for (const auto& [id, p] : left) sum += p;
  const double target = UniformAt(row.seed, row.position) * sum;
  double mass = 0;
  for (const auto& [id, p] : left) {
    mass += p;
    if (mass > target) return id;
  }
  return left.back().first;
}

void Logprobs(const SampleRow& row, const std::vector<float>& raw, SampleResult& result) {
  const auto vocab = static_cast<int64_t>(raw.size());
  const double normaliser = LogSumExp(raw.data(), vocab);
  const auto logprob = [&](TokenId id) {
    return raw[id] == kNever ? kNever : static_cast<float>(raw[id] - normaliser);
  };
  const std::vector<TokenId> order = Order(raw.data(), vocab);
  if (result.token >= 0) {
    result.logprob = logprob(result.token);
    result.rank = 1 + static_cast<int32_t>(std::ranges::find(order, result.token) - order.begin());
  }
  for (int j = 0; j < row.num_logprobs; ++j) {
    const bool there = j < vocab;
    result.top_tokens[j] = there ? order[j] : -1;
    result.top_logprobs[j] = there ? logprob(order[j]) : kNever;
  }
}

}  // namespace

void Sample(ExecContext& /*ctx*/, const SampleArgs& args) {
  const int64_t vocab = args.logits.cols;
  for (int64_t i = 0; i < args.logits.rows; ++i) {
    const SampleRow& row = args.rows[i];
    SampleResult& result = args.results[i];
    float* logits = args.logits.Row<float>(i);
    std::replace_if(logits, logits + vocab, [](float x) { return std::isnan(x); }, kNever);
    const std::vector<float> raw(logits, logits + vocab);
    result.token = row.given;
    if (row.given < 0) {
      AddBias(row, logits);
      Penalise(row, logits);
      Forbid(row, logits, vocab);
      result.token = Draw(row, logits, vocab);
    }
    if (row.num_logprobs >= 0) Logprobs(row, raw, result);
  }
}

}  // namespace moebius::kernels::ref
