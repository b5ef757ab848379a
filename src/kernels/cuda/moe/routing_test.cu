// Routing and grouping against scalar loops; in one launch against both.
#include <numeric>

#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;

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

// What routing and grouping read: tokens with some padding, experts in slots, with copies or not.
class Placing {
 public:
  Placing(testing::Rng& rng, int rows, int experts, int k, bool has_copies)
      : rows(rows),
        experts(experts),
        k(k),
        num_slots(experts + (has_copies ? experts / 4 + 3 : 0)),
        tokens(Ints(rng, rows, 100000, /*with_padding=*/true)),
        positions(Ints(rng, rows, 5000, false)),
        first_slot(experts),
        begin(experts + 1),
        copies(num_slots),
        log_probabilities(testing::RandomNormal<float>(rng, experts)),
        has_copies_(has_copies) {
    std::vector<int32_t> order(num_slots);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), rng);
    first_slot.Upload({order.begin(), order.begin() + experts});
    std::vector<std::vector<int32_t>> of_expert(experts);
    for (int s = 0; s < num_slots; ++s) {
      of_expert[s < experts ? s : rng() % (rng() % experts + 1)].push_back(order[s]);
    }
    std::vector<int32_t> begins = {0};
    std::vector<int32_t> slots;
    for (const auto& of : of_expert) {
      slots.insert(slots.end(), of.begin(), of.end());
      begins.push_back(static_cast<int32_t>(slots.size()));
    }
    begin.Upload(begins);
    copies.Upload(slots);
  }

  SlotChoiceLaunch Choice(int home) const {
    SlotChoiceLaunch choice;
    choice.tokens = tokens.get();
    choice.positions = positions.get();
    choice.first_slot = first_slot.get();
    choice.num_decodes = rows / 2;
    if (has_copies_) {
      choice.copies_begin = begin.get();
      choice.copies = copies.get();
      choice.slots_per_rank = (num_slots + 3) / 4;
      choice.home = home;
    }
    return choice;
  }

  int rows, experts, k, num_slots;
  Device<int32_t> tokens, positions, first_slot, begin, copies;
  Device<float> log_probabilities;

 private:
  static Device<int32_t> Ints(testing::Rng& rng, int count, int below, bool with_padding) {
    std::vector<int32_t> values;
    for (int i = 0; i < count; ++i) {
      values.push_back(with_padding && i % 5 == 3 ? -1 : static_cast<int32_t>(rng() % below));
    }
    return Device<int32_t>(values);
  }
  bool has_copies_;
};

// What they give, once or in a launch each.
struct Placed {
  Device<int32_t> experts, slots, offsets, pairs, places;
  Device<float> weights;
  Device<int64_t> counts, prompt_counts;

  explicit Placed(const Placing& in)
      : experts(in.rows * in.k),
        slots(in.rows * in.k),
        offsets(in.num_slots + 1),
        pairs(in.rows * in.k),
        places(in.rows * in.k),
        weights(in.rows * in.k),
        counts(std::vector<int64_t>(in.experts, 7)),
        prompt_counts(std::vector<int64_t>(in.experts, 0)) {}

  void Launch(RouteTopKLaunch route, const Placing& in, int home, bool joined,
              cudaStream_t stream) {
    route.experts = experts.get();
    route.weights = weights.get();
    route.choice = in.Choice(home);
    route.choice.counts = counts.get();
    route.choice.prompt_counts = prompt_counts.get();
    route.choice.slots = slots.get();
    const GroupBySlotLaunch group = {slots.get(),   route.rows * route.k, in.num_slots,
                                     offsets.get(), pairs.get(),          places.get()};
    if (joined) {
      CUDA_OK(LaunchRouteAndGroup(route, group, stream));
      return;
    }
    CUDA_OK(LaunchRouteTopK(route, stream));
    CUDA_OK(LaunchGroupBySlot(group, stream));
  }

  void ExpectSame(const Placed& other, const std::string& name) const {
    testing::Expect(experts.Download() == other.experts.Download(), name + ": experts");
    testing::Expect(weights.Download() == other.weights.Download(), name + ": weights");
    testing::Expect(slots.Download() == other.slots.Download(), name + ": slots");
    testing::Expect(offsets.Download() == other.offsets.Download(), name + ": offsets");
    testing::Expect(pairs.Download() == other.pairs.Download(), name + ": pairs");
    testing::Expect(places.Download() == other.places.Download(), name + ": places");
    testing::Expect(counts.Download() == other.counts.Download(), name + ": counts");
    testing::Expect(prompt_counts.Download() == other.prompt_counts.Download(),
                    name + ": prompts' counts");
  }
};

