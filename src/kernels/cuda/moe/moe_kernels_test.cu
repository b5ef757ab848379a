// Routing, grouping and the weighted sum against scalar loops.
#include <numeric>

#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;
using Bf16 = __nv_bfloat16;

struct RouteCase {
  int rows, experts;
  RouteScore score;
  bool bias;
  RouteGroups groups;
  int num_groups, top_groups, k;
  bool normalize;
  float scale;
  int kind;  // of logits: 0 normal, 1 rounded to quarters (many ties), 2 all equal
};

struct Routed {
  std::vector<double> choice, weight;  // by expert
};

// What each expert's choice and weight are, before normalising.
Routed ScoreRow(const RouteCase& c, const float* logits, const float* bias) {
  Routed out;
  double top = -INFINITY;
  for (int e = 0; e < c.experts; ++e) top = std::max(top, static_cast<double>(logits[e]));
  double sum = 0;
  for (int e = 0; e < c.experts; ++e) sum += std::exp(logits[e] - top);
  for (int e = 0; e < c.experts; ++e) {
    const double sigmoid = 1 / (1 + std::exp(-static_cast<double>(logits[e])));
    double score = logits[e];
    if (c.score == RouteScore::kSoftmax) score = std::exp(logits[e] - top) / sum;
    if (c.score == RouteScore::kSigmoid) score = sigmoid;
    out.weight.push_back(c.score == RouteScore::kSigmoidOnTop ? sigmoid : score);
    out.choice.push_back(c.bias ? score + bias[e] : score);
  }
  return out;
}

std::vector<int> Best(const std::vector<double>& values) {
  std::vector<int> ids(values.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int a, int b) {
    return static_cast<float>(values[a]) > static_cast<float>(values[b]);
  });
  return ids;
}

// The values of groups; their members' best, or the sum of their best two.
std::vector<double> GroupValues(const RouteCase& c, const std::vector<double>& choice) {
  const int size = c.experts / c.num_groups;
  std::vector<double> values;
  for (int g = 0; g < c.num_groups; ++g) {
    std::vector<double> members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
    std::sort(members.begin(), members.end(), std::greater<>());
    double value = members[0];
    if (c.groups == RouteGroups::kTop2Sum && size > 1) value += members[1];
    values.push_back(value);
  }
  return values;
}

void CheckRow(const RouteCase& c, const Routed& row, const int32_t* experts, const float* weights,
              const std::string& name) {
  std::vector<double> choice = row.choice;
  if (c.groups != RouteGroups::kNone) {
    const int size = c.experts / c.num_groups;
    const std::vector<double> values = GroupValues(c, choice);
    const std::vector<int> order = Best(values);
    // Groups within rounding of each other may go either way: such rows are not compared.
    if (c.top_groups < c.num_groups) {
      const double edge = std::fabs(values[order[c.top_groups - 1]] - values[order[c.top_groups]]);
      if (edge != 0 && edge < 1e-6 * std::max(1.0, std::fabs(values[order[0]]))) return;
    }
    for (int g = c.top_groups; g < c.num_groups; ++g) {
      std::fill_n(choice.begin() + order[g] * size, size, -INFINITY);
    }
  }
  const std::vector<int> order = Best(choice);
  double sum = c.score == RouteScore::kSigmoid ? 1e-20 : 0;
  for (int j = 0; j < c.k; ++j) sum += row.weight[experts[j]];
  for (int j = 0; j < c.k; ++j) {
    const int e = experts[j];
    if (e < 0 || e >= c.experts) {
      testing::Expect(false, name + ": expert " + std::to_string(e));
      return;
    }
    // The same expert, or one whose value differs by rounding alone.
    const double want = choice[order[j]];
    const double scale = std::max(c.bias ? 1.0 : 1e-3, std::fabs(want));
    const bool same =
        e == order[j] || (choice[e] != want && std::fabs(choice[e] - want) < 1e-6 * scale);
    testing::Expect(same, name + ": place " + std::to_string(j) + " has " + std::to_string(e) +
                              ", wanted " + std::to_string(order[j]));
    const double weight = row.weight[e] / (c.normalize ? sum : 1.0) * c.scale;
    testing::Expect(
        std::fabs(weights[j] - weight) <= 1e-5 * std::fabs(weight),
        name + ": weight " + std::to_string(weights[j]) + " for " + std::to_string(weight));
  }
}

