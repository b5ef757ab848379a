// What the planner says of our own ranks' memory, against what the ranks take: whole deployments as
// threads, with random weights.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "kernels/backend.h"
#include "layout/rules.h"
#include "plan/memory.h"
#include "plan/model_shape.h"
#include "rank/deployment_memory.h"
#include "rank/thread_ranks.h"

namespace moebius::rank {
namespace {

using layout::ParallelConfig;

constexpr double kShare = 0.02;  // norms are float32 here, panels padded, buffers aligned
constexpr uint64_t kPage = 4096;
constexpr int64_t kRows = 512;
constexpr int64_t kRequests = 16;

struct Case {
  std::string folder;
  std::string overrides;
};

// One with shared experts, a dense layer and a latent cache, one with neither.
const Case kLatent = {
    "tests/golden/deepseek_v3",
    R"({"hidden_size": 512, "intermediate_size": 1024, "moe_intermediate_size": 256,
        "n_shared_experts": 2, "num_attention_heads": 8, "num_key_value_heads": 8,
        "q_lora_rank": 128, "kv_lora_rank": 64, "vocab_size": 4096, "num_hidden_layers": 4})"};
const Case kGrouped = {"bench/configs/moe-3b",
                       R"({"hidden_size": 512, "moe_intermediate_size": 256, "head_dim": 64,
        "num_attention_heads": 8, "num_experts": 16, "vocab_size": 4096,
        "intermediate_size": 512, "num_hidden_layers": 4})"};

ParallelConfig Sizes(int tp, int dp, int pp, bool ep) {
  ParallelConfig config;
  config.tensor_parallel_size = tp;
  config.data_parallel_size = dp;
  config.pipeline_parallel_size = pp;
  config.enable_expert_parallel = ep;
  return config;
}

RankOptions OptionsOf(const Case& model, const ParallelConfig& parallel) {
  RankOptions options;
  options.load.folder = std::string(MOEBIUS_SOURCE_DIR) + "/" + model.folder;
  options.load.hf_overrides = model.overrides;
  options.load.load_format = model::LoadFormat::kDummy;
  options.load.mtp = false;
  options.load.backend = &kernels::RefBackend();
  options.load.dtype = model::DTypeChoice::kBFloat16;
  options.engine.num_kv_blocks = 8;
  options.engine.block_size = 16;
  options.engine.max_model_len = 64;
  options.engine.max_num_seqs = kRequests;
  options.engine.max_num_batched_tokens = kRows;
  options.parallel = parallel;
  return options;
}

plan::MemoryUse PlanOf(const Case& model, const RankOptions& options) {
  ParallelConfig parallel = options.parallel;
  parallel.own_ranks = true;
  const auto shape =
      plan::LoadModelShape(std::string(MOEBIUS_SOURCE_DIR) + "/" + model.folder, model.overrides);
  EXPECT_TRUE(shape) << shape.error().message();
  if (options.slots.num_slots > 0) {
    parallel.enable_eplb = true;
    parallel.num_redundant_experts =
        static_cast<int>(options.slots.num_slots - shape->numbers.num_experts);
  }
  EXPECT_TRUE(IsLegal(CheckRules(parallel, shape->numbers)));
  plan::MemoryInput input;
  input.hbm_bytes = 1e12;
  input.max_batched_tokens = kRows;
  input.max_decode_tokens = kRequests;
  input.activation_bytes = 2;
  input.deterministic = options.deterministic;
  input.max_moe_rows = options.max_num_tokens;
  if (options.online.is_on()) input.num_staging_slots = options.online.num_staging;
  return plan::PlanMemory(*shape, MakeLayout(parallel, shape->numbers), input);
}

int64_t Total(const engine::RankMemory& memory) {
  return memory.weight_bytes + memory.workspace_bytes;
}

void ExpectShare(double planned, double taken, double share, const std::string& what) {
  EXPECT_NEAR(planned, taken, share * taken) << what;
}

