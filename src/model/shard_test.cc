// A model in parts: ranks as threads give the bits of one rank, whatever is cut and how.
#include "model/shard.h"

#include <gtest/gtest.h>

#include "model/load.h"
#include "model/open_model.h"
#include "model/testing/checkpoint_writer.h"
#include "model/testing/group.h"
#include "model/testing/random_models.h"
#include "model/testing/shard_case.h"

namespace moebius::model {
namespace {

const std::vector<GroupLayout> kLayouts = {
    {.max_moe_rows = 2},
    {.tp = 2},
    {.tp = 3},
    {.tp = 4},
    {.tp = 5},
    {.tp = 6},
    {.tp = 2, .ep = true},
    {.tp = 3, .ep = true},
    {.dp = 2, .ep = true},
    {.dp = 3, .ep = true},
    {.dp = 3},
    {.tp = 2, .dp = 2, .ep = true},
    {.tp = 3, .dp = 2, .ep = true, .max_moe_rows = 1},
    {.tp = 2, .dp = 2, .ep = true, .max_moe_rows = 2},
    {.tp = 2, .dp = 2},
    {.tp = 3, .dp = 2, .max_moe_rows = 2},
    {.pp = 2},
    {.pp = 3},
    {.tp = 2, .pp = 2},
    {.tp = 3, .pp = 2},
    {.dp = 2, .pp = 2, .ep = true},
    {.tp = 2, .dp = 2, .pp = 2, .ep = true},
};

struct Param {
  std::string name;
  std::string folder;  // golden; else random weights of:
  const char* config = nullptr;
  const kernels::Backend* backend = nullptr;
  DTypeChoice dtype = DTypeChoice::kAuto;
};
void PrintTo(const Param& param, std::ostream* out) { *out << param.name; }

class ShardTest : public testing::TestWithParam<Param> {
 protected:
  LoadOptions Options() {
    LoadOptions options;
    options.folder = GetParam().folder;
    if (GetParam().config != nullptr) {
      folder_.Write("config.json", GetParam().config);
      options.folder = folder_.path();
      options.load_format = LoadFormat::kDummy;
    }
    options.dtype = GetParam().dtype;
    options.backend = GetParam().backend;
    return options;
  }
  TempFolder folder_;
};

TEST_P(ShardTest, RanksGiveTheBitsOfOne) {
  const ShardCase shown(Options());
  int num_run = 0;
  for (const GroupLayout& layout : kLayouts) {
    if (!shown.Allows(layout)) continue;
    shown.ExpectSameBits(layout);
    ++num_run;
    if (HasFailure()) return;
  }
  EXPECT_GE(num_run, 3);
}

// Where results may differ in rounding: matrices whose inputs can be cut are, others as above.
TEST_P(ShardTest, RanksThatSumGiveTheResultsOfOne) {
  LoadOptions options = Options();
  options.dtype = DTypeChoice::kFloat32;
  const ShardCase shown(options);
  for (const GroupLayout& layout : kLayouts) {
    if (layout.tp * layout.dp == 1 || !shown.Allows(layout)) continue;
    GroupLayout sums = layout;
    sums.sums = true;
    shown.ExpectWithin(sums, 1e-4f);
    if (HasFailure()) return;
  }
}

constexpr const char* kManyExperts =
    R"({"model_type":"qwen3_moe","vocab_size":96,"hidden_size":64,"num_hidden_layers":2,
        "num_attention_heads":8,"num_key_value_heads":4,"head_dim":16,"intermediate_size":96,
        "max_position_embeddings":64,"num_experts":256,"num_experts_per_tok":8,
        "moe_intermediate_size":32,"norm_topk_prob":true,"tie_word_embeddings":false})";

TEST(Shard, SixtyFourRanksGiveTheBitsOfOne) {
  const TempFolder folder;
  const ShardCase shown(Dummy(folder, kManyExperts));
  shown.ExpectSameBits({.dp = 64, .ep = true});
  shown.ExpectSameBits({.tp = 8, .dp = 4, .ep = true});
}

