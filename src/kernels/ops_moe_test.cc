// Routing, grouping, grouped products and the weighted sum of every back end against the reference,
// and their properties.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "kernels/test_util.h"

namespace moebius::kernels {
namespace {

struct Routes {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Routes Route(const Backend* backend, RouteTopKArgs args, int threads = 1) {
  Routes routes;
  routes.experts.assign(args.logits.rows * args.k, -7);
  routes.weights.assign(args.logits.rows * args.k, std::nanf(""));
  args.experts = routes.experts;
  args.weights = routes.weights;
  TestContext context(backend, threads);
  RouteTopK(context.ctx(), args);
  return routes;
}

struct RouteCase {
  RouterScore score;
  bool biased;
  GroupScore group_score;
  int num_groups;
  int num_top_groups;
  int k;
  bool normalize;
};
constexpr RouteCase kRouteCases[] = {
    {RouterScore::kSoftmax, false, GroupScore::kNone, 1, 1, 8, false},
    {RouterScore::kSoftmax, false, GroupScore::kNone, 1, 1, 2, true},
    {RouterScore::kSoftmax, false, GroupScore::kMax, 8, 3, 6, false},
    {RouterScore::kSigmoid, true, GroupScore::kTop2Sum, 8, 4, 8, true},
    {RouterScore::kSigmoid, true, GroupScore::kNone, 1, 1, 4, true},
    {RouterScore::kSigmoidOnTop, false, GroupScore::kNone, 1, 1, 1, false},
    {RouterScore::kSigmoid, true, GroupScore::kTop2Sum, 64, 7, 7, true},  // groups of one
};

RouteTopKArgs ArgsOf(const RouteCase& c, const TestMat& logits, const TestMat& bias) {
  RouteTopKArgs args;
  args.logits = logits.view();
  args.score = c.score;
  if (c.biased) args.bias = bias.view();
  args.group_score = c.group_score;
  args.num_groups = c.num_groups;
  args.num_top_groups = c.num_top_groups;
  args.k = c.k;
  args.normalize = c.normalize;
  args.scale = 2.5f;
  return args;
}

TEST(OpsMoe, RouteTopKAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const RouteCase& c : kRouteCases) {
      for (const int64_t rows : {0, 1, 200}) {
        Random random(rows);
        TestMat logits(DType::kF32, rows, 64, 3);
        logits.Fill(random, 2.0f);
        TestMat bias(DType::kF32, 1, 64);
        bias.Fill(random, 0.1f);
        const RouteTopKArgs args = ArgsOf(c, logits, bias);
        const Routes want = Route(&RefBackend(), args);
        const Routes got = Route(backend, args, 2);
        EXPECT_EQ(got.experts, want.experts) << backend->name;
        for (size_t i = 0; i < want.weights.size(); ++i) {
          ASSERT_NEAR(got.weights[i], want.weights[i], 2e-6f);
        }
      }
    }
  }
}

TEST(OpsMoe, RouteTiesGoToTheLowestId) {
  for (const Backend* backend : AvailableBackends()) {
    for (const RouteCase& c : kRouteCases) {
      TestMat logits(DType::kF32, 1, 64);
      TestMat bias(DType::kF32, 1, 64);
      for (int64_t e = 0; e < 64; ++e) {
        logits.Set(0, e, e % 3 == 1 ? 1.0f : 0.5f);
        bias.Set(0, e, 0.0f);
      }
      const Routes routes = Route(backend, ArgsOf(c, logits, bias));
      // Best first: the ones, ascending; then the halves, ascending.
      for (int j = 1; j < c.k; ++j) {
        const int32_t a = routes.experts[j - 1];
        const int32_t b = routes.experts[j];
        const bool a_high = a % 3 == 1;
        const bool b_high = b % 3 == 1;
        EXPECT_TRUE(a_high > b_high || (a_high == b_high && a < b)) << backend->name << " " << j;
      }
      EXPECT_EQ(routes.experts[0], 1) << backend->name;
    }
  }
}

TEST(OpsMoe, RouteStaysInTheBestGroups) {
  for (const Backend* backend : AvailableBackends()) {
    Random random(9);
    TestMat logits(DType::kF32, 100, 64);
    logits.Fill(random, 1.0f);
    TestMat bias(DType::kF32, 1, 64);
    bias.Fill(random, 1.0f);
    for (int64_t e = 0; e < 64; ++e) bias.Set(0, e, bias.At(0, e) - 5.0f);  // all choices negative
    const Routes routes = Route(backend, ArgsOf(kRouteCases[3], logits, bias));
    for (int64_t t = 0; t < 100; ++t) {
      std::set<int32_t> groups;
      std::set<int32_t> experts;
      float sum = 0;
      for (int j = 0; j < 8; ++j) {
        groups.insert(routes.experts[t * 8 + j] / 8);
        experts.insert(routes.experts[t * 8 + j]);
        sum += routes.weights[t * 8 + j];
      }
      EXPECT_LE(groups.size(), 4u);
      EXPECT_EQ(experts.size(), 8u);
      EXPECT_NEAR(sum, 2.5f, 1e-5f);
    }
  }
}

TEST(OpsMoe, RouteRowsAreInvariant) {
  for (const Backend* backend : AvailableBackends()) {
    Random random(5);
    TestMat logits(DType::kF32, 500, 64);
    logits.Fill(random);
    TestMat bias(DType::kF32, 1, 64);
    bias.Fill(random, 0.1f);
    RouteTopKArgs args = ArgsOf(kRouteCases[3], logits, bias);
    const Routes all = Route(backend, args, 3);
    for (const int64_t row : {0, 1, 250, 499}) {
      args.logits = logits.view().Rows(row, 1);
      const Routes one = Route(backend, args);
      EXPECT_TRUE(
          std::equal(one.experts.begin(), one.experts.end(), all.experts.begin() + row * 8));
      EXPECT_EQ(std::memcmp(one.weights.data(), &all.weights[row * 8], 32), 0);
    }
  }
}

struct Groups {
  std::vector<int32_t> offsets;
  std::vector<int32_t> pairs;
  std::vector<int32_t> places;
};

Groups Group(const Backend* backend, const std::vector<int32_t>& slots, int64_t num_slots) {
  Groups groups;
  groups.offsets.assign(num_slots + 1, -9);
  groups.pairs.assign(slots.size(), -9);
  groups.places.assign(slots.size(), -9);
  TestContext context(backend);
  GroupBySlot(context.ctx(), {slots, num_slots, groups.offsets, groups.pairs, groups.places});
  return groups;
}

std::vector<int32_t> RandomSlots(Random& random, int64_t count, int64_t num_slots) {
  std::vector<int32_t> slots;
  for (int64_t i = 0; i < count; ++i) {
    // A third of the slots gets nothing; some pairs have no slot.
    const int64_t slot = random.Below(num_slots);
    slots.push_back(static_cast<int32_t>(random.Below(20) == 0 ? -1 : slot / 3 * 3 + slot % 2));
    if (slots.back() >= num_slots) slots.back() = 0;
  }
  return slots;
}

TEST(OpsMoe, ChooseSlotsLooksUpAndCounts) {
  const std::vector<int32_t> experts = {2, 0, 1, 2, 0, 2};
  const std::vector<TokenId> tokens = {5, -1, 0};  // the second row is padding
  const std::vector<int32_t> first_slot = {7, 3, 4};
  for (const Backend* backend : AvailableBackends()) {
    std::vector<int64_t> counts = {10, 20, 30};
    std::vector<int64_t> prompt_counts = {0, 0, 0};
    std::vector<int32_t> slots(6, 99);
    TestContext context(backend);
    ChooseSlots(context.ctx(), {.experts = experts,
                                .tokens = tokens,
                                .k = 2,
                                .choice = {.first_slot = first_slot,
                                           .counts = counts,
                                           .prompt_counts = prompt_counts,
                                           .num_decodes = 1,
                                           .replicas = {},
                                           .positions = {}},
                                .slots = slots});
    EXPECT_EQ(slots, (std::vector<int32_t>{4, 7, -1, -1, 7, 4})) << backend->name;
    EXPECT_EQ(counts, (std::vector<int64_t>{12, 20, 32})) << backend->name;
    EXPECT_EQ(prompt_counts, (std::vector<int64_t>{1, 0, 1})) << backend->name;
    const SlotChoice uncounted{.first_slot = first_slot,
                               .counts = {},
                               .prompt_counts = {},
                               .num_decodes = 1,
                               .replicas = {},
                               .positions = {}};
    std::vector<int32_t> same_slots(6, 99);
    ChooseSlots(
        context.ctx(),
        {.experts = experts, .tokens = tokens, .k = 2, .choice = uncounted, .slots = same_slots});
    EXPECT_EQ(same_slots, slots) << backend->name;
  }
}

// 4 experts in 8 slots of 4 ranks: expert 0 on ranks 0, 1 and 2, expert 1 on ranks 0 and 3, 2 on 1
// and 3, 3 on 2.
class ReplicaChoice : public ::testing::Test {
 protected:
  // The slots of one token.
  std::vector<int32_t> Choose(std::vector<int32_t> experts, int32_t home, Position position = 0) {
    const std::vector<TokenId> tokens = {17};
    const std::vector<Position> positions = {position};
    std::vector<int64_t> counts(4);
    std::vector<int32_t> slots(experts.size(), 99);
    TestContext context(&RefBackend());
    ChooseSlots(context.ctx(), {.experts = experts,
                                .tokens = tokens,
                                .k = static_cast<int64_t>(experts.size()),
                                .choice = {.first_slot = {},
                                           .counts = counts,
                                           .prompt_counts = {},
                                           .num_decodes = 1,
                                           .replicas = {.begin = begin_,
                                                        .slots = slots_,
                                                        .slots_per_rank = 2,
                                                        .home = home},
                                           .positions = positions},
                                .slots = slots});
    for (const int32_t expert : experts) EXPECT_EQ(counts[static_cast<size_t>(expert)], 1);
    return slots;
  }

