#include "engine/plan_codec.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "engine/sample_inputs.h"
#include "engine/testing/scheduler_harness.h"

namespace moebius::engine {
namespace {

using testing::Harness;
using testing::kVocabSize;
using testing::MakeRequest;
using testing::SmallConfig;

PlanLimits LimitsOf(const SchedulerConfig& config) {
  return {.max_rows = config.max_num_batched_tokens,
          .max_seqs = config.max_num_seqs,
          .max_blocks = (config.max_model_len + config.block_size - 1) / config.block_size,
          .block_size = config.block_size,
          .vocab_size = config.vocab_size,
          .num_kv_blocks = config.num_blocks};
}

class AnyToken : public TokenConstraint {
 public:
  void FillMask(std::span<uint32_t> mask) override {
    std::ranges::fill(mask, 0x55555555u << (turn_++ % 2));
  }
  void Accept(TokenId) override {}

 private:
  int turn_ = 0;
};

// Every wish that a plan can carry, in random company.
RequestInput RandomRequest(std::mt19937& random) {
  std::vector<TokenId> prompt(1 + random() % 30);
  for (TokenId& token : prompt) token = static_cast<TokenId>(random() % kVocabSize);
  RequestInput input =
      MakeRequest(std::move(prompt), static_cast<int32_t>(1 + random() % 30), random());
  SamplingParams& p = input.sampling;
  const auto one_in = [&](uint32_t n) { return random() % n == 0; };
  p.ignore_eos = one_in(2);
  p.temperature = static_cast<float>(random() % 5) * 0.3f;
  p.top_k = static_cast<int32_t>(random() % 9) - 1;
  p.top_p = one_in(2) ? 0.9f : 1.0f;
  p.min_p = one_in(3) ? 0.1f : 0.0f;
  if (one_in(3)) p.repetition_penalty = 1.3f;
  if (one_in(3)) p.presence_penalty = -0.5f;
  if (one_in(3)) p.frequency_penalty = 0.25f;
  if (one_in(3))
    p.min_tokens = static_cast<int32_t>(random() % static_cast<uint32_t>(*p.max_tokens));
  if (one_in(3)) p.stop_token_ids = {3, 11};
  if (one_in(3)) p.num_logprobs = static_cast<int32_t>(random() % 5);
  if (one_in(4)) p.num_prompt_logprobs = static_cast<int32_t>(random() % 3);
  for (uint32_t i = random() % 4; i > 0; --i) {
    p.logit_bias.emplace_back(static_cast<TokenId>(random() % kVocabSize),
                              static_cast<float>(random() % 200) - 100.0f);
  }
  if (one_in(4)) {
    for (TokenId token = 1; token < kVocabSize; token += 2) p.allowed_token_ids.push_back(token);
  }
  if (one_in(4)) p.bad_words = {{4}, {5, 6}, {static_cast<TokenId>(random() % kVocabSize)}};
  if (one_in(4)) input.constraint = std::make_shared<AnyToken>();
  return input;
}

void ExpectSameRow(const kernels::SampleRow& a, const kernels::SampleRow& b) {
  EXPECT_EQ(a.temperature, b.temperature);
  EXPECT_EQ(a.top_k, b.top_k);
  EXPECT_EQ(a.top_p, b.top_p);
  EXPECT_EQ(a.min_p, b.min_p);
  EXPECT_EQ(a.repetition_penalty, b.repetition_penalty);
  EXPECT_EQ(a.presence_penalty, b.presence_penalty);
  EXPECT_EQ(a.frequency_penalty, b.frequency_penalty);
  EXPECT_EQ(a.seed, b.seed);
  EXPECT_EQ(a.position, b.position);
  EXPECT_EQ(a.given, b.given);
  EXPECT_EQ(a.num_logprobs, b.num_logprobs);
  EXPECT_TRUE(std::ranges::equal(a.logit_bias, b.logit_bias));
  EXPECT_TRUE(std::ranges::equal(a.seen_tokens, b.seen_tokens));
  EXPECT_TRUE(std::ranges::equal(a.output_tokens, b.output_tokens));
  EXPECT_TRUE(std::ranges::equal(a.output_counts, b.output_counts));
  EXPECT_TRUE(std::ranges::equal(a.banned_tokens, b.banned_tokens));
  EXPECT_TRUE(std::ranges::equal(a.allowed_mask, b.allowed_mask));
}

void ExpectSameRows(const StepPlan& a, const StepPlan& b) {
  EXPECT_EQ(a.step_id, b.step_id);
  EXPECT_EQ(a.previous_step, b.previous_step);
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.positions, b.positions);
  EXPECT_EQ(a.kv_rows, b.kv_rows);
  EXPECT_EQ(a.query_start, b.query_start);
  EXPECT_EQ(a.context_len, b.context_len);
  EXPECT_EQ(a.block_table, b.block_table);
  EXPECT_EQ(a.max_blocks, b.max_blocks);
  EXPECT_EQ(a.block_size, b.block_size);
  EXPECT_EQ(a.logit_rows, b.logit_rows);
}

// With what the step before drew.
std::vector<TokenId> TokensOf(const StepPlan& plan) {
  std::vector<TokenId> tokens = plan.tokens;
  for (TokenId& token : tokens) {
    if (IsPreviousRow(token)) token = RowOfPrevious(token) % kVocabSize;
  }
  return tokens;
}

// What the sampler gets of two plans.
void ExpectSameSamples(const StepPlan& a, const StepPlan& b) {
  const std::vector<TokenId> tokens = TokensOf(a);
  SampleInputs inputs_a;
  SampleInputs inputs_b;
  StepOutput output_a;
  StepOutput output_b;
  inputs_a.Prepare(a, tokens, &output_a);
  inputs_b.Prepare(b, tokens, &output_b);
  ASSERT_EQ(inputs_a.rows().size(), inputs_b.rows().size());
  EXPECT_EQ(output_a.top_tokens.size(), output_b.top_tokens.size());
  for (size_t i = 0; i < a.samples.size(); ++i) {
    ExpectSameRow(inputs_a.rows()[i], inputs_b.rows()[i]);
    EXPECT_EQ(a.samples[i].seq_idx, b.samples[i].seq_idx);
  }
}

std::vector<std::byte> Encoded(const StepPlan& plan, bool with_samples = true) {
  std::vector<std::byte> block(EncodedBytes(plan, with_samples), std::byte{0xAB});
  Encode(plan, block, with_samples);
  return block;
}

// Plans of a scheduler under way; `see` hears of each.
template <typename See>
void MakePlans(uint32_t seed, int num_steps, const See& see) {
  SchedulerConfig config = SmallConfig();
  config.num_blocks = 28;
  Harness harness(config, 2, seed);
  std::mt19937 random(seed);
  for (int step = 0; step < num_steps; ++step) {
    if (random() % 3 == 0) harness.Add(RandomRequest(random));
    harness.Step();
    if (harness.last_plan() != nullptr) see(*harness.last_plan(), LimitsOf(config));
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(PlanCodec, BringsBackEveryPlanOfAScheduler) {
  int64_t num_plans = 0, num_pending = 0, num_masks = 0, num_seen = 0, num_bias = 0,
          num_allowed = 0, num_given = 0, num_counts = 0;
  for (const uint32_t seed : {1u, 2u, 3u}) {
    MakePlans(seed, 1500, [&](const StepPlan& plan, const PlanLimits& limits) {
      const std::vector<std::byte> block = Encoded(plan);
      Result<DecodedPlan> first = Decode(block, limits);
      ASSERT_TRUE(first) << first.error().message();
      const DecodedPlan decoded = std::move(*first);  // what rows view moves along
      ExpectSameRows(plan, decoded.plan);
      ExpectSameSamples(plan, decoded.plan);
      EXPECT_EQ(Encoded(decoded.plan), block);

      const std::vector<std::byte> rows = Encoded(plan, false);
      EXPECT_LE(rows.size(), MaxPlanBytes(limits));
      const Result<DecodedPlan> bare = Decode(rows, limits);
      ASSERT_TRUE(bare) << bare.error().message();
      ExpectSameRows(plan, bare->plan);
      EXPECT_EQ(bare->plan.num_samples(), plan.num_samples());
      EXPECT_TRUE(bare->plan.ids.empty() && bare->plan.masks.empty());

      ++num_plans;
      num_pending += std::ranges::count_if(plan.tokens, IsPreviousRow);
      num_masks += !plan.masks.empty();
      num_counts += !plan.counts.empty();
      num_seen += !decoded.seen_tokens.empty();
      num_bias += !decoded.logit_bias.empty();
      num_allowed += !decoded.allowed_masks.empty();
      num_given +=
          std::ranges::any_of(plan.samples, [](const auto& s) { return s.row.given >= 0; });
    });
  }
  EXPECT_GT(num_plans, 3000);
  for (const int64_t n :
       {num_pending, num_masks, num_counts, num_seen, num_bias, num_allowed, num_given}) {
    EXPECT_GT(n, 100);
  }
}

TEST(PlanCodec, BringsBackAPlanWithoutRows) {
  StepPlan plan;
  plan.step_id = 5;
  for (const bool is_cleared : {false, true}) {
    if (is_cleared) {  // after a plan that had rows
      plan.block_table = {1, 2, 3};
      plan.Clear();
      plan.query_start = {0};
      plan.block_size = 4;
    }
    const Result<DecodedPlan> decoded = Decode(Encoded(plan), LimitsOf(SmallConfig()));
    ASSERT_TRUE(decoded) << decoded.error().message();
    EXPECT_EQ(decoded->plan.step_id, 5);
    EXPECT_EQ(decoded->plan.num_rows(), 0);
    EXPECT_EQ(decoded->plan.query_start, plan.query_start);
  }
}

StepPlan SmallPlan() {
  StepPlan plan;
  plan.step_id = 9;
  plan.previous_step = 8;
  plan.tokens = {PreviousRow(1), 4, 5};
  plan.positions = {6, 0, 1};
  plan.kv_rows = {2 * 4 + 2, 7 * 4, 7 * 4 + 1};
  plan.query_start = {0, 1, 3};
  plan.context_len = {7, 2};
  plan.max_blocks = 2;
  plan.block_size = 4;
  plan.block_table = {3, 2, 7, -99};  // the last entry belongs to nobody
  plan.logit_rows = {0, 2};
  plan.samples.resize(2);
  plan.samples[1].seq_idx = 1;
  plan.ids = {1, 2, 3};
  plan.counts = {4, 5};
  plan.masks = {6, 7};
  plan.samples[0].output = {0, 2};
  plan.samples[0].mask = {0, 2};
  plan.samples[1].banned = {2, 1};
  return plan;
}

std::string ErrorOf(const StepPlan& plan) {
  PlanLimits limits = LimitsOf(SmallConfig());
  limits.num_kv_blocks = 8;
  const Result<DecodedPlan> decoded = Decode(Encoded(plan), limits);
  if (decoded) return "";
  EXPECT_EQ(decoded.error().code(), ErrorCode::kCorrupt);
  return decoded.error().message();
}

TEST(PlanCodec, NamesTheFieldThatIsWrong) {
  EXPECT_EQ(ErrorOf(SmallPlan()), "");
  using Spoil = void (*)(StepPlan&);
  const std::pair<Spoil, const char*> cases[] = {
      {[](StepPlan& p) { p.tokens[1] = 50; }, "tokens hold 50 at 1, expected -32 to 49"},
      {[](StepPlan& p) { p.tokens[0] = -33; }, "tokens hold -33 at 0, expected -32 to 49"},
      {[](StepPlan& p) { p.positions[2] = 2; }, "positions hold 2 at 2, expected 1"},
      {[](StepPlan& p) { p.positions.pop_back(); }, "positions have 2 entries, expected 3"},
      {[](StepPlan& p) { p.kv_rows[0] = -1; }, "kv_rows hold -1 at 0, expected 10"},
      {[](StepPlan& p) { p.query_start[1] = 4; }, "query_start holds 4 at 1, expected 0 to 3"},
      {[](StepPlan& p) { p.query_start[0] = 1; }, "query_start goes from 1 to 3, expected 0 to 3"},
      {[](StepPlan& p) { p.context_len[0] = 9; }, "context_len holds 9 at 0, expected 1 to 8"},
      {[](StepPlan& p) { p.block_table[2] = 8; },
       "block_table holds 8 at 0 of sequence 1, expected 0 to 7"},
      {[](StepPlan& p) { p.block_size = 5; }, "block_size is 5, expected 4 to 4"},
      {[](StepPlan& p) { p.logit_rows[1] = 3; }, "logit_rows hold 3 at 1, expected 0 to 2"},
      {[](StepPlan& p) { p.logit_rows[1] = 0; },
       "logit_rows hold 0 before 0, expected them to ascend"},
      {[](StepPlan& p) { p.samples.pop_back(); }, "samples have 1 entries, expected 2"},
      {[](StepPlan& p) { p.samples[0].seq_idx = 2; }, "seq_idx is 2, expected 0 to 1"},
      {[](StepPlan& p) { p.samples[0].row.given = 50; }, "given is 50, expected -1 to 49"},
      {[](StepPlan& p) { p.samples[0].output.count = 3; },
       "counts_begin of sample 0 takes 3 entries from 0, of 2"},
      {[](StepPlan& p) { p.samples[0].output.begin = -1; },
       "output of sample 0 takes 2 entries from -1, of 3"},
      {[](StepPlan& p) { p.samples[1].banned = {3, INT64_MAX}; },
       "banned of sample 1 takes 9223372036854775807 entries from 3, of 3"},
      {[](StepPlan& p) { p.samples[0].mask.count = 1; },
       "mask of sample 0 has 1 words, expected 2"},
      {[](StepPlan& p) { p.ids[1] = -1; }, "ids hold -1 at 1, expected 0 to 49"},
  };
  for (const auto& [spoil, want] : cases) {
    StepPlan plan = SmallPlan();
    spoil(plan);
    EXPECT_EQ(ErrorOf(plan), fmt::format("step plan: {}", want));
  }
}

// Reads all that a runner would, so that a sanitizer sees any index that leads outside.
int64_t Walk(const StepPlan& plan, const PlanLimits& limits) {
  int64_t sum = 0;
  std::vector<uint8_t> kv(static_cast<size_t>(limits.num_kv_blocks * limits.block_size));
  std::vector<uint8_t> vocab(static_cast<size_t>(limits.vocab_size));
  for (size_t row = 0; row < plan.tokens.size(); ++row) {
    sum += kv.at(static_cast<size_t>(plan.kv_rows.at(row))) + plan.positions.at(row);
    if (!IsPreviousRow(plan.tokens[row])) sum += vocab.at(static_cast<size_t>(plan.tokens[row]));
  }
  for (size_t seq = 0; seq < plan.context_len.size(); ++seq) {
    for (int64_t p = 0; p < plan.context_len[seq]; ++p) {
      const size_t at =
          seq * static_cast<size_t>(plan.max_blocks) + static_cast<size_t>(p / plan.block_size);
      sum += kv.at(static_cast<size_t>(plan.block_table.at(at) * plan.block_size));
    }
  }
  SampleInputs inputs;
  StepOutput output;
  inputs.Prepare(plan, TokensOf(plan), &output);
  for (const kernels::SampleRow& row : inputs.rows()) {
    for (const TokenId token : row.seen_tokens) sum += vocab.at(static_cast<size_t>(token));
    for (const TokenId token : row.output_tokens) sum += vocab.at(static_cast<size_t>(token));
    for (const TokenId token : row.banned_tokens) sum += vocab.at(static_cast<size_t>(token));
    for (const auto& [token, bias] : row.logit_bias) sum += vocab.at(static_cast<size_t>(token));
    for (const int32_t count : row.output_counts) sum += count & 1;
    for (const uint32_t word : row.allowed_mask) sum += word & 1;
  }
  return sum;
}

TEST(PlanCodec, NoSpoiledBlockLeadsAstray) {
  std::mt19937 random(17);
  int64_t num_refused = 0;
  int64_t num_taken = 0;
  const auto see = [&](std::span<const std::byte> block, const PlanLimits& limits) {
    // A block of its own, so that a sanitizer sees a read behind it.
    const std::vector<std::byte> copy(block.begin(), block.end());
    const Result<DecodedPlan> decoded = Decode(copy, limits);
    if (decoded) {
      ++num_taken;
      Walk(decoded->plan, limits);
    } else {
      ++num_refused;
      ASSERT_EQ(decoded.error().code(), ErrorCode::kCorrupt);
    }
  };
  int turn = 0;
  MakePlans(23, 400, [&](const StepPlan& plan, const PlanLimits& limits) {
    if (++turn % 8 != 0) return;
    const std::vector<std::byte> block = Encoded(plan);
    const int64_t taken_before = num_taken;
    for (size_t size = 0; size < block.size(); size += 1 + random() % 40) {
      see(std::span(block).first(size), limits);
    }
    EXPECT_EQ(num_taken, taken_before) << "a truncated block was taken";
    for (int i = 0; i < 400; ++i) {
      std::vector<std::byte> spoiled = block;
      for (uint32_t n = random() % 3; n < 3; ++n) {
        // One to eight bytes, at an edge or anywhere.
        const size_t at = random() % spoiled.size() / 4 * 4;
        const size_t width = std::min<size_t>(spoiled.size() - at, 1u << random() % 4);
        const uint64_t edges[] = {0, 1, ~0ull, 1ull << 31, 1ull << 63, random(), ~0ull - random()};
        const uint64_t value = edges[random() % std::size(edges)];
        std::memcpy(spoiled.data() + at, &value, width);
      }
      see(spoiled, limits);
    }
  });
  EXPECT_GT(num_refused, 5000);
  EXPECT_GT(num_taken, 100);  // spoiled where it leads nowhere: temperatures, seeds, masks
}

TEST(PlanCodec, RefusesNoise) {
  std::mt19937 random(5);
  for (int i = 0; i < 2000; ++i) {
    std::vector<std::byte> block(random() % 600);
    for (std::byte& b : block) b = static_cast<std::byte>(random());
    EXPECT_FALSE(Decode(block, LimitsOf(SmallConfig())));
  }
}

}  // namespace
}  // namespace moebius::engine