// What a token is routed by when nothing is learnt (its id, its position) is cut with the rows.
TEST(Shard, ForcedRoutingAndTheDenseTwinToo) {
  const TempFolder folder;
  LoadOptions options = Dummy(folder, kManyExperts);
  options.routing = moe::RoutingSpec{.zipf_exponent = 1};
  for (const GroupLayout& layout :
       {GroupLayout{.tp = 2, .dp = 3, .ep = true}, GroupLayout{.tp = 2, .dp = 3},
        GroupLayout{.tp = 4, .pp = 2, .ep = true}}) {
    ShardCase(options).ExpectSameBits(layout);
  }
  options.routing.reset();
  options.moe_mode = MoeMode::kDense;
  ShardCase(options).ExpectSameBits({.tp = 2, .dp = 2, .ep = true});
  ShardCase(options).ExpectSameBits({.tp = 2, .dp = 2});
}

// Every rank of a TP group has all latents in its cache, of the same bits.
TEST(Shard, Fp8LatentsToo) {
  LoadOptions options;
  options.folder = MOEBIUS_SOURCE_DIR "/tests/golden/deepseek_v3";
  options.backend = kernels::AvailableBackends().front();
  options.kv_cache_dtype = KvCacheDType::kFp8;
  const ShardCase shown(options);
  for (const GroupLayout& layout :
       {GroupLayout{.tp = 2}, GroupLayout{.dp = 2, .ep = true}, GroupLayout{.pp = 2}}) {
    if (shown.Allows(layout)) shown.ExpectSameBits(layout);
  }
}

// A dense layer, two with experts, a shared one beside: all inputs can be cut by two.
constexpr const char* kWholeUnits =
    R"({"model_type":"deepseek_v3","vocab_size":96,"hidden_size":64,"num_hidden_layers":3,
        "num_attention_heads":4,"intermediate_size":96,"max_position_embeddings":64,
        "q_lora_rank":32,"kv_lora_rank":32,"qk_nope_head_dim":16,"qk_rope_head_dim":16,
        "v_head_dim":16,"n_routed_experts":8,"n_shared_experts":2,"num_experts_per_tok":3,
        "moe_intermediate_size":32,"n_group":1,"topk_group":1,"first_k_dense_replace":1})";

TEST(Shard, TwoSumsALayerAndNoGathersInBetween) {
  const TempFolder folder;
  LoadOptions options = Dummy(folder, kWholeUnits);
  options.dtype = DTypeChoice::kFloat32;
  const ShardCase shown(options);
  int64_t rows = 0;
  for (const StepRows& step : Steps(1, 96)) rows += std::ssize(step[0]);
  const comm::CommBytes cut = shown.ExpectWithin({.tp = 2, .sums = true}, 1e-4f);
  EXPECT_EQ(cut.reduce, rows * 3 * 2 * 64 * 4);
  EXPECT_EQ(cut.gather, rows * (64 + 96) / 2 * 4);  // of the embedding and the vocabulary
  // Whole experts: only attention and the dense layer.
  const comm::CommBytes whole = shown.ExpectWithin({.tp = 2, .ep = true, .sums = true}, 1e-4f);
  EXPECT_EQ(whole.reduce, rows * 4 * 64 * 4);
  shown.ExpectWithin({.dp = 2, .sums = true}, 1e-4f);
  shown.ExpectWithin({.tp = 2, .dp = 2, .max_moe_rows = 2, .sums = true}, 1e-4f);
  // A rank alone cuts nothing.
  EXPECT_EQ(shown.ExpectWithin({.dp = 2, .ep = true, .sums = true}, 1e-6f).reduce, 0);
}

TEST(Shard, SumsInBFloat16) {
  LoadOptions options;
  options.folder = MOEBIUS_SOURCE_DIR "/tests/golden/llama3";
  options.backend = kernels::AvailableBackends().front();
  options.dtype = DTypeChoice::kBFloat16;
  EXPECT_GT(ShardCase(options).ExpectWithin({.tp = 2, .sums = true}, 0.1f).reduce, 0);
}

