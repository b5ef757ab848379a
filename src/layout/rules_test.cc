#include "layout/rules.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "layout/testing/models.h"

namespace moebius::layout {
namespace {

// What one rule says ("" where it is silent), with its severity in front.
std::string Says(const char* rule, const ParallelConfig& config, const ModelNumbers& model) {
  for (const Finding& finding : CheckRules(config, model)) {
    if (finding.rule == rule) {
      return fmt::format("{}: {}", SeverityName(finding.severity), finding.message);
    }
  }
  return "";
}

struct Case {
  const char* rule;
  ParallelConfig config;
  ModelNumbers model;
  const char* says;
};

template <typename Change>
ParallelConfig With(ParallelConfig config, Change change) {
  change(config);
  return config;
}

ModelNumbers Sized(int64_t ModelNumbers::* field, int64_t value) {
  ModelNumbers model = DeepseekV3();
  model.*field = value;
  return model;
}

ParallelConfig Eplb(int tp, int dp, bool ep, int redundant) {
  return With(Sizes(tp, dp, 1, ep), [&](ParallelConfig& c) {
    c.enable_eplb = true;
    c.num_redundant_experts = redundant;
  });
}

ParallelConfig Backend(ParallelConfig config, const char* name) {
  EXPECT_TRUE(SetBackend(name, config));
  return config;
}

ParallelConfig Dcp(int tp, int parts) {
  return With(Sizes(tp, 1, 1, true),
              [&](ParallelConfig& c) { c.decode_context_parallel_size = parts; });
}

// One case a rule: the message, whole.
std::vector<Case> SizeCases() {
  ModelNumbers many_kv = Qwen235B();
  many_kv.num_heads = 72;
  many_kv.num_kv_heads = 9;
  return {
      {"tensor-parallel-range", Sizes(0, 1, 1, false), DeepseekV3(),
       "error: tensor_parallel_size is 0, expected at least 1"},
      {"data-parallel-range", Sizes(1, -2, 1, false), DeepseekV3(),
       "error: data_parallel_size is -2, expected at least 1"},
      {"pipeline-parallel-range", Sizes(1, 1, 0, false), DeepseekV3(),
       "error: pipeline_parallel_size is 0, expected at least 1"},
      {"node-range", With(Sizes(1, 1, 1, false), [](auto& c) { c.gpus_per_node = 0; }),
       DeepseekV3(), "error: gpus_per_node is 0, expected at least 1"},
      {"gpus-range", Sizes(65536, 65536, 1, false), DeepseekV3(),
       "error: TP 65536 x DP 65536 x PP 1 is more than 4096 GPUs, expected a product of at most "
       "4096"},
      {"decode-context-range", Dcp(8, 0), DeepseekV3(),
       "error: decode_context_parallel_size is 0, expected at least 1"},
      {"dcp-divides-tp", Dcp(8, 3), DeepseekV3(),
       "error: decode_context_parallel_size (3) must divide tensor parallel size (8): it reuses "
       "the "
       "TP group's GPUs"},
      {"dcp-copies", Dcp(4, 2), Qwen235B(),
       "error: decode_context_parallel_size is 2, expected at most 1: tensor_parallel_size 4 holds "
       "each of the 4 KV heads 1 time, and only copies can be cut by token"},
      {"dcp-memory-only", Dcp(8, 2), Qwen235B(),
       "info: decode_context_parallel_size 2: KV is cut by token in 2 parts inside the TP group; "
       "the plan counts the memory, not what attention gains or its exchange costs"},
      {"heads-divisible", Sizes(3, 1, 1, false), Dense(),
       "error: Total number of attention heads (64) must be divisible by tensor parallel size (3)"},
      {"kv-heads-divisible", Sizes(4, 1, 1, false), many_kv,
       "error: Total number of key/value heads (9) must be divisible by tensor parallel size (4), "
       "or divide it"},
      {"kv-heads-copied", Sizes(8, 1, 1, true), Qwen235B(),
       "info: tensor_parallel_size 8 is more than the 4 KV heads: each head is held by 2 ranks"},
      {"mla-copied", Sizes(4, 2, 1, true), DeepseekV3(),
       "info: latent KV has one head: all 4 ranks of a TP group hold the same cache "
       "(data_parallel_size divides it, tensor_parallel_size does not)"},
      {"expert-width-divisible", Sizes(1, 3, 1, false), DeepseekV3(),
       "error: Expert intermediate size (2048) must be divisible by tensor x data parallel size "
       "(3)"},
      {"shared-width-divisible", Sizes(8, 1, 1, true),
       Sized(&ModelNumbers::shared_intermediate_size, 2052),
       "error: Shared experts' intermediate size (2052) must be divisible by tensor parallel size "
       "(8)"},
      {"dense-width-divisible",
       With(Sizes(1, 5, 1, true), [](auto& c) { c.dense_ffn = PartPlacement::kTp; }), DeepseekV3(),
       "error: Dense intermediate size (18432) must be divisible by tensor x data parallel size "
       "(--dense-ffn tp) (5)"},
      {"vocabulary-divisible", Sizes(3, 1, 1, false), DeepseekV3(),
       "error: Vocabulary size (129280, padded to 129280) must be divisible by tensor parallel "
       "size "
       "(3)"},
      {"vocabulary-divisible",
       With(Sizes(1, 7, 1, true), [](auto& c) { c.lm_head = PartPlacement::kTp; }), DeepseekV3(),
       "error: Vocabulary size (129280, padded to 129280) must be divisible by tensor x data "
       "parallel size (--lm-head tp) (7)"},
      {"vocabulary-padded", Sizes(2, 1, 1, false), Sized(&ModelNumbers::vocab_size, 129281),
       "info: vocab_size 129281 is padded to 129344 rows, a multiple of 64"},
      {"fp8-expert-block", Sizes(8, 1, 1, false), QwenCoderFp8(),
       "error: Expert intermediate size (2560) in 8 slices is 320 a slice, expected a multiple of "
       "the fp8 block (128): use --enable-expert-parallel (whole experts) or fewer slices"},
      {"fp8-expert-block", Sizes(8, 1, 1, false), MinimaxM2(),
       "error: Expert intermediate size (1536) in 8 slices is 192 a slice, expected a multiple of "
       "the fp8 block (128): use --enable-expert-parallel (whole experts) or fewer slices"},
      {"fp8-shared-block", Sizes(32, 1, 1, true), DeepseekV3(),
       "error: Shared experts' intermediate size (2048) in 32 slices is 64 a slice, expected a "
       "multiple of the fp8 block (128): use a smaller tensor_parallel_size"},
      {"fp8-shared-block", With(Sizes(32, 1, 1, true), [](auto& c) { c.own_ranks = true; }),
       DeepseekV3(), ""},
      {"fp8-dense-block", Sizes(32, 1, 1, true), DeepseekV3(),
       "error: Dense intermediate size (18432) in 32 slices is 576 a slice, expected a multiple of "
       "the fp8 block (128): use a smaller tensor_parallel_size"},
  };
}

std::vector<Case> ExpertCases() {
  ModelNumbers ten = DeepseekV3();
  ten.num_experts = 10;
  return {
      {"ep-dense-model", Sizes(8, 1, 1, true), Dense(),
       "error: enable_expert_parallel: dense has 0 routed experts, expected more than 0"},
      {"ep-inactive", Sizes(1, 1, 1, true), DeepseekV3(),
       "warning: enable_expert_parallel has no effect: EP = TP x DP is 1 in this layout; expected "
       "a product above 1"},
      {"ep-inactive", Sizes(1, 1, 2, true), DeepseekV3(),
       "warning: enable_expert_parallel has no effect: EP = TP x DP is 1 in each of the 2 pipeline "
       "stages; expected a product above 1"},
      {"ep-wider-than-experts", Sizes(1, 16, 1, true), ten,
       "error: expert parallel size 16 (TP x DP) is more than the 10 experts: expected at least "
       "one a rank"},
      {"experts-uneven", Sizes(1, 4, 1, true), ten,
       "info: 10 experts on 4 ranks are uneven: the first 2 hold 3, the others 2"},
      {"eplb-needs-ep", Eplb(8, 1, false, 0), DeepseekV3(),
       "error: enable_eplb is true with enable_expert_parallel false, expected both: only whole "
       "experts can be moved"},
      {"eplb-needs-ranks", Eplb(1, 1, true, 0), DeepseekV3(),
       "error: enable_eplb is true with TP x DP = 1, expected more than 1 rank"},
      {"eplb-divisible", Eplb(1, 3, true, 0), DeepseekV3(),
       "error: 256 experts + num_redundant_experts 0 = 256 slots must be divisible by expert "
       "parallel size (3) under enable_eplb; the next that is: num_redundant_experts 2"},
      {"eplb-uneven", With(Eplb(1, 3, true, 0), [](auto& c) { c.own_slots = true; }), DeepseekV3(),
       "info: 256 slots on 3 ranks are uneven: the first 1 hold 86, the others 85; moebius serve "
       "takes them so, vLLM num_redundant_experts 2 or another that the ranks divide"},
      {"redundant-range", Eplb(1, 8, true, -8), DeepseekV3(),
       "error: num_redundant_experts is -8, expected 0 to 65536"},
      {"redundant-range", Eplb(1, 8, true, 2'000'000'000), DeepseekV3(),
       "error: num_redundant_experts is 2000000000, expected 0 to 65536"},
      {"redundant-needs-eplb",
       With(Sizes(1, 8, 1, true), [](auto& c) { c.num_redundant_experts = 32; }), DeepseekV3(),
       "error: num_redundant_experts is 32 with enable_eplb false, expected 0 or --enable-eplb"},
      {"dense-dp-independent", Sizes(1, 4, 1, false), Dense(),
       "info: data_parallel_size 4 of a dense model is 4 independent copies: no collective between "
       "them, each with its own KV"},
      {"dp-gathers", Sizes(1, 8, 1, false), DeepseekV3(),
       "info: data_parallel_size 8 without enable_expert_parallel: each expert is cut into 8 "
       "slices, tokens are all-gathered before the MoE and reduce-scattered after it"},
      {"own-ranks-gather", With(Sizes(2, 4, 1, false), [](auto& c) { c.own_ranks = true; }),
       DeepseekV3(),
       "info: without enable_expert_parallel every expert is cut by its outputs into 8 slices: "
       "rows "
       "are gathered before the MoE, columns between its products and after it"},
      {"tp-ep-reduces", Sizes(8, 1, 1, true), DeepseekV3(),
       "info: enable_expert_parallel with data_parallel_size 1: the 8 TP ranks have all tokens "
       "already, so the MoE ends in an all-reduce and nothing is exchanged"},
      {"token-cutting", Sizes(4, 2, 1, true), DeepseekV3(),
       "info: TP, DP and EP meet: each TP rank takes 1/4 of the tokens into the MoE and gathers "
       "them afterwards; shared experts are copied on every rank"},
  };
}

std::vector<Case> MachineCases() {
  const auto dbo = [](auto& c) { c.enable_dbo = true; };
  return {
      {"backend-removed", Backend(Sizes(1, 8, 1, true), "pplx"), DeepseekV3(),
       "warning: all2all_backend pplx and naive are gone from vLLM: allgather_reducescatter takes "
       "their place"},
      {"backend-unused", Backend(Sizes(8, 1, 1, true), "all2all"), DeepseekV3(),
       "warning: all2all_backend all2all has no effect: tokens are exchanged only with "
       "enable_expert_parallel and data_parallel_size above 1 (it is 1)"},
      {"dbo-backend", With(Backend(Sizes(1, 8, 1, true), "allgather_reducescatter"), dbo),
       DeepseekV3(),
       "error: enable_dbo with all2all_backend allgather_reducescatter: expected one whose sending "
       "and receiving are apart (all2all, deepep_low_latency, deepep_high_throughput, nixl_ep)"},
      {"dbo-nothing-to-overlap", With(Sizes(8, 1, 1, false), dbo), DeepseekV3(),
       "warning: enable_dbo has no effect in TP8: there is no exchange to hide, expected "
       "enable_expert_parallel and data_parallel_size above 1"},
      {"low-latency-hidden-rounded", Backend(Sizes(1, 8, 1, true), "deepep_low_latency"),
       Sized(&ModelNumbers::hidden_size, 2880),
       "warning: hidden_size 2880 is rounded up to 3072 by deepep_low_latency (2048, 2560, 3072, "
       "4096, 5120, 6144, 7168 or 8192)"},
      {"low-latency-hidden-range", Backend(Sizes(1, 8, 1, true), "deepep_low_latency"),
       Sized(&ModelNumbers::hidden_size, 12288),
       "error: hidden_size is 12288, expected at most 8192 for deepep_low_latency"},
      {"placement-dense-model",
       With(Sizes(1, 4, 1, false), [](auto& c) { c.lm_head = PartPlacement::kTp; }), Dense(),
       "error: lm_head is tp for a dense model under data_parallel_size 4, expected dp: its copies "
       "are independent"},
      {"placement-unused",
       With(Sizes(8, 1, 1, false), [](auto& c) { c.dense_ffn = PartPlacement::kDp; }), DeepseekV3(),
       "warning: dense_ffn has no effect with data_parallel_size 1, expected a "
       "larger one"},
      {"pp-ep-rocm", Sizes(4, 1, 2, true), DeepseekV3(),
       "info: pipeline_parallel_size 2 with expert parallelism: EP is 4 inside each stage (ROCm "
       "only: AMD calls this pair unstable without AITER; nothing here depends on it)"},
      {"pp-layers", Sizes(1, 1, 64, false), DeepseekV3(),
       "error: pipeline_parallel_size is 64, expected at most the 61 layers"},
      {"pp-uneven", Sizes(1, 1, 2, false), DeepseekV3(),
       "info: 61 layers on pipeline_parallel_size 2: stages of 31 and 30"},
      {"world-nodes", Sizes(1, 16, 1, true), DeepseekV3(),
       "info: 16 GPUs are 2 nodes of up to 8: one launch a node"},
      {"nodes-uneven", Sizes(1, 9, 1, true), DeepseekV3(),
       "error: 9 GPUs (TP x DP x PP) on 2 nodes of up to 8 are not the same number on each: "
       "expected a multiple of 2"},
      {"tp-across-nodes", Sizes(16, 1, 1, true), DeepseekV3(),
       "warning: tensor_parallel_size 16 crosses nodes of 8: two all-reduces a layer over the "
       "network; expected a divisor of 8"},
      {"exchange-across-nodes", Sizes(1, 16, 1, true), DeepseekV3(),
       "info: the expert group of 16 crosses nodes of 8: dispatch and combine use the network"},
  };
}

std::vector<Case> AllCases() {
  std::vector<Case> cases = SizeCases();
  for (const Case& row : ExpertCases()) cases.push_back(row);
  for (const Case& row : MachineCases()) cases.push_back(row);
  return cases;
}

TEST(Rules, EachSaysWhatItShould) {
  for (const Case& row : AllCases()) {
    EXPECT_EQ(Says(row.rule, row.config, row.model), row.says)
        << row.rule << " on " << ConfigName(row.config);
  }
}

TEST(Rules, EachHasACase) {
  std::set<std::string> tested;
  for (const Case& row : AllCases()) tested.insert(row.rule);
  std::set<std::string> names;
  for (const RuleName& rule : AllRules()) {
    EXPECT_TRUE(tested.contains(rule.name)) << rule.name;
    EXPECT_TRUE(names.insert(rule.name).second) << rule.name << " twice";
  }
}

// A plain choice makes no noise but what describes it.
TEST(Rules, SilentWhereNothingIsWrong) {
  EXPECT_TRUE(CheckRules(Sizes(1, 1, 1, false), DeepseekV3()).empty());
  EXPECT_TRUE(CheckRules(Sizes(8, 1, 1, false), Dense()).empty());
  for (const Finding& finding : CheckRules(Sizes(1, 8, 1, true), DeepseekV3())) {
    ADD_FAILURE() << finding.message;
  }
}

TEST(Rules, ErrorsComeFirst) {
  const std::vector<Finding> findings = CheckRules(Sizes(3, 1, 1, true), DeepseekV3());
  ASSERT_GE(findings.size(), 2u);
  EXPECT_EQ(findings.front().severity, Severity::kError);
  EXPECT_FALSE(IsLegal(findings));
  EXPECT_FALSE(IsLegal(Sizes(3, 1, 1, true), DeepseekV3()));
  EXPECT_TRUE(
      std::is_sorted(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
        return static_cast<int>(a.severity) > static_cast<int>(b.severity);
      }));
}

TEST(Rules, TheTwoIsLegalAgree) {
  for (int tp = 0; tp <= 16; ++tp) {
    for (int dp = 1; dp <= 9; ++dp) {
      for (const bool ep : {false, true}) {
        for (const ModelNumbers& model : {DeepseekV3(), QwenCoderFp8(), Dense()}) {
          const ParallelConfig config = Sizes(tp, dp, 1, ep);
          EXPECT_EQ(IsLegal(config, model), IsLegal(CheckRules(config, model)));
        }
      }
    }
  }
}

TEST(Rules, KvHeadsMayDivideTp) {
  EXPECT_TRUE(IsLegal(Sizes(8, 1, 1, true), Qwen235B()));  // 4 heads, twice each
  EXPECT_TRUE(IsLegal(Sizes(16, 1, 1, true), Qwen235B()));
}

TEST(Rules, OwnExchangeOverlaps) {
  ParallelConfig config = Backend(Sizes(1, 8, 1, true), "all2all");
  config.enable_dbo = true;
  EXPECT_TRUE(IsLegal(config, DeepseekV3()));
  EXPECT_TRUE(IsLegal(Backend(config, "deepep_low_latency"), DeepseekV3()));
  EXPECT_FALSE(IsLegal(Backend(config, "flashinfer_nvlink_one_sided"), DeepseekV3()));
}

// The playbook's table of combinations: legal, warned or not.
TEST(Rules, PlaybookCombinations) {
  struct Row {
    int tp, dp, pp;
    bool ep, warned;
  };
  for (const Row& row : std::vector<Row>{{8, 1, 1, false, false},
                                         {1, 1, 8, false, false},
                                         {1, 8, 1, false, false},
                                         {4, 1, 2, false, false},
                                         {4, 2, 1, false, false},
                                         {8, 1, 1, true, false},
                                         {1, 4, 2, false, false},
                                         {1, 8, 1, true, false},
                                         {2, 2, 2, false, false},
                                         {4, 2, 1, true, false},
                                         {4, 1, 2, true, false},
                                         {1, 4, 2, true, false},
                                         {2, 2, 2, true, false},
                                         {1, 1, 1, true, true},
                                         {1, 1, 2, true, true},
                                         {1, 1, 8, true, true}}) {
    const std::vector<Finding> findings =
        CheckRules(Sizes(row.tp, row.dp, row.pp, row.ep), DeepseekV3());
    EXPECT_TRUE(IsLegal(findings));
    const bool warned = std::any_of(findings.begin(), findings.end(), [](const Finding& finding) {
      return finding.severity == Severity::kWarning;
    });
    EXPECT_EQ(warned, row.warned) << ConfigName(Sizes(row.tp, row.dp, row.pp, row.ep));
  }
}

std::string Near(const ParallelConfig& config, const ModelNumbers& model) {
  const std::optional<ParallelConfig> near = NearestLegal(config, model);
  if (!near) return "none";
  EXPECT_TRUE(IsLegal(CheckRules(*near, model)));
  return ConfigName(*near);
}

TEST(NearestLegal, ALegalChoiceIsItsOwn) {
  const ParallelConfig config = Sizes(4, 2, 1, true);
  EXPECT_EQ(NearestLegal(config, DeepseekV3()), config);
}

TEST(NearestLegal, Changes) {
  EXPECT_EQ(Near(Sizes(8, 1, 1, false), QwenCoderFp8()), "TP8+EP");  // a flag before a size
  EXPECT_EQ(Near(Sizes(8, 1, 1, false), MinimaxM2()), "TP8+EP");
  EXPECT_EQ(Near(Sizes(8, 1, 1, true), Dense()), "TP8");
  EXPECT_EQ(Near(Sizes(3, 1, 1, false), Dense()), "DP3");
  EXPECT_EQ(Near(Sizes(32, 1, 1, true), DeepseekV3()), "TP16+DP2+EP");
  EXPECT_EQ(Near(Sizes(0, 8, 1, true), DeepseekV3()), "DP8+EP");
  EXPECT_EQ(Near(Sizes(1, 9, 1, true), DeepseekV3()), "DP8+EP");  // fewer GPUs
}

TEST(NearestLegal, EvensOutRedundantExperts) {
  const std::optional<ParallelConfig> near = NearestLegal(Eplb(1, 6, true, 8), DeepseekV3());
  ASSERT_TRUE(near);
  EXPECT_TRUE(near->enable_eplb);
  EXPECT_EQ(near->num_redundant_experts, 8);  // 264 = 6 x 44
  EXPECT_EQ(NearestLegal(Eplb(1, 6, true, 9), DeepseekV3())->num_redundant_experts, 14);
  EXPECT_EQ(NearestLegal(Eplb(1, 8, true, -3), DeepseekV3())->num_redundant_experts, 0);
}

TEST(NearestLegal, CompletesWhatWasAskedFor) {
  const ParallelConfig eplb = Eplb(1, 8, false, 0);
  EXPECT_EQ(NearestLegal(eplb, DeepseekV3()), Eplb(1, 8, true, 0));
  const ParallelConfig copies =
      With(Sizes(1, 8, 1, true), [](auto& c) { c.num_redundant_experts = 8; });
  EXPECT_EQ(NearestLegal(copies, DeepseekV3()), Eplb(1, 8, true, 8));
  const ParallelConfig copies_alone =
      With(Sizes(1, 8, 1, false), [](auto& c) { c.num_redundant_experts = 8; });
  EXPECT_EQ(NearestLegal(copies_alone, DeepseekV3()), Eplb(1, 8, true, 8));
  // Of a dense model there is nothing to balance.
  EXPECT_EQ(NearestLegal(Eplb(8, 1, true, 0), Dense()), Sizes(8, 1, 1, false));
  EXPECT_EQ(NearestLegal(Dcp(8, 3), DeepseekV3()), Dcp(8, 1));
  EXPECT_EQ(NearestLegal(Dcp(8, 4), Qwen235B()), Dcp(8, 2));
}

TEST(NearestLegal, OfSizesBeyondAllBounds) {
  for (const ParallelConfig& config :
       {Sizes(65536, 65536, 1, false), Sizes(46341, 46341, 1, true), Sizes(1, 100000, 1, true),
        Sizes(2147483647, 2147483647, 2147483647, true), Eplb(1, 8, true, 2'000'000'000)}) {
    EXPECT_FALSE(IsLegal(config, DeepseekV3()));
    EXPECT_NE(Near(config, DeepseekV3()), "none");
  }
}

TEST(NearestLegal, EveryIllegalChoiceHasOne) {
  for (int tp = 0; tp <= 12; ++tp) {
    for (int dp = 1; dp <= 3; ++dp) {
      for (const bool ep : {false, true}) {
        for (const ModelNumbers& model : {DeepseekV3(), QwenCoderFp8(), Dense()}) {
          EXPECT_NE(Near(Sizes(tp, dp, 1, ep), model), "none");
        }
      }
    }
  }
}

TEST(LegalConfigs, OfOneNode) {
  const std::vector<ParallelConfig> configs = LegalConfigs(8, 8, DeepseekV3());
  std::set<std::string> names;
  for (const ParallelConfig& config : configs) {
    EXPECT_EQ(config.num_gpus(), 8);
    EXPECT_TRUE(IsLegal(CheckRules(config, DeepseekV3())));
    EXPECT_TRUE(names.insert(ConfigName(config)).second);
  }
  for (const char* name : {"TP8", "TP8+EP", "DP8", "DP8+EP", "TP4+DP2+EP", "PP8", "PP2+TP4+EP"}) {
    EXPECT_TRUE(names.contains(name)) << name;
  }
  EXPECT_FALSE(names.contains("PP8+EP"));  // no effect
  for (const ParallelConfig& config : LegalConfigs(8, 8, QwenCoderFp8())) {
    EXPECT_NE(ConfigName(config), "TP8");
  }
}

}  // namespace
}  // namespace moebius::layout