  std::vector<int32_t> begin_ = {0, 3, 5, 7, 8};
  std::vector<int32_t> slots_ = {0, 2, 4, 1, 6, 3, 7, 5};
};

TEST_F(ReplicaChoice, HomeComesFirst) {
  for (Position position = 0; position < 20; ++position) {
    EXPECT_EQ(Choose({0}, 1, position), (std::vector<int32_t>{2}));
    EXPECT_EQ(Choose({1}, 3, position), (std::vector<int32_t>{6}));
  }
}

TEST_F(ReplicaChoice, ThenARankThatTheTokenVisitsAnyway) {
  for (Position position = 0; position < 20; ++position) {
    // Expert 3 has its only copy on rank 2, where expert 0 has one, too. Home is none of its ranks.
    EXPECT_EQ(Choose({0, 3}, 3, position), (std::vector<int32_t>{4, 5}));
    // 1 is at home on rank 3, where 2 has a copy as well: at home, not on the way.
    EXPECT_EQ(Choose({2, 1}, 3, position), (std::vector<int32_t>{7, 6}));
    // Both somewhere else, but together: ranks 0 and 3 for 1, 1 and 3 for 2 (rank 3), or apart.
    const std::vector<int32_t> both = Choose({1, 2}, 2, position);
    EXPECT_TRUE(both[0] == 6 ? both[1] == 7 : both[1] == 3 || both[1] == 7);
  }
}

TEST_F(ReplicaChoice, ThenTheHashAllCopiesAlike) {
  std::vector<int> taken(8);
  constexpr int kTokens = 8000;
  for (Position position = 0; position < kTokens; ++position) {
    ++taken[static_cast<size_t>(Choose({0}, 3, position)[0])];
  }
  for (const size_t slot : {0, 2, 4}) EXPECT_NEAR(taken[slot], kTokens / 3, kTokens / 30);
  EXPECT_EQ(Choose({0}, 3, 5), Choose({0}, 3, 5));
}

TEST(OpsMoe, GroupBySlotIsStable) {
  for (const Backend* backend : AvailableBackends()) {
    for (const int64_t count : {0, 1, 8, 1000}) {
      Random random(count);
      const std::vector<int32_t> slots = RandomSlots(random, count, 13);
      const Groups groups = Group(backend, slots, 13);
      const Groups want = Group(&RefBackend(), slots, 13);
      EXPECT_EQ(groups.offsets, want.offsets);
      EXPECT_EQ(groups.pairs, want.pairs);
      EXPECT_EQ(groups.places, want.places);
      for (int64_t s = 0; s < 13; ++s) {
        for (int32_t p = groups.offsets[s]; p < groups.offsets[s + 1]; ++p) {
          EXPECT_EQ(slots[groups.pairs[p]], s);
          EXPECT_EQ(groups.places[groups.pairs[p]], p);
          if (p > groups.offsets[s]) {
            EXPECT_LT(groups.pairs[p - 1], groups.pairs[p]);
          }
        }
      }
    }
  }
}

TEST(OpsMoe, RouteToPlacesIsItsSteps) {
  for (const Backend* backend : AvailableBackends()) {
    for (const int64_t rows : {0, 1, 40}) {
      Random random(rows);
      TestMat logits(DType::kF32, rows, 64);
      logits.Fill(random);
      TestMat bias(DType::kF32, 1, 64);
      bias.Fill(random, 0.1f);
      RouteTopKArgs args = ArgsOf(kRouteCases[3], logits, bias);
      const Routes routes = Route(backend, args);
      std::vector<int32_t> first_slot;
      for (int32_t e = 0; e < 64; ++e) first_slot.push_back(63 - e);
      std::vector<int32_t> slots;
      for (const int32_t expert : routes.experts) slots.push_back(63 - expert);
      const Groups want = Group(backend, slots, 64);

      Routes got;
      got.experts.resize(routes.experts.size());
      got.weights.resize(routes.weights.size());
      args.experts = got.experts;
      args.weights = got.weights;
      std::vector<int32_t> got_slots(slots.size());
      Groups groups;
      groups.offsets.assign(65, -9);
      groups.pairs.assign(slots.size(), -9);
      groups.places.assign(slots.size(), -9);
      std::vector<int64_t> counts(64);
      const std::vector<TokenId> tokens(static_cast<size_t>(rows), 5);
      TestContext context(backend);
      RouteToPlaces(context.ctx(),
                    {.route = {.route = args,
                               .tokens = tokens,
                               .choice = {.first_slot = first_slot,
                                          .counts = counts,
                                          .prompt_counts = {},
                                          .replicas = {},
                                          .positions = {}},
                               .slots = got_slots},
                     .group = {got_slots, 64, groups.offsets, groups.pairs, groups.places}});
      EXPECT_EQ(got.experts, routes.experts) << backend->name;
      EXPECT_EQ(got_slots, slots) << backend->name;
      EXPECT_EQ(groups.offsets, want.offsets) << backend->name;
      EXPECT_EQ(groups.pairs, want.pairs) << backend->name;
      EXPECT_EQ(groups.places, want.places) << backend->name;
      EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), rows * args.k);
    }
  }
}