// A graph of layers, each with logits drawn where those of the layer before were, launched early
// one after the other; against launches that wait for each other. And a row alone.
void TestRouteAndGroup(testing::Rng& rng, int rows, int experts, int k, bool has_copies, int home) {
  constexpr int kLayers = 24;
  const Placing in(rng, rows, experts, k, has_copies);
  const std::string name = "route and group " + std::to_string(rows) + " rows, " +
                           std::to_string(k) + " of " + std::to_string(experts) + ", home " +
                           std::to_string(has_copies ? home : -9);
  Device<float> logits(rows * experts);
  const Device<float> bias(testing::RandomNormal<float>(rng, experts, 0.2f));
  RouteTopKLaunch route;
  route.logits = logits.get();
  route.logits_stride = experts;
  route.rows = rows;
  route.num_experts = experts;
  route.score = RouteScore::kSigmoid;
  route.bias = bias.get();
  if (experts % 8 == 0 && k <= experts / 2) {
    route.groups = RouteGroups::kTop2Sum;
    route.num_groups = 8;
    route.num_top_groups = 4;
  }
  route.k = k;
  route.normalize = true;
  route.scale = 2.5f;
  const auto draw = [&](int layer, cudaStream_t stream) {
    CUDA_OK(LaunchDrawLogits({in.tokens.get(), in.positions.get(), in.log_probabilities.get(),
                              layer, logits.get(), experts, rows, experts},
                             stream));
  };
  std::vector<Placed> want, got, alone;
  for (int layer = 0; layer < kLayers; ++layer) {
    want.emplace_back(in);
    got.emplace_back(in);
    alone.emplace_back(in);
    draw(layer, nullptr);
    CUDA_OK(cudaDeviceSynchronize());
    want.back().Launch(route, in, home, /*joined=*/false, nullptr);
    RouteTopKLaunch first = route;
    first.rows = 1;
    alone.back().Launch(first, in, home, /*joined=*/true, nullptr);
    CUDA_OK(cudaDeviceSynchronize());
  }
  cudaStream_t stream;
  CUDA_OK(cudaStreamCreate(&stream));
  CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int layer = 0; layer < kLayers; ++layer) {
    draw(layer, stream);
    got[layer].Launch(route, in, home, /*joined=*/true, stream);
  }
  cudaGraph_t graph;
  CUDA_OK(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t exec;
  CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  CUDA_OK(cudaGraphLaunch(exec, stream));
  CUDA_OK(cudaStreamSynchronize(stream));
  for (int layer = 0; layer < kLayers; ++layer) {
    got[layer].ExpectSame(want[layer], name + ", layer " + std::to_string(layer));
    const auto weights = want[layer].weights.Download();
    const auto first = alone[layer].weights.Download();
    testing::Expect(std::equal(weights.begin(), weights.begin() + k, first.begin()),
                    name + ": a row alone");
  }
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

void TestRoutesAndGroups(testing::Rng& rng) {
  for (const int rows : {1, 2, 5, 8, 9, 16}) {
    for (const bool has_copies : {false, true}) {
      TestRouteAndGroup(rng, rows, 8, 2, has_copies, 1);
      TestRouteAndGroup(rng, rows, 60, 4, has_copies, 0);
      TestRouteAndGroup(rng, rows, 128, 8, has_copies, 2);
      TestRouteAndGroup(rng, rows, 256, 8, has_copies, -1);
      TestRouteAndGroup(rng, rows, 511, 32, has_copies, 3);
    }
  }
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
          TestRoute(rng, {rows, 64, score, bias, RouteGroups::kMax, 32, 20, 6, true, 1.0f, kind});
          TestRoute(rng,
                    {rows, 32, score, bias, RouteGroups::kTop2Sum, 32, 9, 9, true, 1.0f, kind});
          TestRoute(rng,
                    {rows, 480, score, bias, RouteGroups::kTop2Sum, 6, 2, 32, true, 1.0f, kind});
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
  TestRoutesAndGroups(rng);
  for (const int64_t pairs : {0, 1, 8, 33, 512, 4096, 8192, 8193, 32768, 100001}) {
    for (const int slots : {1, 8, 33, 288, 1024}) {
      for (int kind = 0; kind < 4; ++kind) TestGroup(rng, pairs, slots, kind);
    }
  }
  return testing::Finish("routing_test");
}