void TestRoute(testing::Rng& rng, const RouteCase& c) {
  const int stride = c.experts + 3;
  std::vector<float> logits = testing::RandomNormal<float>(rng, c.rows * stride, 2.0f);
  for (float& x : logits) {
    if (c.kind == 1) x = std::round(4 * x) / 4;
    if (c.kind == 2) x = 0.5f;
  }
  std::vector<float> bias = testing::RandomNormal<float>(rng, c.experts, 0.2f);
  if (c.kind == 2) std::fill(bias.begin(), bias.end(), 0.25f);
  const Device<float> d_logits(logits);
  const Device<float> d_bias(bias);
  Device<int32_t> experts(c.rows * c.k);
  Device<float> weights(c.rows * c.k);
  RouteTopKLaunch args;
  args.logits = d_logits.get();
  args.logits_stride = stride;
  args.rows = c.rows;
  args.num_experts = c.experts;
  args.score = c.score;
  if (c.bias) args.bias = d_bias.get();
  args.groups = c.groups;
  args.num_groups = c.num_groups;
  args.num_top_groups = c.top_groups;
  args.k = c.k;
  args.normalize = c.normalize;
  args.scale = c.scale;
  args.experts = experts.get();
  args.weights = weights.get();
  CUDA_OK(LaunchRouteTopK(args, nullptr));
  const auto got = experts.Download();
  const auto got_weights = weights.Download();
  const std::string name =
      "route " + std::to_string(c.experts) + " score " + std::to_string(static_cast<int>(c.score)) +
      " groups " + std::to_string(static_cast<int>(c.groups)) + " kind " + std::to_string(c.kind);
  for (int t = 0; t < c.rows; ++t) {
    CheckRow(c, ScoreRow(c, logits.data() + t * stride, bias.data()), &got[t * c.k],
             &got_weights[t * c.k], name);
  }
}

void TestGroup(testing::Rng& rng, int64_t pairs, int num_slots, int kind) {
  std::vector<int32_t> slots(pairs);
  for (int32_t& s : slots) {
    s = static_cast<int32_t>(rng() % num_slots);
    if (kind == 1 && rng() % 5 == 0) s = -1;
    if (kind == 2) s = num_slots - 1;
    if (kind == 3) s = -1;
  }
  const Device<int32_t> d_slots(slots);
  Device<int32_t> offsets(num_slots + 1), sorted(pairs), places(pairs);
  Device<int32_t> workspace(GroupBySlotWorkspace(pairs, num_slots) / sizeof(int32_t));
  CUDA_OK(LaunchGroupBySlot(
      {d_slots.get(), pairs, num_slots, offsets.get(), sorted.get(), places.get(), workspace.get()},
      nullptr));
  std::vector<int32_t> want_offsets(num_slots + 1, 0);
  for (const int32_t s : slots) {
    if (s >= 0) ++want_offsets[s + 1];
  }
  std::partial_sum(want_offsets.begin(), want_offsets.end(), want_offsets.begin());
  std::vector<int32_t> next = want_offsets;
  std::vector<int32_t> want_places(pairs, -1);
  std::vector<int32_t> want_pairs = sorted.Download();  // behind the last place: untouched
  for (int64_t p = 0; p < pairs; ++p) {
    if (slots[p] < 0) continue;
    want_places[p] = next[slots[p]]++;
    want_pairs[want_places[p]] = static_cast<int32_t>(p);
  }
  const std::string name = "group " + std::to_string(pairs) + " pairs, " +
                           std::to_string(num_slots) + " slots, kind " + std::to_string(kind);
  testing::Expect(offsets.Download() == want_offsets, name + ": offsets");
  testing::Expect(places.Download() == want_places, name + ": places");
  testing::Expect(sorted.Download() == want_pairs, name + ": pairs");
}