void ExpectPlanned(const Case& model, const RankOptions& options) {
  const ParallelConfig& parallel = options.parallel;
  const std::string name = model.folder + " " + ConfigName(parallel);
  const auto deployment = PlanDeployment(options);
  ASSERT_TRUE(deployment) << deployment.error().message();
  EXPECT_TRUE(CheckFits(*deployment, options)) << deployment->Describe();
  const auto client = StartThreadRanks(options);
  ASSERT_TRUE(client) << name << ": " << client.error().message();
  const std::vector<engine::RankLoad> ranks = (*client)->RankLoads();
  ASSERT_EQ(ranks.size(), deployment->weight_bytes.size()) << name;

  // Known before the start, but for the rest of a page.
  for (size_t r = 0; r < ranks.size(); ++r) {
    EXPECT_EQ(static_cast<uint64_t>(ranks[r].memory.weight_bytes),
              (deployment->weight_bytes[r] + kPage - 1) / kPage * kPage)
        << name << ", rank " << r;
  }
  // And by the planner, from sizes alone.
  const engine::RankMemory fullest = std::ranges::max(ranks, {}, [](const engine::RankLoad& rank) {
                                       return Total(rank.memory);
                                     }).memory;
  const plan::MemoryUse use = PlanOf(model, options);
  ExpectShare(use.weights(), static_cast<double>(fullest.weight_bytes), kShare, name + ", weights");
  ExpectShare(use.activations, static_cast<double>(fullest.workspace_bytes), kShare,
              name + ", workspace");
  const int64_t kv_tokens = *options.engine.num_kv_blocks * options.engine.block_size;
  EXPECT_EQ(use.kv_bytes_per_token * static_cast<double>(kv_tokens),
            static_cast<double>(fullest.kv_bytes))
      << name;
  // Beside them ranks share what they speak through: plans, lockstep, the start, counters.
  constexpr double kWords = 3 << 20;
  const double shared = use.exchange_buffers * parallel.num_gpus();
  const auto taken = static_cast<double>(deployment->shared_bytes);
  EXPECT_LE(shared, taken) << name;
  EXPECT_GE(shared + kWords, taken) << name;
}

TEST(PlanMemory, IsWhatRanksTake) {
  for (const Case& model : {kLatent, kGrouped}) {
    for (const ParallelConfig& parallel :
         {Sizes(2, 1, 1, false), Sizes(1, 2, 1, true), Sizes(2, 1, 1, true), Sizes(1, 1, 2, false),
          Sizes(1, 2, 1, false), Sizes(2, 2, 1, true), Sizes(2, 2, 1, false)}) {
      ExpectPlanned(model, OptionsOf(model, parallel));
    }
  }
}

TEST(PlanMemory, KnowsWhatChangesTheExchange) {
  RankOptions unsummed = OptionsOf(kLatent, Sizes(1, 2, 1, true));
  unsummed.deterministic = true;
  ExpectPlanned(kLatent, unsummed);
  RankOptions few_rows = OptionsOf(kLatent, Sizes(1, 4, 1, true));
  few_rows.max_num_tokens = 32;
  ExpectPlanned(kLatent, few_rows);
  ParallelConfig gathers = Sizes(1, 2, 1, true);
  gathers.all2all_backend = layout::ExchangeBackend::kAllGatherReduceScatter;
  ExpectPlanned(kLatent, OptionsOf(kLatent, gathers));
}

// 16 experts on 3 ranks: 7 slots on two of them, 6 on the last, and those where experts arrive.
TEST(PlanMemory, KnowsTheSlotsOfBalancing) {
  RankOptions options = OptionsOf(kLatent, Sizes(1, 3, 1, true));
  options.slots.num_slots = 20;
  ExpectPlanned(kLatent, options);
  options.online = {.layer_updates_per_iter = 1, .num_staging = 3};
  ExpectPlanned(kLatent, options);
}

TEST(PlanMemory, RefusesBeforeAnyRankStarts) {
  RankOptions options = OptionsOf(kLatent, Sizes(1, 2, 1, true));
  DeploymentMemory memory = *PlanDeployment(options);
  memory.available_bytes = memory.total() - 1;
  const Status status = CheckFits(memory, options);
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kOutOfMemory);
  for (const char* part : {"2 ranks need", "of weights and", "--max-num-batched-tokens (512)"}) {
    EXPECT_NE(status.error().message().find(part), std::string::npos) << status.error().message();
  }
  memory.available_bytes = memory.total_weights() - 1;
  EXPECT_NE(CheckFits(memory, options).error().message().find("fewer"), std::string::npos);
}

}  // namespace
}  // namespace moebius::rank