TEST(Shard, InputsAreCutInWholeUnitsThatEveryRankHas) {
  const auto can = [](int ranks, int64_t columns, int64_t split_unit, int64_t unit) {
    return CanSum(SplitOver({.rank = 0, .size = ranks}, columns, split_unit), unit);
  };
  EXPECT_TRUE(can(2, 256, 128, 128));
  EXPECT_TRUE(can(4, 768, 128, 128));   // 2, 2, 1 and 1 blocks
  EXPECT_FALSE(can(8, 768, 128, 128));  // two would have none
  EXPECT_FALSE(can(2, 10944, 128, 128));
  EXPECT_FALSE(can(2, 208, 128, 128));
  EXPECT_TRUE(can(2, 208, 16, 16));
  EXPECT_FALSE(can(2, 40, 16, 16));
  EXPECT_FALSE(can(2, 96, 48, 128));  // heads of 48
  EXPECT_FALSE(can(2, 0, 16, 16));
  EXPECT_FALSE(can(1, 256, 128, 128));
}

TEST(Shard, OfAPairThatSumsEachHasWholeRows) {
  const GroupPlace group = {.rank = 1, .size = 2};
  const Split cut = SplitOver(group, 96, 16);
  const SplitPair gathers = PairOf(cut, SplitOver(group, 64, 16), false);
  EXPECT_EQ(gathers.inner.columns(), 96);
  EXPECT_EQ(gathers.outer.first(), 32);
  EXPECT_EQ(gathers.outer.count(), 32);
  const SplitPair sums = PairOf(cut, SplitOver(group, 64, 16), true);
  EXPECT_EQ(sums.cut.first(), 48);
  EXPECT_EQ(sums.inner.columns(), 48);
  EXPECT_EQ(sums.inner.group.size, 1);
  EXPECT_EQ(sums.outer.first(), 0);
  EXPECT_EQ(sums.outer.count(), 64);
}

// Bytes of what a rank would load; its peers need not be there to know.
size_t BytesOf(LoadOptions options, const Shard& shard) {
  options.shard = shard;
  const auto open = OpenModel::Open(options);
  EXPECT_TRUE(open) << open.error().message();
  return open ? open->plan->packed_bytes() : 0;
}

TEST(Shard, ARankTakesItsShareOfMemory) {
  const TempFolder folder;
  const LoadOptions options = Dummy(folder, kManyExperts);
  const size_t whole = BytesOf(options, {});
  Shard shard;
  shard.experts = {.rank = 3, .size = 8};  // experts are 9/10 of this model
  EXPECT_LT(BytesOf(options, shard), whole / 5);
  shard.tp = {.rank = 1, .size = 2};
  EXPECT_LT(BytesOf(options, shard), whole / 6);
  shard.cut_experts = true;
  shard.tp = {.rank = 1, .size = 2};
  shard.experts = shard.tp;
  const size_t half = BytesOf(options, shard);
  EXPECT_GT(half, whole / 2);  // router and norms are on both
  EXPECT_LT(half, whole * 53 / 100);
  Shard first;
  first.pipeline = {.rank = 0, .size = 2};
  first.end_layer = 1;
  Shard last;
  last.pipeline = {.rank = 1, .size = 2};
  last.first_layer = 1;
  EXPECT_EQ(BytesOf(options, first) + BytesOf(options, last), whole);
}

TEST(Shard, APassWithoutAPeerEnds) {
  const TempFolder folder;
  const LoadOptions options = Dummy(folder, kManyExperts);
  const ShardCase shown(options);
  for (const GroupLayout& layout :
       {GroupLayout{.tp = 2}, GroupLayout{.tp = 2, .ep = true}, GroupLayout{.dp = 2, .ep = true},
        GroupLayout{.dp = 2}, GroupLayout{.pp = 2}}) {
    SCOPED_TRACE(layout.Name());
    RankGroup group(layout, shown.config(), shown.Act(), kMaxShardRows);
    group.Run([&](int rank) {
      const auto pool = OneThread();
      LoadOptions own = options;
      own.shard = group.ShardOf(rank);
      auto model = LoadModel(own, *pool);
      ASSERT_TRUE(model) << model.error().message();
      if (rank == 0) return;  // never comes
      ModelDriver driver(**model, *options.backend, *pool, 128);
      driver.Agree(std::vector<int64_t>(static_cast<size_t>(layout.dp), 5));
      group.BeginStep(rank, 7, std::chrono::milliseconds(100));
      driver.Run({{0, StepTokens(5, 1, 96)}});
      const Status status = group.StatusOf(rank);
      ASSERT_FALSE(status);
      EXPECT_EQ(status.error().code(), ErrorCode::kDeadline);
      EXPECT_NE(status.error().message().find("rank 0 "), std::string::npos)
          << status.error().message();
    });
  }
}