// A whole MoE layer: grouped, first product (gathered and scaled), second, home again.
TEST(OpsMoe, GroupedProductsAgreeWithRef) {
  const int64_t num_slots = 11;
  const int64_t k = 4;
  for (const Backend* backend : VectorBackends()) {
    for (const WeightFormat format : kFormats) {
      for (const DType act : kActs) {
        for (const int64_t rows : {1, 2, 30, 120}) {
          Random random(rows);
          const int64_t hidden = 200;
          const int64_t inner = 56;
          std::vector<TestWeight> up;
          std::vector<TestWeight> down;
          std::vector<PackedWeight> up_packed(num_slots);
          std::vector<PackedWeight> down_packed(num_slots);
          const std::vector<int32_t> slots = RandomSlots(random, rows * k, num_slots);
          const Groups groups = Group(backend, slots, num_slots);
          for (int64_t s = 0; s < num_slots; ++s) {
            up.emplace_back(format, inner, hidden, true, random);
            down.emplace_back(format, hidden, inner, false, random);
            if (groups.offsets[s] == groups.offsets[s + 1]) continue;  // an empty slot: no weights
            up_packed[s] = up.back().packed();
            down_packed[s] = down.back().packed();
          }
          TestMat a(act, rows, hidden, 8);
          a.Fill(random);
          std::vector<float> scale;
          for (int64_t p = 0; p < rows * k; ++p) scale.push_back(random.Normal());
          const std::string name = fmt::format("{} {} {} T={}", backend->name,
                                               WeightFormatName(format), DTypeName(act), rows);
          for (const bool scaled : {false, true}) {
            TestMat want(act, rows * k, inner, 2);
            TestMat got(want);
            GroupedSwiGluArgs first;
            first.a = a.view();
            first.offsets = groups.offsets;
            first.pairs = groups.pairs;
            first.rows_per_pair = k;
            if (scaled) first.row_scale = scale;
            first.weights = up_packed;
            first.out = want.view();
            TestContext ref(&RefBackend());
            GroupedSwiGlu(ref.ctx(), first);
            first.out = got.view();
            TestContext context(backend, 2);
            GroupedSwiGlu(context.ctx(), first);
            ExpectNear(got, want, name + " first");  // rows beyond the groups keep their poison

            TestMat home_want(act, rows * k, hidden, 1);
            TestMat home(home_want);
            GroupedGemm(ref.ctx(), {want.view(), groups.offsets, down_packed, home_want.view()});
            GroupedGemm(context.ctx(), {want.view(), groups.offsets, down_packed, home.view()});
            ExpectNear(home, home_want, name + " second");
          }
        }
      }
    }
  }
}

