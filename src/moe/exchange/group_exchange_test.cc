#include "moe/exchange/group_exchange.h"

#include "moe/exchange/test_util.h"

namespace moebius::moe {
namespace {

using testing::Clock;
using testing::TestMat;
using testing::Tokens;

struct Setting {
  ExchangeShape shape;
  std::vector<int64_t> counts;  // tokens, by rank
  ExchangeMode mode = ExchangeMode::kAuto;
  int num_threads = 1;  // of each rank
  int num_steps = 1;
  testing::StepOptions step = {};
  FlagHook hook = {};
};

struct Outcome {
  std::vector<TestMat> out;
  std::vector<ExchangeBytes> bytes;
  std::vector<ExchangeMode> modes;
  std::vector<int64_t> home_rows;
};

// The ranks as threads; all steps do the same.
Outcome RunRanks(const Setting& setting, const std::vector<Tokens>& tokens) {
  const int num_ranks = setting.shape.num_ranks;
  testing::SharedMemory memory(GroupExchange::NumBytes(setting.shape));
  comm::AbortWord abort;
  Outcome outcome;
  outcome.bytes.resize(tokens.size());
  outcome.modes.resize(tokens.size());
  outcome.home_rows.resize(tokens.size());
  for (const Tokens& part : tokens) {
    outcome.out.emplace_back(setting.shape.act, part.count(), setting.shape.hidden);
  }
  const int64_t num_chunks = testing::NumChunks(setting.shape, tokens);
  testing::OnThreads(num_ranks, [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    const auto pool = testing::MakePool(setting.num_threads);
    std::vector<std::byte> scratch(1 << 20);
    Arena workspace(scratch.data(), scratch.size());
    kernels::ExecContext ctx = testing::ContextOn(testing::Best(), pool.get(), &workspace);
    GroupExchange exchange(setting.shape, testing::MemberInfo(num_ranks, rank, &abort),
                           memory.bytes(), {.mode = setting.mode, .hook = setting.hook});
    for (int step = 0; step < setting.num_steps; ++step) {
      exchange.BeginStep(step, Clock::now() + std::chrono::seconds(60));
      outcome.out[r].Poison();
      testing::RunChunks(exchange, ctx, setting.shape, rank, num_chunks, tokens[r], setting.step,
                         outcome.out[r].view());
    }
    ASSERT_TRUE(exchange.status()) << exchange.status().error().message();
    outcome.bytes[r] = exchange.bytes();
    outcome.modes[r] = exchange.mode();
    outcome.home_rows[r] = exchange.num_home_rows();
  });
  return outcome;
}

// 0 ... 2.5 T_max tokens, with both sides of T_max among them.
std::vector<int64_t> Counts(int num_ranks, int64_t max_tokens, uint64_t seed) {
  const std::vector<int64_t> some = {
      0, 1, max_tokens - 1, max_tokens, max_tokens + 1, 2 * max_tokens, 5 * max_tokens / 2};
  testing::Random random(seed);
  std::vector<int64_t> counts;
  for (int rank = 0; rank < num_ranks; ++rank) {
    counts.push_back(some[static_cast<size_t>(random.Below(static_cast<int64_t>(some.size())))]);
  }
  return counts;
}

TEST(GroupExchange, EqualsOneRank) {
  uint64_t seed = 1;
  for (int num_ranks = 1; num_ranks <= 8; ++num_ranks) {
    for (const int64_t num_slots : {3, 16, 37}) {
      for (const DType act : {DType::kF32, DType::kBF16}) {
        ++seed;
        Setting setting;
        setting.shape = {.num_ranks = num_ranks,
                         .num_slots = num_slots,
                         .max_tokens = 6,
                         .top_k = static_cast<int64_t>(1 + seed % 3),
                         .hidden = 20,
                         .act = act};
        setting.counts = Counts(num_ranks, setting.shape.max_tokens, seed);
        setting.step.weighted = seed % 4 != 0;
        setting.step.shared = seed % 5 != 0;
        setting.num_steps = 2;
        const std::vector<Tokens> tokens = testing::DrawAll(seed, setting.shape, setting.counts);
        const auto alone = testing::RunAlone(testing::Best(), setting.shape, tokens, setting.step);
        setting.shape.deterministic = true;
        SCOPED_TRACE(fmt::format("{} ranks, {} slots, {}", num_ranks, num_slots, DTypeName(act)));
        testing::ExpectSameBits(RunRanks(setting, tokens).out, alone);
        setting.shape.deterministic = false;
        const Outcome summed = RunRanks(setting, tokens);
        testing::ExpectClose(setting.shape, summed.out, alone);
        testing::ExpectSameBits(RunRanks(setting, tokens).out, summed.out);
      }
    }
  }
}

TEST(GroupExchange, SixtyFourRanksWith256Experts) {
  Setting setting;
  setting.shape = {.num_ranks = 64,
                   .num_slots = 256,
                   .max_tokens = 5,
                   .top_k = 8,
                   .hidden = 32,
                   .act = DType::kBF16};
  setting.counts = Counts(64, setting.shape.max_tokens, 64);
  const std::vector<Tokens> tokens = testing::DrawAll(64, setting.shape, setting.counts);
  const auto alone = testing::RunAlone(testing::Best(), setting.shape, tokens, {});
  for (const bool deterministic : {true, false}) {
    setting.shape.deterministic = deterministic;
    const Outcome outcome = RunRanks(setting, tokens);
    if (deterministic) {
      testing::ExpectSameBits(outcome.out, alone);
    } else {
      testing::ExpectClose(setting.shape, outcome.out, alone);
    }
  }
}

TEST(GroupExchange, ModesHaveTheSameBits) {
  for (const bool deterministic : {false, true}) {
    Setting setting;
    setting.shape = {.num_ranks = 5,
                     .num_slots = 24,
                     .max_tokens = 70,
                     .top_k = 4,
                     .hidden = 256,
                     .act = DType::kBF16,
                     .deterministic = deterministic};
    setting.counts = {70, 0, 131, 1, 33};
    const std::vector<Tokens> tokens = testing::DrawAll(9, setting.shape, setting.counts);
    setting.mode = ExchangeMode::kLatency;
    const Outcome latency = RunRanks(setting, tokens);
    for (const int num_threads : {1, 2}) {
      setting.num_threads = num_threads;
      for (const ExchangeMode mode : {ExchangeMode::kLatency, ExchangeMode::kThroughput}) {
        setting.mode = mode;
        const Outcome outcome = RunRanks(setting, tokens);
        testing::ExpectSameBits(outcome.out, latency.out);
        for (const ExchangeMode used : outcome.modes) EXPECT_EQ(used, mode);
      }
    }
  }
}

TEST(GroupExchange, AutoChoosesCallByCall) {
  Setting setting;
  setting.shape = {.num_ranks = 2, .num_slots = 4, .max_tokens = 2048, .hidden = 512};
  setting.counts = {4, 2048};  // the second one has more than fits the cache
  const std::vector<Tokens> tokens = testing::DrawAll(2, setting.shape, setting.counts);
  const Outcome outcome = RunRanks(setting, tokens);
  EXPECT_EQ(outcome.modes[0], ExchangeMode::kLatency);
  EXPECT_EQ(outcome.modes[1], ExchangeMode::kThroughput);
  testing::ExpectClose(setting.shape, outcome.out,
                       testing::RunAlone(testing::Best(), setting.shape, tokens, {}));
}

TEST(GroupExchange, ChunksOfAnySizeGiveTheSame) {
  Setting setting;
  setting.shape = {.num_ranks = 3, .num_slots = 10, .max_tokens = 64, .top_k = 3, .hidden = 24};
  setting.counts = {17, 0, 40};
  const std::vector<Tokens> tokens = testing::DrawAll(5, setting.shape, setting.counts);
  for (const bool deterministic : {false, true}) {
    setting.shape.deterministic = deterministic;
    setting.shape.max_tokens = 64;
    const Outcome whole = RunRanks(setting, tokens);
    for (const int64_t max_tokens : {1, 2, 7, 16, 17, 39, 40, 41}) {
      setting.shape.max_tokens = max_tokens;
      testing::ExpectSameBits(RunRanks(setting, tokens).out, whole.out);
    }
  }
}

// Members that pause before flags at random let the others run ahead: rows that are written over
// too early would be seen.
TEST(GroupExchange, RegionsAreNotUsedAgainTooEarly) {
  Setting setting;
  setting.shape = {.num_ranks = 4,
                   .num_slots = 8,
                   .max_tokens = 3,
                   .top_k = 2,
                   .hidden = 8,
                   .deterministic = true};
  setting.counts = {20, 3, 0, 31};
  const std::vector<Tokens> tokens = testing::DrawAll(11, setting.shape, setting.counts);
  std::atomic<uint64_t> dice{1};
  setting.hook = [&dice](ExchangeHalf, int, uint32_t) {
    const uint64_t roll = dice.fetch_add(1) * 0x9e3779b97f4a7c15U >> 32;
    if (roll % 16 == 0) std::this_thread::sleep_for(std::chrono::microseconds(roll % 700));
    return true;
  };
  setting.num_steps = 5;
  testing::ExpectSameBits(RunRanks(setting, tokens).out,
                          testing::RunAlone(testing::Best(), setting.shape, tokens, {}));
}

// The products that the model runs, gathering rows from the region.
TEST(GroupExchange, ServesTheGroupedProducts) {
  Setting setting;
  setting.shape = {.num_ranks = 3,
                   .num_slots = 7,
                   .max_tokens = 9,
                   .top_k = 2,
                   .hidden = 64,
                   .act = DType::kBF16,
                   .deterministic = true};
  setting.counts = {9, 4, 20};
  constexpr int64_t kWidth = 48;
  kernels::Random random(3);
  std::vector<kernels::TestWeight> weights;
  std::vector<kernels::PackedWeight> gate_up;
  std::vector<kernels::PackedWeight> down;
  for (int64_t slot = 0; slot < setting.shape.num_slots; ++slot) {
    weights.emplace_back(kernels::WeightFormat::kBF16, kWidth, 64, true, random);
    gate_up.push_back(weights.back().packed());
    weights.emplace_back(kernels::WeightFormat::kBF16, 64, kWidth, false, random);
    down.push_back(weights.back().packed());
  }
  setting.step.experts = [&](kernels::ExecContext& ctx, const DispatchedRows& work, int64_t first,
                             bool scale_input, Mat out) {
    const size_t num_slots = work.offsets.size() - 1;
    const auto begin = static_cast<size_t>(first);
    TestMat hidden(DType::kBF16, work.max_places, kWidth);
    kernels::GroupedSwiGluArgs args;
    args.a = work.rows;
    args.offsets = work.offsets;
    args.pairs = work.pairs;
    args.rows_per_pair = work.rows_per_pair;
    if (scale_input) args.row_scale = work.weights;
    args.weights = std::span(gate_up).subspan(begin, num_slots);
    args.out = hidden.view();
    kernels::GroupedSwiGlu(ctx, args);
    kernels::GroupedGemm(ctx, {.a = hidden.view(),
                               .offsets = work.offsets,
                               .weights = std::span(down).subspan(begin, num_slots),
                               .out = out});
  };
  const std::vector<Tokens> tokens = testing::DrawAll(17, setting.shape, setting.counts);
  for (const bool weighted : {true, false}) {
    setting.step.weighted = weighted;
    std::vector<std::byte> scratch(1 << 20);
    Arena workspace(scratch.data(), scratch.size());
    testing::ExpectSameBits(
        RunRanks(setting, tokens).out,
        testing::RunAlone(testing::Best(), setting.shape, tokens, setting.step, &workspace));
  }
}

// Token t chooses slots t, t + 4, ... of 8 ranks with 4 slots each: the ranks t / 4, t / 4 + 1, ...
TEST(GroupExchange, BytesFollowTheClosedForm) {
  constexpr int kRanks = 8;
  constexpr int64_t kSlots = 32;
  for (const bool deterministic : {false, true}) {
    for (const int64_t k : {1, 3, 8}) {
      Setting setting;
      setting.shape = {.num_ranks = kRanks,
                       .num_slots = kSlots,
                       .max_tokens = kSlots,
                       .top_k = k,
                       .hidden = 16,
                       .deterministic = deterministic};
      setting.counts.assign(kRanks, kSlots);
      std::vector<Tokens> tokens = testing::DrawAll(1, setting.shape, setting.counts);
      for (Tokens& part : tokens) {
        for (int64_t pair = 0; pair < kSlots * k; ++pair) {
          part.slots[static_cast<size_t>(pair)] =
              static_cast<int32_t>((pair / k + pair % k * 4) % kSlots);
        }
      }
      const Outcome outcome = RunRanks(setting, tokens);
      // A token goes to k ranks; in k of 8 cases its home is among them.
      const int64_t rows = kSlots * k * (kRanks - 1) / kRanks;
      for (const ExchangeBytes& bytes : outcome.bytes) {
        EXPECT_EQ(bytes.dispatch, rows * setting.shape.row_bytes());
        EXPECT_EQ(bytes.combine, rows * setting.shape.row_bytes());
      }
      for (const int64_t home_rows : outcome.home_rows) {
        EXPECT_EQ(home_rows, kSlots * k / kRanks);
      }
    }
  }
}

TEST(GroupExchange, BytesCountARowOnceARank) {
  for (const bool deterministic : {false, true}) {
    Setting setting;
    setting.shape = {.num_ranks = 3,
                     .num_slots = 9,
                     .max_tokens = 8,
                     .top_k = 4,
                     .hidden = 16,
                     .act = DType::kBF16,
                     .deterministic = deterministic};
    setting.counts = {20, 8, 0};
    const std::vector<Tokens> tokens = testing::DrawAll(8, setting.shape, setting.counts);
    std::vector<ExchangeBytes> expected(3);
    std::vector<int64_t> home_rows(3);
    for (int home = 0; home < 3; ++home) {
      const Tokens& part = tokens[static_cast<size_t>(home)];
      for (int64_t t = 0; t < part.count(); ++t) {
        std::set<int32_t> ranks;
        for (int64_t j = 0; j < 4; ++j) {
          const int32_t slot = part.slots[static_cast<size_t>(t * 4 + j)];
          home_rows[static_cast<size_t>(home)] += slot >= 0 && slot / 3 == home;
          if (slot < 0 || slot / 3 == home) continue;
          const bool is_new = ranks.insert(slot / 3).second;
          expected[static_cast<size_t>(home)].dispatch += is_new ? 32 : 0;
          expected[static_cast<size_t>(slot / 3)].combine += is_new || deterministic ? 32 : 0;
        }
      }
    }
    const Outcome outcome = RunRanks(setting, tokens);
    for (size_t r = 0; r < 3; ++r) {
      EXPECT_EQ(outcome.bytes[r].dispatch, expected[r].dispatch);
      EXPECT_EQ(outcome.bytes[r].combine, expected[r].combine);
      EXPECT_EQ(outcome.home_rows[r], home_rows[r]);
    }
  }
}

}  // namespace
}  // namespace moebius::moe
