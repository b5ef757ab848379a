#include "layout/parallel_layout.h"

#include <gtest/gtest.h>

#include "layout/rules.h"
#include "layout/testing/models.h"

namespace moebius::layout {
namespace {

using enum Collective;

ParallelLayout Plan(int tp, int dp, int pp, bool ep, const ModelNumbers& model = DeepseekV3()) {
  const ParallelConfig config = Sizes(tp, dp, pp, ep);
  EXPECT_TRUE(IsLegal(CheckRules(config, model))) << ConfigName(config);
  return MakeLayout(config, model);
}

const PartLayout& Experts(const ParallelLayout& layout) {
  return layout.part(Part::kRoutedExperts);
}
int KvCopies(const ParallelLayout& layout) { return layout.part(Part::kKvCache).copies; }

// "before/after of the experts in a group, then what the TP group does last".
std::string Around(const PartLayout& row) {
  return fmt::format("{}>{}@{}>{}@{}", CollectiveName(row.before), CollectiveName(row.after),
                     row.group, CollectiveName(row.last), row.last_group);
}

TEST(Assertions, A1_Tp8WithEpReducesAndCopiesLatentKv) {
  const ParallelLayout layout = Plan(8, 1, 1, true);
  EXPECT_EQ(Experts(layout).after, kAllReduce);
  EXPECT_EQ(Experts(layout).before, kNone);
  EXPECT_FALSE(layout.exchanges);
  EXPECT_EQ(KvCopies(layout), 8);
}

TEST(Assertions, A2_Dp8WithEpExchanges) {
  const ParallelLayout layout = Plan(1, 8, 1, true);
  EXPECT_TRUE(layout.exchanges);
  EXPECT_EQ(Experts(layout).before, kAllToAll);
  EXPECT_EQ(Experts(layout).after, kAllToAll);
  EXPECT_EQ(Experts(layout).group, 8);
  EXPECT_EQ(KvCopies(layout), 1);
}

TEST(Assertions, A3_EpOfOneRankIsInactive) {
  const ParallelLayout layout = Plan(1, 1, 1, true);
  EXPECT_FALSE(layout.config.expert_parallel_active());
  EXPECT_EQ(layout.expert_parallel_size, 1);
  EXPECT_EQ(Experts(layout).holding, Holding::kWhole);
}

TEST(Assertions, A4_Tp4Dp2Ep) {
  const ParallelLayout layout = Plan(4, 2, 1, true);
  EXPECT_EQ(layout.expert_parallel_size, 8);
  EXPECT_EQ(layout.slots_per_rank, std::vector<int64_t>(8, 32));
  EXPECT_TRUE(layout.token_cutting);
  EXPECT_EQ(layout.part(Part::kSharedExperts).holding, Holding::kCopied);
  EXPECT_EQ(layout.part(Part::kSharedExperts).ways, 1);
  EXPECT_EQ(KvCopies(layout), 4);
}

TEST(Assertions, A5_PipelineAndEp) {
  for (const int pp : {2, 8}) {
    const ParallelLayout layout = Plan(1, 1, pp, true);
    EXPECT_FALSE(layout.config.expert_parallel_active());
    EXPECT_EQ(layout.expert_parallel_size, 1);
  }
  const ParallelLayout layout = Plan(4, 1, 2, true);
  EXPECT_TRUE(layout.config.expert_parallel_active());
  EXPECT_EQ(layout.expert_parallel_size, 4);
  EXPECT_EQ(layout.slots_per_rank, std::vector<int64_t>(4, 64));
}

TEST(Assertions, A7_KvDoesNotDependOnEp) {
  const PartLayout with = Plan(1, 8, 1, true).part(Part::kKvCache);
  const PartLayout without = Plan(1, 8, 1, false).part(Part::kKvCache);
  EXPECT_EQ(with.holding, Holding::kPartitioned);
  EXPECT_EQ(with.ways, 8);
  EXPECT_EQ(with.holding, without.holding);
  EXPECT_EQ(with.ways, without.ways);
  EXPECT_EQ(with.copies, without.copies);
}

TEST(Assertions, A9_LinearPlacementAndUnevenExperts) {
  for (int rank = 0; rank < 8; ++rank) {
    EXPECT_EQ(ExpertsOfRank(256, 8, rank).begin, rank * 32);
    EXPECT_EQ(ExpertsOfRank(256, 8, rank).end - 1, rank * 32 + 31);
  }
  EXPECT_EQ(ExpertsPerRank(10, 4), (std::vector<int64_t>{3, 3, 2, 2}));
  int64_t next = 0;
  for (int rank = 0; rank < 4; ++rank) {
    const ExpertRange range = ExpertsOfRank(10, 4, rank);
    EXPECT_EQ(range.begin, next);
    EXPECT_EQ(range.end - range.begin, ExpertsPerRank(10, 4)[static_cast<size_t>(rank)]);
    next = range.end;
  }
  EXPECT_EQ(next, 10);
}

// As moe_layer.cc, decoder_model.cc and links.cc have it.
TEST(OwnRanks, CutOutputsAndGather) {
  const auto own = [](int tp, int dp, bool ep) {
    ParallelConfig config = Sizes(tp, dp, 1, ep);
    config.own_ranks = true;
    config.lm_head = config.dense_ffn = PartPlacement::kTp;  // for plans of others
    EXPECT_TRUE(IsLegal(CheckRules(config, DeepseekV3())));
    return MakeLayout(config, DeepseekV3());
  };
  const ParallelLayout tp_ep = own(4, 1, true);
  EXPECT_TRUE(tp_ep.exchanges && tp_ep.token_cutting);
  EXPECT_EQ(Around(Experts(tp_ep)), "all-to-all>all-to-all@4>all-gather@4");
  EXPECT_EQ(tp_ep.part(Part::kSharedExperts).ways, 1);
  EXPECT_EQ(tp_ep.part(Part::kSharedExperts).copies, 4);
  EXPECT_EQ(tp_ep.part(Part::kAttention).after, kAllGather);
  EXPECT_EQ(tp_ep.part(Part::kDenseFfn).ways, 4);

  const ParallelLayout cut = own(2, 4, false);
  EXPECT_FALSE(cut.exchanges || cut.token_cutting);
  EXPECT_EQ(Around(Experts(cut)), "all-gather>all-gather@8>none@1");
  EXPECT_EQ(cut.part(Part::kSharedExperts).ways, 8);
  EXPECT_EQ(cut.part(Part::kDenseFfn).ways, 2);
  EXPECT_EQ(cut.part(Part::kLmHead).ways, 2);
  EXPECT_EQ(cut.part(Part::kEmbedding).after, kAllGather);

  const ParallelLayout dp_ep = own(1, 8, true);
  EXPECT_TRUE(dp_ep.exchanges && !dp_ep.token_cutting);
  EXPECT_EQ(dp_ep.part(Part::kSharedExperts).holding, Holding::kCopied);
}

TEST(Combinations, Tp) {
  const ParallelLayout layout = Plan(8, 1, 1, false);
  EXPECT_EQ(Experts(layout).holding, Holding::kSharded);
  EXPECT_EQ(layout.expert_tensor_parallel_size, 8);
  EXPECT_EQ(Around(Experts(layout)), "none>all-reduce@8>none@1");
  EXPECT_EQ(layout.part(Part::kAttention).holding, Holding::kSharded);
  EXPECT_EQ(layout.part(Part::kAttention).after, kAllReduce);
  EXPECT_EQ(layout.part(Part::kSharedExperts).ways, 8);
  EXPECT_EQ(layout.part(Part::kLmHead).after, kAllGather);
  EXPECT_EQ(layout.part(Part::kKvCache).holding, Holding::kCopied);
}

TEST(Combinations, Pp) {
  const ParallelLayout layout = Plan(1, 1, 8, false);
  EXPECT_EQ(layout.between_stages, kSendRecv);
  EXPECT_EQ(Experts(layout).holding, Holding::kWhole);
  EXPECT_EQ(Around(Experts(layout)), "none>none@1>none@1");
  EXPECT_EQ(Plan(8, 1, 1, false).between_stages, kNone);
}

TEST(Combinations, Dp) {
  const ParallelLayout layout = Plan(1, 8, 1, false);
  EXPECT_EQ(Experts(layout).holding, Holding::kSharded);
  EXPECT_EQ(layout.expert_tensor_parallel_size, 8);
  EXPECT_EQ(Around(Experts(layout)), "all-gather>reduce-scatter@8>none@1");
  EXPECT_EQ(layout.part(Part::kAttention).holding, Holding::kCopied);
  EXPECT_EQ(layout.part(Part::kAttention).copies, 8);
  EXPECT_EQ(layout.part(Part::kSharedExperts).holding, Holding::kCopied);
}

TEST(Combinations, TpPp) {
  const ParallelLayout layout = Plan(4, 1, 2, false);
  EXPECT_EQ(layout.expert_tensor_parallel_size, 4);
  EXPECT_EQ(layout.between_stages, kSendRecv);
  EXPECT_EQ(KvCopies(layout), 4);
}

TEST(Combinations, TpDp) {
  const ParallelLayout layout = Plan(4, 2, 1, false);
  EXPECT_EQ(layout.expert_tensor_parallel_size, 8);
  EXPECT_EQ(Around(Experts(layout)), "all-gather>reduce-scatter@2>all-reduce@4");
  EXPECT_EQ(layout.part(Part::kSharedExperts).holding, Holding::kSharded);
  EXPECT_EQ(layout.part(Part::kSharedExperts).ways, 4);
  EXPECT_EQ(layout.part(Part::kSharedExperts).copies, 2);
  EXPECT_EQ(layout.part(Part::kKvCache).holding, Holding::kPartitioned);
  EXPECT_EQ(KvCopies(layout), 4);
}

TEST(Combinations, TpEp) {
  const ParallelLayout layout = Plan(8, 1, 1, true);
  EXPECT_EQ(Experts(layout).holding, Holding::kSplit);
  EXPECT_EQ(Experts(layout).ways, 8);
  EXPECT_EQ(layout.part(Part::kSharedExperts).ways, 8);
  EXPECT_FALSE(layout.token_cutting);
}

TEST(Combinations, PpDp) {
  const ParallelLayout layout = Plan(1, 4, 2, false);
  EXPECT_EQ(layout.expert_tensor_parallel_size, 4);
  EXPECT_EQ(layout.between_stages, kSendRecv);
  EXPECT_EQ(Experts(layout).before, kAllGather);
}

TEST(Combinations, DpEp) {
  const ParallelLayout layout = Plan(1, 8, 1, true);
  EXPECT_EQ(Around(Experts(layout)), "all-to-all>all-to-all@8>none@1");
  EXPECT_FALSE(layout.token_cutting);
  EXPECT_EQ(layout.part(Part::kSharedExperts).holding, Holding::kCopied);
}

TEST(Combinations, TpPpDp) {
  const ParallelLayout layout = Plan(2, 2, 2, false);
  EXPECT_EQ(layout.expert_tensor_parallel_size, 4);
  EXPECT_EQ(Around(Experts(layout)), "all-gather>reduce-scatter@2>all-reduce@2");
}

TEST(Combinations, TpDpEp) {
  const ParallelLayout layout = Plan(4, 2, 1, true);
  EXPECT_EQ(Around(Experts(layout)), "all-to-all>all-to-all@8>all-gather@4");
}

TEST(Combinations, TpPpEp) {
  const ParallelLayout layout = Plan(4, 1, 2, true);
  EXPECT_EQ(Around(Experts(layout)), "none>all-reduce@4>none@1");
  EXPECT_EQ(layout.between_stages, kSendRecv);
}

TEST(Combinations, PpDpEp) {
  const ParallelLayout layout = Plan(1, 4, 2, true);
  EXPECT_EQ(layout.expert_parallel_size, 4);
  EXPECT_EQ(Around(Experts(layout)), "all-to-all>all-to-all@4>none@1");
}

TEST(Combinations, AllFour) {
  const ParallelLayout layout = Plan(2, 2, 2, true);
  EXPECT_EQ(layout.expert_parallel_size, 4);
  EXPECT_TRUE(layout.token_cutting);
  EXPECT_EQ(Around(Experts(layout)), "all-to-all>all-to-all@4>all-gather@2");
  EXPECT_EQ(layout.between_stages, kSendRecv);
}

TEST(Combinations, EpAlone) {
  const ParallelLayout layout = Plan(1, 1, 1, true);
  EXPECT_FALSE(layout.exchanges);
  EXPECT_EQ(layout.slots_per_rank, std::vector<int64_t>{256});
}

TEST(Layout, GatherAndScatterIsAlsoAnExchange) {
  ParallelConfig config = Sizes(1, 8, 1, true);
  config.all2all_backend = ExchangeBackend::kAllGatherReduceScatter;
  const ParallelLayout layout = MakeLayout(config, DeepseekV3());
  EXPECT_EQ(Around(Experts(layout)), "all-gather>reduce-scatter@8>none@1");
  EXPECT_EQ(Experts(layout).holding, Holding::kSplit);
}

TEST(Layout, DenseModelsUnderDpAreApart) {
  const ParallelLayout layout = Plan(2, 4, 1, false, Dense());
  EXPECT_EQ(Experts(layout).holding, Holding::kNone);
  EXPECT_EQ(layout.part(Part::kDenseFfn).ways, 2);
  EXPECT_EQ(layout.part(Part::kDenseFfn).copies, 4);
  for (const PartLayout& row : layout.parts) {
    EXPECT_LE(row.group, 2) << PartName(row.part);
    EXPECT_NE(row.before, kAllGather) << PartName(row.part);
  }
  EXPECT_EQ(layout.part(Part::kKvCache).ways, 8);  // 4 times the requests, 2 times the heads
}

TEST(Layout, KvHeadsAreCopiedBeyondTheirCount) {
  EXPECT_EQ(KvCopies(Plan(4, 1, 1, false, Qwen235B())), 1);
  EXPECT_EQ(KvCopies(Plan(8, 1, 1, true, Qwen235B())), 2);
  EXPECT_EQ(Plan(8, 1, 1, true, Qwen235B()).part(Part::kKvCache).ways, 4);
}

TEST(Layout, WideTpCopiesLatentKvInEachDpRank) {
  ParallelConfig config = Sizes(4, 8, 1, true);
  const PartLayout kv = MakeLayout(config, DeepseekV3()).part(Part::kKvCache);
  EXPECT_EQ(kv.copies, 4);
  EXPECT_EQ(kv.ways, 8);
  EXPECT_EQ(KvCopies(MakeLayout(Sizes(32, 1, 1, true), DeepseekV3())), 32);
}

TEST(Layout, RedundantExpertsAreSlots) {
  ParallelConfig config = Sizes(1, 32, 1, true);
  config.enable_eplb = true;
  config.num_redundant_experts = 32;
  EXPECT_EQ(MakeLayout(config, DeepseekV3()).slots_per_rank, std::vector<int64_t>(32, 9));
}

TEST(Layout, DenseFfnAndHeadByFlag) {
  ParallelConfig config = Sizes(2, 4, 1, true);
  ParallelLayout layout = MakeLayout(config, DeepseekV3());
  EXPECT_EQ(layout.part(Part::kDenseFfn).ways, 2);
  EXPECT_EQ(Around(layout.part(Part::kDenseFfn)), "none>all-reduce@2>none@1");
  config.dense_ffn = PartPlacement::kTp;
  config.lm_head = PartPlacement::kTp;
  layout = MakeLayout(config, DeepseekV3());
  EXPECT_EQ(layout.part(Part::kDenseFfn).ways, 8);
  EXPECT_EQ(Around(layout.part(Part::kDenseFfn)), "all-gather>reduce-scatter@4>all-reduce@2");
  EXPECT_EQ(layout.part(Part::kLmHead).ways, 8);
  EXPECT_EQ(Around(layout.part(Part::kLmHead)), "all-gather>all-to-all@4>all-gather@2");
}

TEST(Layout, EveryPartIsDescribed) {
  for (const ParallelConfig& config : LegalConfigs(8, 8, DeepseekV3())) {
    const ParallelLayout layout = MakeLayout(config, DeepseekV3());
    ASSERT_EQ(layout.parts.size(), static_cast<size_t>(kNumParts));
    for (int part = 0; part < kNumParts; ++part) {
      const PartLayout& row = layout.parts[static_cast<size_t>(part)];
      EXPECT_EQ(row.part, static_cast<Part>(part));
      EXPECT_FALSE(row.text.empty());
      // Pieces and copies make up the stage's ranks, but for KV: it has a TP group of its own
      // heads.
      if (row.holding == Holding::kNone) continue;
      EXPECT_EQ(row.ways * row.copies, config.expert_group()) << ConfigName(config) << row.text;
    }
  }
}

TEST(Groups, TpIsAdjacentAndTheExpertGroupIsFlat) {
  const ParallelConfig config = Sizes(2, 3, 2, true);
  const RankPlace place = PlaceOf(config, RankId(11));
  EXPECT_EQ(place.dp, 2);
  EXPECT_EQ(place.pp, 1);
  EXPECT_EQ(place.tp, 1);
  EXPECT_EQ(place.flattened, 5);
  const auto ids = [](const std::vector<RankId>& ranks) {
    std::vector<int> values;
    for (const RankId rank : ranks) values.push_back(rank.value());
    return values;
  };
  EXPECT_EQ(ids(TpGroup(config, RankId(11))), (std::vector<int>{10, 11}));
  EXPECT_EQ(ids(DpGroup(config, RankId(11))), (std::vector<int>{3, 7, 11}));
  EXPECT_EQ(ids(PpGroup(config, RankId(11))), (std::vector<int>{9, 11}));
  EXPECT_EQ(ids(ExpertGroup(config, RankId(11))), (std::vector<int>{2, 3, 6, 7, 10, 11}));
  for (int rank = 0; rank < config.num_gpus(); ++rank) {
    const std::vector<RankId> group = ExpertGroup(config, RankId(rank));
    EXPECT_EQ(group[static_cast<size_t>(PlaceOf(config, RankId(rank)).flattened)], RankId(rank));
  }
}

TEST(Groups, StagesCoverAllLayers) {
  for (const int64_t layers : {61, 64, 94}) {
    for (const int stages : {1, 2, 3, 5, 8, 61}) {
      int64_t next = 0;
      for (int stage = 0; stage < stages; ++stage) {
        const StageLayers range = LayersOfStage(layers, stages, stage);
        EXPECT_EQ(range.begin, next);
        EXPECT_GE(range.end - range.begin, layers / stages);
        EXPECT_LE(range.end - range.begin, layers / stages + 1);
        next = range.end;
      }
      EXPECT_EQ(next, layers);
    }
  }
  // The last stage has the head: what is left over goes before it.
  EXPECT_EQ(LayersOfStage(61, 2, 0).end, 31);
}

TEST(Names, ConfigName) {
  EXPECT_EQ(ConfigName(Sizes(8, 1, 1, false)), "TP8");
  EXPECT_EQ(ConfigName(Sizes(1, 8, 1, true)), "DP8+EP");
  EXPECT_EQ(ConfigName(Sizes(4, 2, 1, true)), "TP4+DP2+EP");
  EXPECT_EQ(ConfigName(Sizes(4, 1, 2, true)), "PP2+TP4+EP");
  EXPECT_EQ(ConfigName(Sizes(1, 1, 1, false)), "1 GPU");
  EXPECT_EQ(ConfigName(Sizes(1, 1, 1, true)), "1 GPU+EP");
}

TEST(Names, Backends) {
  ParallelConfig config;
  EXPECT_STREQ(BackendName(config), "auto");
  for (const char* name : {"all2all", "allgather_reducescatter", "deepep_low_latency",
                           "deepep_high_throughput", "nixl_ep", "pplx"}) {
    ASSERT_TRUE(SetBackend(name, config)) << name;
    EXPECT_STREQ(BackendName(config), name);
  }
  const Status bad = SetBackend("deepep", config);
  ASSERT_FALSE(bad);
  EXPECT_NE(bad.error().message().find("--all2all-backend: 'deepep', expected one of auto"),
            std::string::npos);
  EXPECT_EQ(ParsePartPlacement("--lm-head", "tp").value(), PartPlacement::kTp);
  EXPECT_EQ(ParsePartPlacement("--lm-head", "ep").error().message(),
            "--lm-head: 'ep', expected auto, tp or dp");
}

TEST(MakeLayout, DecodeContextParallelCutsCopiedKvByToken) {
  ParallelConfig config = Sizes(8, 1, 1, true);
  config.decode_context_parallel_size = 4;
  const PartLayout latent = MakeLayout(config, DeepseekV3()).part(Part::kKvCache);
  EXPECT_EQ(latent.ways, 4);
  EXPECT_EQ(latent.copies, 2);
  EXPECT_EQ(latent.text,
            "1/4 of the tokens, all of the latent of every request, held 2 times in the TP group");
  config.decode_context_parallel_size = 2;
  const PartLayout heads = MakeLayout(config, Qwen235B()).part(Part::kKvCache);
  EXPECT_EQ(heads.ways, 8);
  EXPECT_EQ(heads.copies, 1);
  EXPECT_EQ(ConfigName(config), "TP8+DCP2+EP");
}

}  // namespace
}  // namespace moebius::layout