TEST(OpsMoe, GroupedRowsAreInvariant) {
  const int64_t num_slots = 6;
  for (const Backend* backend : AvailableBackends()) {
    for (const WeightFormat format : kFormats) {
      Random random(2);
      const int64_t hidden = backend == &RefBackend() ? 64 : 512;
      const int64_t inner = backend == &RefBackend() ? 32 : 256;
      std::vector<TestWeight> weights;
      std::vector<PackedWeight> packed;
      for (int64_t s = 0; s < num_slots; ++s) {
        weights.emplace_back(format, inner, hidden, true, random);
        packed.push_back(weights.back().packed());
      }
      TestMat a(DType::kBF16, 150, hidden);
      a.Fill(random);
      std::vector<int32_t> slots;
      for (int64_t t = 0; t < 150; ++t) slots.push_back(static_cast<int32_t>(random.Below(6)));
      const auto run = [&](int64_t begin, int64_t count, int threads) {
        const Groups groups =
            Group(backend, {slots.begin() + begin, slots.begin() + begin + count}, num_slots);
        TestMat out(DType::kBF16, count, inner);
        GroupedSwiGluArgs args;
        args.a = a.view().Rows(begin, count);
        args.offsets = groups.offsets;
        args.pairs = groups.pairs;
        args.weights = packed;
        args.out = out.view();
        TestContext context(backend, threads);
        GroupedSwiGlu(context.ctx(), args);
        return std::pair(std::move(out), groups.places);
      };
      const auto all = run(0, 150, 3);
      for (const auto& [begin, count] :
           {std::pair<int64_t, int64_t>{0, 1}, {149, 1}, {20, 3}, {40, 100}}) {
        const auto part = run(begin, count, 2);
        for (int64_t r = 0; r < count; ++r) {
          ExpectSameRow(part.first, part.second[r], all.first, all.second[begin + r],
                        fmt::format("{} {}", backend->name, WeightFormatName(format)));
        }
      }
    }
  }
}

TEST(OpsMoe, WeightedReduceAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const DType act : kActs) {
      for (const bool weighted : {false, true}) {
        for (const bool shared : {false, true}) {
          for (const int64_t rows : {0, 1, 40}) {
            Random random(rows);
            TestMat in(act, 100, 215, 3);
            in.Fill(random);
            TestMat extra(act, rows, 215, 1);
            extra.Fill(random);
            std::vector<int32_t> places;
            std::vector<float> weights;
            for (int64_t p = 0; p < rows * 3; ++p) {
              places.push_back(static_cast<int32_t>(random.Below(101)) - 1);
              weights.push_back(random.Normal());
            }
            TestMat want(act, rows, 215, 2);
            TestMat got(want);
            WeightedReduceArgs args;
            args.rows = in.view();
            args.places = places;
            if (weighted) args.weights = weights;
            args.k = 3;
            if (shared) args.shared = extra.view();
            args.out = want.view();
            TestContext ref(&RefBackend());
            WeightedReduce(ref.ctx(), args);
            args.out = got.view();
            TestContext context(backend, 2);
            WeightedReduce(context.ctx(), args);
            ExpectNear(got, want, fmt::format("{} weighted_reduce", backend->name), 1e-6f);
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