std::string Refusal(const LoadOptions& options, const std::function<void(Shard&)>& change) {
  LoadOptions changed = options;
  change(changed.shard);
  const auto pool = OneThread();
  const auto model = LoadModel(changed, *pool);
  return model ? "accepted" : model.error().message();
}

TEST(Shard, NamesWhatCannotBe) {
  const TempFolder folder;
  LoadOptions options = Dummy(folder, kManyExperts);
  const auto expect = [&](const char* message, const std::function<void(Shard&)>& change) {
    EXPECT_EQ(Refusal(options, change), message);
  };
  expect("accepted", [](Shard&) {});
  expect("8 attention heads cannot be shared by 3 tensor parallel ranks, expected a multiple",
         [](Shard& shard) { shard.tp.size = shard.experts.size = 3; });
  expect("tensor parallel rank is 2 of 2, expected 0 to its size - 1",
         [](Shard& shard) { shard.tp = {.rank = 2, .size = 2}; });
  expect(
      "rank 0 of 1 that share experts is tensor parallel rank 0 of 2, expected whole TP groups one "
      "after the other",
      [](Shard& shard) { shard.tp.size = 2; });
  expect("256 experts on 257 expert parallel ranks, expected at least one a rank",
         [](Shard& shard) { shard.experts.size = 257; });
  expect("no exchange between 2 ranks that share experts, expected one",
         [](Shard& shard) { shard.experts.size = 2; });
  expect("no communicator for the expert group, expected one of more than one rank",
         [](Shard& shard) {
           shard.experts.size = 2;
           shard.cut_experts = true;
         });
  expect(
      "pipeline stage 0 of 2 has layers 0 to 1 of 2, expected at least one, the first ones on the "
      "first stage and the last ones on the last",
      [](Shard& shard) { shard.pipeline.size = 2; });
  folder.Write("config.json", kRandomModels[0].config);
  options.mtp = true;
  expect(
      "the MTP layer needs the embedding and the last layer on one rank, expected no pipeline "
      "stages with it",
      [](Shard& shard) {
        shard.pipeline.size = 2;
        shard.end_layer = 1;
      });
}

TEST(Shard, RowsAreAsEvenAsTheyGo) {
  for (const int64_t rows : {0, 1, 7, 12}) {
    const std::vector<int64_t> bounds = comm::SplitEvenly(rows, 5);
    for (int64_t part = 0; part < 5; ++part) {
      const RowRange range = PieceOf(rows, 5, part);
      EXPECT_EQ(range.begin, bounds[static_cast<size_t>(part)]);
      EXPECT_EQ(range.begin + range.count, bounds[static_cast<size_t>(part) + 1]);
    }
  }
}

std::vector<Param> Params() {
  std::vector<Param> params;
  const kernels::Backend* best = kernels::AvailableBackends().front();
  for (const char* name :
       {"deepseek_v2_group", "deepseek_v3", "deepseek_v3_fp8", "kimi_k2_mtp", "llama3",
        "llama4_nested", "mixtral_window", "qwen3_dense", "qwen3_moe_old"}) {
    params.push_back(
        {name, std::string(MOEBIUS_SOURCE_DIR "/tests/golden/") + name, nullptr, best});
  }
  for (const RandomModel& model : kRandomModels) {
    for (const kernels::Backend* backend : kernels::AvailableBackends()) {
      const DTypeChoice dtype = backend == best ? DTypeChoice::kBFloat16 : DTypeChoice::kFloat32;
      params.push_back({fmt::format("random_{}_{}", model.name, backend->name), "", model.config,
                        backend, dtype});
    }
  }
  return params;
}

INSTANTIATE_TEST_SUITE_P(Models, ShardTest, testing::ValuesIn(Params()),
                         [](const testing::TestParamInfo<Param>& info) { return info.param.name; });

}  // namespace
}  // namespace moebius::model
