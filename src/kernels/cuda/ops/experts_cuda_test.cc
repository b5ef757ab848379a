// What the GPU does for experts, of several copies and moving ones too, against the host. Skipped
// without a GPU.
#include <algorithm>
#include <cstring>

#include "kernels/cuda/gemm/few_rows.h"
#include "kernels/cuda/moe/checksum.h"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/ops/device_test_util.h"

namespace moebius::kernels {
namespace {

class CudaExperts : public ::testing::Test, protected DeviceOps {
 protected:
  void SetUp() override { Open(/*library=*/false); }
};

TEST_F(CudaExperts, Checksum) {
  for (const size_t size : {0, 1, 8, 21, 4096, 70001, 3 << 20}) {
    bench().Reset();
    std::vector<uint8_t> bytes(size);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_.Below(256));
    uint64_t want = 77;  // added to
    for (size_t i = 0; 8 * i < size; ++i) {
      uint64_t word = 0;
      std::memcpy(&word, bytes.data() + 8 * i, std::min<size_t>(8, size - 8 * i));
      want += cuda::ChecksumPart(i, word);
    }
    const std::span<uint8_t> on_device = bench().Put(bytes);
    const std::span<uint64_t> sum = bench().Put(std::vector<uint64_t>{77});
    ASSERT_EQ(cuda::LaunchChecksum(reinterpret_cast<const std::byte*>(on_device.data()), size,
                                   sum.data(), device().device->stream),
              0);
    EXPECT_EQ(bench().Get(sum).front(), want) << size;
  }
}

// Experts in slots of some ranks, some of them several times.
struct CopyTable {
  CopyTable(Random& random, int64_t num_experts, int32_t num_ranks, int32_t slots_per_rank)
      : slots_per_rank(slots_per_rank) {
    std::vector<std::vector<int32_t>> of_expert(static_cast<size_t>(num_experts));
    for (int32_t slot = 0; slot < num_ranks * slots_per_rank; ++slot) {
      const int64_t e = slot < num_experts ? slot : random.Below(random.Below(num_experts) + 1);
      of_expert[static_cast<size_t>(e)].push_back(slot);
    }
    for (const std::vector<int32_t>& copies : of_expert) {
      slots.insert(slots.end(), copies.begin(), copies.end());
      begin.push_back(static_cast<int32_t>(slots.size()));
    }
    // Room for more, as tables have that change while graphs read them.
    slots.push_back(-9);
  }

