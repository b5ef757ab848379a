#include "engine/step_inputs.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace moebius::engine {
namespace {

using kernels::cuda::DeviceSampleRow;
using kernels::cuda::kPaddingToken;

// A plan of `contexts.size()` sequences, each with `queries[s]` rows and one draw.
StepPlan MakePlan(const std::vector<int32_t>& queries, const std::vector<int32_t>& contexts) {
  StepPlan plan;
  plan.step_id = 4;
  plan.previous_step = 3;
  plan.block_size = 16;
  plan.query_start = {0};
  for (const int32_t context : contexts) {
    plan.max_blocks = std::max<int64_t>(plan.max_blocks, (context + 15) / 16);
  }
  for (size_t s = 0; s < contexts.size(); ++s) {
    for (int32_t i = 0; i < queries[s]; ++i) {
      plan.tokens.push_back(static_cast<TokenId>(10 * s + static_cast<size_t>(i)));
      plan.positions.push_back(contexts[s] - queries[s] + i);
      plan.kv_rows.push_back(static_cast<int64_t>(100 * s) + i);
    }
    plan.query_start.push_back(static_cast<int32_t>(plan.tokens.size()));
    plan.context_len.push_back(contexts[s]);
    for (int64_t b = 0; b < plan.max_blocks; ++b) {
      plan.block_table.push_back(static_cast<int32_t>(static_cast<int64_t>(s) * 1000 + b));
    }
    plan.logit_rows.push_back(static_cast<int32_t>(plan.tokens.size()) - 1);
    plan.samples.emplace_back().seq_idx = static_cast<int32_t>(s);
  }
  return plan;
}

AttentionWorkers Workers(kernels::AttentionForm form) {
  AttentionWorkers workers;
  workers.form = form;
  workers.shape = {.num_heads = 16, .num_kv_heads = 4, .head_dim = 128, .v_head_dim = 128};
  workers.num_sms = 132;
  return workers;
}

// Staged and written to poisoned memory.
struct Written {
  explicit Written(const StagedPlan& staged)
      : rows(StepInputs::NumBytes(staged.sizes()).rows + 64, std::byte{0xee}),
        draws(StepInputs::NumBytes(staged.sizes()).draws + 64, std::byte{0xee}),
        rows_arena(Aligned(rows)),
        draws_arena(Aligned(draws)),
        in(rows_arena, draws_arena, staged.sizes()) {
    staged.Write(in);
  }
  static Arena Aligned(std::vector<std::byte>& bytes) {
    const auto begin = (reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64;
    return Arena(reinterpret_cast<void*>(begin), bytes.size() - 63);
  }
  std::vector<std::byte> rows;
  std::vector<std::byte> draws;
  Arena rows_arena;
  Arena draws_arena;
  StepInputs in;
};

TEST(StepInputs, PrefillIsWrittenAsItIs) {
  const StepPlan plan = MakePlan({1, 40, 3}, {90, 40, 20});
  EXPECT_FALSE(IsDecode(plan));
  const StagedPlan staged(plan, Workers(kernels::AttentionForm::kGqa));
  EXPECT_EQ(staged.sizes().rows, 44);
  EXPECT_EQ(staged.max_queries(), 16);  // 64 rows of (query, head), 4 heads a kv head
  const Written w(staged);
  EXPECT_TRUE(std::ranges::equal(w.in.tokens, plan.tokens));
  EXPECT_TRUE(std::ranges::equal(w.in.kv_rows, plan.kv_rows));
  EXPECT_TRUE(std::ranges::equal(w.in.block_table, plan.block_table));
  EXPECT_TRUE(std::ranges::equal(w.in.logit_rows, plan.logit_rows));
  // Every query's tiles are dealt once.
  int64_t tiles = 0;
  for (const kernels::AttentionSegment& s : w.in.segments) tiles += s.end_tile - s.begin_tile;
  EXPECT_EQ(tiles, 2 + 3 + 1);
  EXPECT_EQ(w.in.worker_begin.back(), static_cast<int32_t>(w.in.segments.size()));
}

TEST(StepInputs, BucketsPadAndKeepTheirShape) {
  const AttentionWorkers workers = Workers(kernels::AttentionForm::kGqa);
  const StepPlan five = MakePlan({1, 1, 1, 1, 1}, {1, 90, 33, 7, 1000});
  const StepPlan seven = MakePlan({1, 1, 1, 1, 1, 1, 1}, {1, 9, 3, 7, 10, 800, 16});
  ASSERT_TRUE(IsDecode(five));
  const int64_t bucket = RowBucket(5);
  EXPECT_EQ(bucket, RowBucket(7));
  const int64_t blocks = BlockBucket(five.max_blocks);
  EXPECT_EQ(blocks, BlockBucket(seven.max_blocks));
  const StagedPlan a(five, workers, bucket, blocks);
  const StagedPlan b(seven, workers, bucket, blocks);
  EXPECT_EQ(StepInputs::NumBytes(a.sizes()).rows, StepInputs::NumBytes(b.sizes()).rows);
  EXPECT_EQ(a.sizes().combine, b.sizes().combine);
  EXPECT_EQ(a.sizes().samples, bucket);
  EXPECT_EQ(StepInputs::NumBytes(a.sizes()).draws, StepInputs::NumBytes(b.sizes()).draws);

  const Written w(a);
  EXPECT_EQ(w.in.tokens[4], five.tokens[4]);
  for (size_t row = 5; row < w.in.tokens.size(); ++row) {
    EXPECT_EQ(w.in.tokens[row], kPaddingToken);
    EXPECT_EQ(w.in.kv_rows[row], -1);
    EXPECT_EQ(w.in.positions[row], 0);
    EXPECT_EQ(w.in.logit_rows[row], static_cast<int32_t>(row));
    EXPECT_EQ(w.in.wishes[row].temperature, 0.0f);
    EXPECT_EQ(w.in.wishes[row].seen_end, w.in.wishes[row].seen_begin);
    EXPECT_EQ(w.in.pending[row], -1);
  }
  EXPECT_EQ(w.in.block_table[static_cast<size_t>(4 * blocks + 62)], 4062);
  EXPECT_EQ(w.in.block_table[static_cast<size_t>(4 * blocks + 63)], -1);
  // Padding has segments without tiles, whose output is zero; there is no second kernel.
  EXPECT_TRUE(w.in.combine.empty());
  const std::span dealt = w.in.segments.first(static_cast<size_t>(w.in.worker_begin.back()));
  const auto zeroed = std::ranges::count_if(dealt, [](const kernels::AttentionSegment& s) {
    return s.row >= 5 && s.begin_tile == s.end_tile;
  });
  EXPECT_EQ(zeroed, bucket - 5);
}

// MLA's partial results are large, and summed by a grid of their own.
TEST(StepInputs, PaddingIsCombinedWhereAKernelDoes) {
  AttentionWorkers workers = Workers(kernels::AttentionForm::kMla);
  workers.shape.num_kv_heads = 1;
  const StepPlan five = MakePlan({1, 1, 1, 1, 1}, {1, 90, 33, 7, 1000});
  const StagedPlan staged(five, workers, RowBucket(5), BlockBucket(five.max_blocks));
  EXPECT_EQ(staged.sizes().combine, RowBucket(5));
  const Written w(staged);
  const auto zeroed = std::ranges::count_if(
      w.in.combine, [](const kernels::AttentionRow& row) { return row.num_slots == -1; });
  EXPECT_EQ(zeroed, RowBucket(5) - 5);
}

// Their block has the same shape whether or not tokens of the step before are still to come.
TEST(StepInputs, PlainDrawsHaveNoLists) {
  StepPlan plan = MakePlan({1, 1}, {5, 90});
  const auto draws = [&plan] {
    const StagedPlan staged(plan, Workers(kernels::AttentionForm::kGqa), 2, 8);
    return std::pair(staged.has_plain_draws(), StepInputs::NumBytes(staged.sizes()).draws);
  };
  const auto [is_plain, num_bytes] = draws();
  EXPECT_TRUE(is_plain);
  plan.tokens[1] = PreviousRow(0);
  EXPECT_EQ(draws(), std::pair(true, num_bytes));
  plan.samples[0].row.temperature = 0.5f;
  EXPECT_TRUE(draws().first);
  plan.samples[0].row.num_logprobs = 0;
  EXPECT_FALSE(draws().first);
  plan.samples[0].row.num_logprobs = -1;
  plan.samples[1].row.repetition_penalty = 1.1f;
  EXPECT_FALSE(draws().first);
  EXPECT_GT(draws().second, num_bytes);
}

TEST(StepInputs, ChunksThatPayAreExpanded) {
  AttentionWorkers workers = Workers(kernels::AttentionForm::kMla);
  workers.shape.num_kv_heads = 1;
  workers.expands_latents = true;
  const StepPlan plan = MakePlan({1, 1, 256, 20, 300}, {900, 7, 256, 500, 1000});
  const StagedPlan staged(plan, workers);
  ASSERT_EQ(staged.expanded().size(), 2u);
  EXPECT_EQ(staged.expanded()[0].seq, 2);
  EXPECT_EQ(staged.expanded()[0].row, 2);
  EXPECT_EQ(staged.expanded()[1].seq, 4);
  EXPECT_EQ(staged.expanded()[1].queries, 300);
  ASSERT_EQ(staged.latent_passes().size(), 1u);
  EXPECT_EQ(staged.sizes().latent_tiles, 2 + 3);
  const Written w(staged);
  EXPECT_EQ(w.in.latent_sequences[1].seq, 4);
  EXPECT_EQ(w.in.latent_sequences[1].context, 1000);
  EXPECT_EQ(w.in.latent_tiles[0].context, 1000);
  EXPECT_EQ(w.in.latent_tiles[0].queries, 44);
  // All others' rows are the absorbed kernel's.
  std::vector<int32_t> rows;
  for (const kernels::AttentionSegment& s : w.in.segments) {
    EXPECT_NE(s.seq, 2);
    EXPECT_NE(s.seq, 4);
    if (s.begin_tile == 0) rows.push_back(s.row);
  }
  EXPECT_EQ(rows.size(), 1u + 1u + 20u);

  // Steps that only decode, and engines that promise bits, know nothing of it.
  const StepPlan decodes = MakePlan({1, 1}, {900, 7});
  EXPECT_TRUE(StagedPlan(decodes, workers, 2, 64).expanded().empty());
  workers.expands_latents = false;
  EXPECT_TRUE(StagedPlan(plan, workers).expanded().empty());
}

TEST(StepInputs, BitsThatDependOnNothingElseTakeOneForm) {
  AttentionWorkers workers = Workers(kernels::AttentionForm::kGqa);
  workers.whole_rows = true;
  const StepPlan decodes = MakePlan({1, 1}, {9000, 7});
  const StepPlan mixed = MakePlan({1, 30, 1}, {9000, 30, 7});
  EXPECT_EQ(StagedPlan(decodes, workers).max_queries(), StagedPlan(mixed, workers).max_queries());
  const Written w(StagedPlan(decodes, workers));
  ASSERT_EQ(w.in.segments.size(), 2u);
  for (const kernels::AttentionSegment& s : w.in.segments) EXPECT_LT(s.slot, 0);
  workers.whole_rows = false;
  EXPECT_NE(StagedPlan(decodes, workers).max_queries(), StagedPlan(mixed, workers).max_queries());
}

TEST(StepInputs, ChunksThatPayAttendInTiles) {
  AttentionWorkers workers = Workers(kernels::AttentionForm::kGqa);
  workers.tiles_prompts = true;
  const StepPlan plan = MakePlan({1, 300, 1, 700, 1}, {900, 300, 7, 1000, 20});
  const StagedPlan staged(plan, workers);
  EXPECT_TRUE(staged.expanded().empty());  // MLA's alone
  EXPECT_EQ(staged.sizes().items, 3 + 6);
  EXPECT_EQ(staged.num_tiled_keys(), 1300);
  const Written w(staged);
  EXPECT_EQ(w.in.items[0].context, 1000);
  EXPECT_EQ(w.in.items[0].seq, 3);
  EXPECT_EQ(w.in.items[0].row, 302 + 640);
  EXPECT_EQ(w.in.items[0].queries, 60);
  // What is left are decodes: dealt as in a step of their own.
  EXPECT_EQ(staged.max_queries(), workers.MaxQueries(true));
  EXPECT_EQ(staged.sizes().workers, workers.Count(true));
  int64_t tiles = 0;
  for (const kernels::AttentionSegment& s : w.in.segments) {
    EXPECT_EQ(s.queries, 1);
    tiles += s.end_tile - s.begin_tile;
  }
  EXPECT_EQ(tiles, 15 + 1 + 1);

  // Nothing but tiles: no other launch.
  const StepPlan prompts = MakePlan({512, 512}, {512, 512});
  const StagedPlan alone(prompts, workers);
  EXPECT_EQ(alone.sizes().items, 8);
  EXPECT_EQ(alone.sizes().workers, 0);
  EXPECT_EQ(Written(alone).in.segments.size(), 0u);

  const StepPlan decodes = MakePlan({1, 1}, {900, 7});
  EXPECT_EQ(StagedPlan(decodes, workers, 2, 64).sizes().items, 0);
  workers.tiles_prompts = false;
  EXPECT_EQ(StagedPlan(plan, workers).sizes().items, 0);
  EXPECT_EQ(StagedPlan(plan, workers).max_queries(), workers.MaxQueries(false));
}

// Its rows are padded where the peers must know them, but it draws nothing.
TEST(StepInputs, WithoutRowsNothingIsDrawn) {
  const StepPlan plan = MakePlan({}, {});
  const StagedPlan staged(plan, Workers(kernels::AttentionForm::kGqa), 8, 8);
  EXPECT_EQ(staged.sizes().rows, 8);
  EXPECT_EQ(staged.sizes().logit_rows, 8);
  EXPECT_EQ(staged.sizes().samples, 0);
  const Written w(staged);
  EXPECT_TRUE(std::ranges::all_of(w.in.tokens, [](TokenId t) { return t == kPaddingToken; }));
}

TEST(StepInputs, AnyFormHasOneItemARow) {
  const StepPlan plan = MakePlan({2, 3}, {8, 3});
  const StagedPlan staged(plan, Workers(kernels::AttentionForm::kAny));
  EXPECT_EQ(staged.sizes().items, 5);
  EXPECT_EQ(staged.sizes().segments, 0);
  const Written w(staged);
  EXPECT_EQ(w.in.items[1].context, 8);
  EXPECT_EQ(w.in.items[0].context, 7);
  EXPECT_EQ(w.in.items[4].seq, 1);
}

TEST(StepInputs, ListsHaveRoomForThePendingToken) {
  StepPlan plan = MakePlan({1, 1, 1}, {5, 6, 7});
  plan.tokens[0] = PreviousRow(2);
  plan.tokens[2] = PreviousRow(0);
  const std::vector<TokenId> seen = {3, 4, 9};
  const std::vector<std::pair<TokenId, float>> bias = {{7, 1.5f}, {8, -2.0f}};
  plan.samples[0].row.repetition_penalty = 1.2f;
  plan.samples[0].row.seen_tokens = seen;
  plan.samples[1].row.logit_bias = bias;
  plan.samples[1].row.repetition_penalty = 1.2f;
  plan.samples[1].row.seen_tokens = seen;
  plan.samples[2].row.presence_penalty = 0.5f;
  plan.ids = {11, 12, 13};
  plan.counts = {1, 2};
  plan.samples[2].output = {0, 2};
  plan.samples[2].banned = {2, 1};
  plan.masks = {5, 6};
  plan.samples[2].mask = {0, 2};
  plan.samples[2].row.num_logprobs = 4;
  const StagedPlan staged(plan, Workers(kernels::AttentionForm::kAny));
  EXPECT_TRUE(staged.wants_logprobs());
  const Written w(staged);
  const DeviceSampleRow& first = w.in.wishes[0];
  EXPECT_EQ(w.in.pending[0], 2);
  EXPECT_EQ(first.seen_end - first.seen_begin, 4);  // and a free place
  EXPECT_EQ(w.in.seen_tokens[2], 9);
  const DeviceSampleRow& second = w.in.wishes[1];
  EXPECT_EQ(w.in.pending[1], -1);
  EXPECT_EQ(second.seen_end - second.seen_begin, 3);
  EXPECT_EQ(w.in.seen_tokens[static_cast<size_t>(second.seen_begin)], 3);
  EXPECT_EQ(second.bias_end - second.bias_begin, 2);
  EXPECT_EQ(w.in.bias_values[1], -2.0f);
  const DeviceSampleRow& third = w.in.wishes[2];
  EXPECT_EQ(w.in.pending[2], 0);
  EXPECT_EQ(third.output_end - third.output_begin, 3);
  EXPECT_EQ(w.in.output_counts[1], 2);
  EXPECT_EQ(w.in.banned_tokens[static_cast<size_t>(third.banned_begin)], 13);
  EXPECT_EQ(third.mask_begin, 0);
  EXPECT_EQ(w.in.allowed_masks[1], 6u);
}

TEST(StepInputs, Buckets) {
  for (int64_t rows = 1; rows <= 1024; ++rows) {
    EXPECT_GE(RowBucket(rows), rows);
    EXPECT_LE(RowBucket(rows), RowBucket(rows + 1));
    EXPECT_EQ(RowBucket(RowBucket(rows)), RowBucket(rows));
  }
  EXPECT_EQ(RowBucket(1), 1);
  EXPECT_EQ(RowBucket(9), 16);
  EXPECT_EQ(RowBucket(65), 96);
  EXPECT_EQ(RowBucket(257), 320);
  EXPECT_EQ(MaxStepRows(8192, 256), 8192);
  EXPECT_EQ(MaxStepRows(200, 200), 224) << "a decode step of 200 rows is padded";
  EXPECT_EQ(MaxStepRows(250, 4), 250);
  EXPECT_EQ(BlockBucket(0), 8);
  EXPECT_EQ(BlockBucket(9), 16);
}

}  // namespace
}  // namespace moebius::engine
