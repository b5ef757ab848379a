// Routing, grouping and the weighted sum that brings expert rows home.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/ref/ref.h"

namespace moebius::kernels::ref {
namespace {

constexpr float kNotChosen = -std::numeric_limits<float>::infinity();

double Sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

// Scores are float32 values (rounded from double): that is what ties are decided on.
std::vector<float> Scores(const RouteTopKArgs& args, const float* logits) {
  const int64_t num_experts = args.logits.cols;
  std::vector<float> scores(logits, logits + num_experts);
  if (args.score == RouterScore::kSigmoid) {
    for (float& s : scores) s = static_cast<float>(Sigmoid(s));
  } else if (args.score == RouterScore::kSoftmax) {
    const double top = *std::max_element(scores.begin(), scores.end());
    double sum = 0;
    for (const float s : scores) sum += std::exp(s - top);
    for (float& s : scores) s = static_cast<float>(std::exp(s - top) / sum);
  }
  return scores;
}

// Ids by value, best first; ties to the lowest id.
std::vector<int> Order(const std::vector<float>& values) {
  std::vector<int> ids(values.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) { return values[a] > values[b]; });
  return ids;
}

void KeepBestGroups(const RouteTopKArgs& args, std::vector<float>& choice) {
  const auto group_size = static_cast<int64_t>(choice.size()) / args.num_groups;
  std::vector<float> group_scores(args.num_groups);
  for (int g = 0; g < args.num_groups; ++g) {
    std::vector<float> members(choice.begin() + g * group_size,
                               choice.begin() + (g + 1) * group_size);
    std::sort(members.begin(), members.end(), std::greater<>());
    group_scores[g] = members[0];
    if (args.group_score == GroupScore::kTop2Sum && group_size > 1) group_scores[g] += members[1];
  }
  const std::vector<int> order = Order(group_scores);
  for (int g = args.num_top_groups; g < args.num_groups; ++g) {
    std::fill_n(choice.begin() + order[g] * group_size, group_size, kNotChosen);
  }
}

}  // namespace

void RouteTopK(ExecContext& /*ctx*/, const RouteTopKArgs& args) {
  for (int64_t t = 0; t < args.logits.rows; ++t) {
    const float* logits = args.logits.Row<float>(t);
    const std::vector<float> scores = Scores(args, logits);
    std::vector<float> choice = scores;
    if (args.bias.data != nullptr) {
      for (size_t e = 0; e < choice.size(); ++e) choice[e] += args.bias.Row<float>(0)[e];
    }
    if (args.group_score != GroupScore::kNone) KeepBestGroups(args, choice);
    const std::vector<int> order = Order(choice);
    double sum = args.score == RouterScore::kSigmoid ? 1e-20 : 0.0;
    std::vector<double> weights(args.k);
    for (int j = 0; j < args.k; ++j) {
      const float score = scores[order[j]];
      weights[j] = args.score == RouterScore::kSigmoidOnTop ? Sigmoid(score) : score;
      sum += weights[j];
    }
    for (int j = 0; j < args.k; ++j) {
      if (args.normalize) weights[j] /= sum;
      args.experts[t * args.k + j] = order[j];
      args.weights[t * args.k + j] = static_cast<float>(weights[j] * args.scale);
    }
  }
}

void GroupBySlot(ExecContext& /*ctx*/, const GroupBySlotArgs& args) {
  int32_t place = 0;
  for (int64_t s = 0; s < args.num_slots; ++s) {
    args.offsets[s] = place;
    for (size_t p = 0; p < args.slots.size(); ++p) {
      if (args.slots[p] != s) continue;
      args.pairs[place] = static_cast<int32_t>(p);
      args.places[p] = place++;
    }
  }
  args.offsets[args.num_slots] = place;
  for (size_t p = 0; p < args.slots.size(); ++p) {
    if (args.slots[p] < 0) args.places[p] = -1;
  }
}

void WeightedReduce(ExecContext& /*ctx*/, const WeightedReduceArgs& args) {
  for (int64_t t = 0; t < args.out.rows; ++t) {
    for (int64_t c = 0; c < args.out.cols; ++c) {
      double sum = 0;
      for (int64_t j = 0; j < args.k; ++j) {
        const int32_t place = args.places[t * args.k + j];
        if (place < 0) continue;
        const double weight = args.weights.empty() ? 1.0 : args.weights[t * args.k + j];
        sum += weight * Get(args.rows, place, c);
      }
      if (args.shared.data != nullptr) sum += Get(args.shared, t, c);
      Put(args.out, t, c, sum);
    }
  }
}

}  // namespace moebius::kernels::ref