  int32_t slots_per_rank;
  std::vector<int32_t> begin = {0};
  std::vector<int32_t> slots;
};

TEST_F(CudaExperts, ChoosesTheSameCopies) {
  for (const auto& [experts, ranks, slots, k] :
       {std::tuple(4, 4, 3, 2), std::tuple(32, 2, 20, 4), std::tuple(256, 32, 9, 8),
        std::tuple(40, 8, 16, 32)}) {
    for (const int32_t home : {-1, 0, ranks - 1}) {
      SCOPED_TRACE(fmt::format("{} experts, {} x {} slots, home {}", experts, ranks, slots, home));
      bench().Reset();
      constexpr int64_t kRows = 333;
      const CopyTable table(random_, experts, ranks, slots);
      const TestMat logits = TestMat(DType::kF32, kRows, experts).Fill(random_);
      const size_t pairs = static_cast<size_t>(kRows * k);
      std::vector<int32_t> chosen(pairs), want(pairs, 99), got(pairs, 98);
      std::vector<float> weights(pairs);
      std::vector<TokenId> tokens = Ints(kRows, 200000);
      const std::vector<Position> positions = Ints(kRows, 5000);
      for (size_t t = 0; t < tokens.size(); t += 7) tokens[t] = -1;
      std::vector<int64_t> counts(static_cast<size_t>(experts), 3);
      std::vector<int64_t> prompt_counts(static_cast<size_t>(experts), 4);
      const auto d_counts = bench().Put(counts);
      const auto d_prompt_counts = bench().Put(prompt_counts);
      const SlotChoice on_host = {.first_slot = {},
                                  .counts = counts,
                                  .prompt_counts = prompt_counts,
                                  .num_decodes = 100,
                                  .replicas = {.begin = table.begin,
                                               .slots = table.slots,
                                               .slots_per_rank = slots,
                                               .home = home},
                                  .positions = positions};
      SlotChoice on_device = on_host;
      on_device.counts = d_counts;
      on_device.prompt_counts = d_prompt_counts;
      on_device.replicas.begin = bench().Put(table.begin);
      on_device.replicas.slots = bench().Put(table.slots);
      on_device.positions = bench().Put(positions);
      const auto d_tokens = bench().Put(tokens);
      const auto d_slots = bench().Put(got);
      RouteTopKArgs route = {.logits = bench().Put(logits),
                             .k = k,
                             .normalize = true,
                             .experts = bench().Put(chosen),
                             .weights = bench().Put(weights)};
      RouteToSlots(device(),
                   {.route = route, .tokens = d_tokens, .choice = on_device, .slots = d_slots});
      const std::vector<int32_t> routed = bench().Get(d_slots);
      // The same once more, and grouped: all rows in steps, few of them in one launch.
      const int64_t num_slots = int64_t{ranks} * slots;
      for (const int64_t few : {kRows, int64_t{cuda::kMaxRowsGrouped}, int64_t{1}}) {
        const auto num = static_cast<size_t>(few * k);
        std::vector<int32_t> offsets(static_cast<size_t>(num_slots) + 1), order(num, -5),
            places(num);
        GroupBySlot(host(), {std::span(routed).first(num), num_slots, offsets, order, places});
        const auto d_offsets = bench().Put(std::vector<int32_t>(offsets.size(), 9));
        const auto d_order = bench().Put(std::vector<int32_t>(num, -5));
        const auto d_places = bench().Put(std::vector<int32_t>(num, 9));
        SlotChoice uncounted = on_device;
        uncounted.counts = {};
        uncounted.prompt_counts = {};
        uncounted.num_decodes = 0;
        uncounted.positions = on_device.positions.first(static_cast<size_t>(few));
        RouteTopKArgs first = route;
        first.logits = route.logits.Rows(0, few);
        first.experts = route.experts.first(num);
        first.weights = route.weights.first(num);
        const auto again = bench().Put(std::vector<int32_t>(num, 97));
        RouteToPlaces(device(), {.route = {.route = first,
                                           .tokens = d_tokens.first(static_cast<size_t>(few)),
                                           .choice = uncounted,
                                           .slots = again},
                                 .group = {again, num_slots, d_offsets, d_order, d_places}});
        EXPECT_TRUE(std::ranges::equal(bench().Get(again), std::span(routed).first(num))) << few;
        EXPECT_EQ(bench().Get(d_offsets), offsets) << few;
        EXPECT_EQ(bench().Get(d_order), order) << few;
        EXPECT_EQ(bench().Get(d_places), places) << few;
      }
      ChooseSlots(device(), {.experts = route.experts,
                             .tokens = d_tokens,
                             .k = k,
                             .choice = on_device,
                             .slots = d_slots});
      chosen = bench().Get(route.experts);
      for (int i = 0; i < 2; ++i) {
        ChooseSlots(
            host(),
            {.experts = chosen, .tokens = tokens, .k = k, .choice = on_host, .slots = want});
      }
      EXPECT_EQ(routed, want);
      EXPECT_EQ(bench().Get(d_slots), want);
      EXPECT_EQ(bench().Get(d_counts), counts);
      EXPECT_EQ(bench().Get(d_prompt_counts), prompt_counts);
    }
  }
}

SlotChoice Choice(std::span<const int32_t> first_slot, std::span<int64_t> counts) {
  return {.first_slot = first_slot,
          .counts = counts,
          .prompt_counts = {},
          .num_decodes = 0,
          .replicas = {},
          .positions = {}};
}

TEST_P(CudaOps, DrawLogits) {
  bench().Reset();
  for (const auto& [rows, experts] : {std::pair(1, 8), std::pair(37, 256)}) {
    const std::vector<int32_t> tokens = Ints(rows, 100000);
    const std::vector<int32_t> positions = Ints(rows, 5000);
    std::vector<float> log_probabilities;
    for (int e = 0; e < experts; ++e) log_probabilities.push_back(-random_.Normal());
    TestMat want(DType::kF32, rows, experts);
    TestMat got = want;
    const Mat d_out = bench().Put(got);
    DrawLogits(host(), {tokens, positions, log_probabilities, 3, want.view()});
    DrawLogits(device(), {bench().Put(tokens), bench().Put(positions),
                          bench().Put(log_probabilities), 3, d_out});
    bench().Get(d_out, got);
    ExpectClose(got, want, 2e-6, "draw_logits");
  }
}

// Routing, slots, both expert products and the sum, as a layer runs them; with a row of padding.
TEST_P(CudaOps, Experts) {
  struct Shape {
    int64_t rows, experts, k, hidden, inner;
  };
  for (const WeightFormat format : kFormats) {
    for (const Shape& s :
         {Shape{1, 8, 2, 128, 128}, Shape{37, 16, 4, 256, 384}, Shape{1100, 8, 3, 256, 128},
          Shape{9, 6, 2, 96, 48}, Shape{1, 8, 1, 256, 128}, Shape{4, 16, 4, 256, 384},
          Shape{5, 6, 3, 1272, 24}, Shape{3, 8, 5, 128, 1408}}) {
      for (const DType act : kActs) {
        const bool fp8 = format == WeightFormat::kFp8Block;
        if (fp8 && s.hidden % 128 != 0) continue;
        bench().Reset();
        const std::string what =
            fmt::format("{} {} {} rows", WeightFormatName(format), DTypeName(act), s.rows);
        const auto pairs = static_cast<size_t>(s.rows * s.k);
        const TestMat logits = TestMat(DType::kF32, s.rows, s.experts).Fill(random_);
        std::vector<int32_t> experts(pairs);
        std::vector<float> weights(pairs);
        const std::span<int32_t> d_experts = bench().Put(experts);
        const std::span<float> d_weights = bench().Put(weights);
        RouteTopKArgs route = {.logits = bench().Put(logits),
                               .k = static_cast<int>(s.k),
                               .normalize = true,
                               .experts = d_experts,
                               .weights = d_weights};
        const RouteTopKArgs d_route = route;
        RouteTopK(device(), route);
        route.logits = logits.view();
        route.experts = experts;
        route.weights = weights;
        RouteTopK(host(), route);
        EXPECT_EQ(bench().Get(d_experts), experts);

        std::vector<TokenId> tokens(static_cast<size_t>(s.rows), 3);
        if (s.rows > 4) tokens.back() = -1;
        const std::vector<int32_t> first_slot = [&] {
          std::vector<int32_t> slots;
          for (int64_t e = 0; e < s.experts; ++e)
            slots.push_back(static_cast<int32_t>(s.experts - 1 - e));
          return slots;
        }();
        std::vector<int64_t> counts(static_cast<size_t>(s.experts), 5);
        std::vector<int32_t> slots(pairs), offsets(static_cast<size_t>(s.experts) + 1),
            order(pairs), places(pairs);
        const auto d_counts = bench().Put(counts);
        const auto d_slots = bench().Put(slots);
        const auto d_offsets = bench().Put(offsets);
        const auto d_order = bench().Put(order);
        const auto d_places = bench().Put(places);
        ChooseSlots(device(), {.experts = d_experts,
                               .tokens = bench().Put(tokens),
                               .k = s.k,
                               .choice = Choice(bench().Put(first_slot), d_counts),
                               .slots = d_slots});
        GroupBySlot(device(), {d_slots, s.experts, d_offsets, d_order, d_places});
        ChooseSlots(host(), {.experts = experts,
                             .tokens = tokens,
                             .k = s.k,
                             .choice = Choice(first_slot, counts),
                             .slots = slots});
        GroupBySlot(host(), {slots, s.experts, offsets, order, places});
        EXPECT_EQ(bench().Get(d_counts), counts);
        EXPECT_EQ(bench().Get(d_offsets), offsets);
        EXPECT_EQ(bench().Get(d_places), places);

        const TestMat x = TestMat(act, s.rows, s.hidden).Fill(random_);
        const DeviceWeights up(bench(), random_, format, s.experts, s.inner, s.hidden, true);
        const DeviceWeights down(bench(), random_, format, s.experts, s.hidden, s.inner, false);
        TestMat inner(act, static_cast<int64_t>(pairs), s.inner);
        TestMat rows(act, static_cast<int64_t>(pairs), s.hidden);
        TestMat want(act, s.rows, s.hidden);
        TestMat got = want;
        const Mat d_inner = bench().Put(inner);
        const Mat d_rows = bench().Put(rows);
        const Mat d_out = bench().Put(got);
        const GroupedSwiGluArgs first = {.a = bench().Put(x),
                                         .offsets = d_offsets,
                                         .pairs = d_order,
                                         .rows_per_pair = s.k,
                                         .places = d_places,
                                         .row_scale = {},
                                         .weights = up.device(),
                                         .out = d_inner};
        const WeightedReduceArgs reduce = {.rows = d_rows,
                                           .places = d_places,
                                           .weights = d_weights,
                                           .k = s.k,
                                           .shared = {},
                                           .out = d_out};
        GroupedSwiGlu(device(), first);
        GroupedGemm(device(), {d_inner, d_offsets, down.device(), d_rows});
        WeightedReduce(device(), reduce);
        GroupedSwiGlu(host(), {.a = x.view(),
                               .offsets = offsets,
                               .pairs = order,
                               .rows_per_pair = s.k,
                               .row_scale = {},
                               .weights = up.packed(),
                               .out = inner.view()});
        GroupedGemm(host(), {inner.view(), offsets, down.packed(), rows.view()});
        WeightedReduce(host(), {.rows = rows.view(),
                                .places = places,
                                .weights = weights,
                                .k = s.k,
                                .shared = {},
                                .out = want.view()});
        bench().Get(d_out, got);
        const bool quantised = fp8 && act == DType::kBF16;
        const double limit = quantised ? 8e-2 : act == DType::kBF16 ? 1e-2 : 1e-4;
        ExpectClose(got, want, limit, "experts " + what);

        // The same joined. The order of places within a slot is the same, so all of it is.
        RouteToSlots(device(), {.route = d_route,
                                .tokens = bench().Put(tokens),
                                .choice = Choice(bench().Put(first_slot), d_counts),
                                .slots = d_slots});
        for (size_t p = 0; p < pairs; ++p) {
          if (slots[p] >= 0) ++counts[static_cast<size_t>(experts[p])];
        }
        EXPECT_EQ(bench().Get(d_counts), counts);
        EXPECT_EQ(bench().Get(d_slots), slots);
        GroupedMlp(device(), {first, down.device(), d_rows});
        WeightedReduce(device(), reduce);
        bench().Get(d_out, got);
        ExpectClose(got, want, limit, "joined experts " + what);
      }
    }
  }
}

// The sum and the norm behind it: the bits of the two operations where one launch takes the rows
// (widths of fours), and where their steps do.
TEST_F(CudaExperts, ReduceAndNorm) {
  for (const DType act : kActs) {
    for (const auto& [rows, cols] : {std::pair(1, 2048), std::pair(5, 7168), std::pair(3, 97)}) {
      bench().Reset();
      constexpr int64_t kChoices = 8;
      const TestMat expert_rows = TestMat(act, rows * kChoices, cols).Fill(random_);
      const TestMat shared = TestMat(act, rows, cols).Fill(random_);
      const TestMat weight = TestMat(DType::kF32, 1, cols).Fill(random_);
      const TestMat stream = TestMat(DType::kF32, rows, cols).Fill(random_);
      std::vector<int32_t> places;
      std::vector<float> weights;
      for (int64_t pair = 0; pair < rows * kChoices; ++pair) {
        places.push_back(pair % 7 == 3 ? -1 : static_cast<int32_t>(rows * kChoices - 1 - pair));
        weights.push_back(random_.Normal());
      }
      TestMat sums(act, rows, cols);
      const WeightedReduceArgs sum = {.rows = bench().Put(expert_rows),
                                      .places = bench().Put(places),
                                      .weights = bench().Put(weights),
                                      .k = kChoices,
                                      .shared = bench().Put(shared),
                                      .out = bench().Put(sums)};
      const auto run = [&](auto* operation, TestMat& got_stream, TestMat& got) {
        const RmsNormArgs norm = {.x = sum.out,
                                  .residual = bench().Put(stream),
                                  .weight = bench().Put(weight),
                                  .out = bench().Put(got)};
        operation(device(), {sum, norm});
        bench().Get(norm.residual, got_stream);
        bench().Get(norm.out, got);
      };
      TestMat got_stream = stream;
      TestMat want_stream = stream;
      TestMat got(act, rows, cols);
      TestMat want(act, rows, cols);
      run(ReduceAndNorm, got_stream, got);
      run(ReduceAndNormInSteps, want_stream, want);
      const std::string what = fmt::format("{} {} x {}", DTypeName(act), rows, cols);
      ExpectClose(got_stream, want_stream, 0, "residual " + what);
      ExpectClose(got, want, 0, "norm " + what);
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