template <typename T>
double TestReduce(testing::Rng& rng, int rows, int cols, int k, bool weighted, bool shared) {
  constexpr DType kType = std::is_same_v<T, float> ? DType::kF32 : DType::kBF16;
  const int num_places = std::max(1, rows * k);
  const int stride = cols + (cols % 4 == 0 ? 8 : 0);
  const auto in = testing::RandomNormal<T>(rng, static_cast<size_t>(num_places) * stride);
  const auto extra = testing::RandomNormal<T>(rng, static_cast<size_t>(rows) * stride);
  const auto weights = testing::RandomNormal<float>(rng, rows * k);
  std::vector<int32_t> places(rows * k);
  std::iota(places.begin(), places.end(), 0);
  std::shuffle(places.begin(), places.end(), rng);
  for (int32_t& p : places) {
    if (rng() % 6 == 0) p = -1;
  }
  const Device<T> d_in(in), d_extra(extra);
  const Device<float> d_weights(weights);
  const Device<int32_t> d_places(places);
  Device<T> out(static_cast<size_t>(rows) * cols);
  WeightedReduceLaunch args;
  args.in = {d_in.get(), kType, stride};
  args.places = d_places.get();
  if (weighted) args.weights = d_weights.get();
  args.k = k;
  if (shared) args.shared = {d_extra.get(), kType, stride};
  args.out = {out.get(), kType, cols};
  args.rows = rows;
  args.cols = cols;
  CUDA_OK(LaunchWeightedReduce(args, nullptr));
  std::vector<double> want(static_cast<size_t>(rows) * cols, 0.0);
  for (int t = 0; t < rows; ++t) {
    for (int c = 0; c < cols; ++c) {
      double& sum = want[static_cast<size_t>(t) * cols + c];
      for (int j = 0; j < k; ++j) {
        const int place = places[t * k + j];
        if (place < 0) continue;
        sum += (weighted ? weights[t * k + j] : 1.0) *
               testing::ToFloat(in[static_cast<size_t>(place) * stride + c]);
      }
      if (shared) sum += testing::ToFloat(extra[static_cast<size_t>(t) * stride + c]);
    }
  }
  const testing::Error error = testing::Compare(out.Download(), want);
  // Few sums may all nearly cancel.
  const double exact = rows * cols < 1000 ? 1e-4 : 2e-6;
  testing::ExpectClose(error, kType == DType::kF32 ? exact : 4e-3 + exact,
                       "weighted_reduce " + std::to_string(rows) + " x " + std::to_string(cols));
  return error.relative;
}

void TestRoutes(testing::Rng& rng) {
  for (const int rows : {0, 1, 67, 512}) {
    for (int kind = 0; kind < 3; ++kind) {
      for (const auto score :
           {RouteScore::kSoftmax, RouteScore::kSigmoid, RouteScore::kSigmoidOnTop}) {
        for (const bool bias : {false, true}) {
          const auto none = RouteGroups::kNone;
          TestRoute(rng, {rows, 128, score, bias, none, 1, 1, 8, true, 1.0f, kind});
          TestRoute(rng, {rows, 512, score, bias, none, 1, 1, 10, false, 2.0f, kind});
          TestRoute(rng, {rows, 60, score, bias, none, 1, 1, 4, true, 1.0f, kind});
          TestRoute(rng, {rows, 8, score, bias, none, 1, 1, 2, true, 1.0f, kind});
          TestRoute(rng, {rows, 16, score, bias, none, 1, 1, 1, false, 1.0f, kind});
          TestRoute(rng, {rows, 32, score, bias, none, 1, 1, 32, true, 1.0f, kind});
          TestRoute(rng,
                    {rows, 256, score, bias, RouteGroups::kTop2Sum, 8, 4, 8, true, 2.5f, kind});
          TestRoute(rng, {rows, 160, score, bias, RouteGroups::kMax, 8, 3, 6, false, 16.0f, kind});
          TestRoute(rng,
                    {rows, 384, score, bias, RouteGroups::kTop2Sum, 1, 1, 8, true, 2.8f, kind});
          TestRoute(rng, {rows, 64, score, bias, RouteGroups::kMax, 64, 20, 6, true, 1.0f, kind});
        }
      }
    }
  }
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  testing::Rng rng(std::random_device{}());
  TestRoutes(rng);
  for (const int64_t pairs : {0, 1, 8, 33, 512, 4096, 8192, 8193, 32768, 100001}) {
    for (const int slots : {1, 8, 33, 288, 1024}) {
      for (int kind = 0; kind < 4; ++kind) TestGroup(rng, pairs, slots, kind);
    }
  }
  double worst = 0;
  for (const int rows : {0, 1, 19, 130}) {
    for (const int cols : {1, 63, 2048, 7168}) {
      for (const int k : {1, 6, 8, 10}) {
        const bool flag = (rows + k) % 2 == 0;
        worst = std::max(worst, TestReduce<__nv_bfloat16>(rng, rows, cols, k, true, flag));
        worst = std::max(worst, TestReduce<float>(rng, rows, cols, k, flag, !flag));
      }
    }
  }
  std::printf("weighted_reduce: worst relative error %.2e\n", worst);
  return testing::Finish("moe_kernels_test");
}
