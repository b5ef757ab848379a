// What a step says of itself, where nobody but the executor can know it.
#include "engine/step_executor.h"

#include <gtest/gtest.h>

#include <numeric>

#include "kernels/backend.h"
#include "model/load.h"

namespace moebius::engine {
namespace {

TEST(StepExecutor, AStepSaysItsExpertsAndThePlacementThatItUsed) {
  model::LoadOptions load;
  load.folder = std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/deepseek_v3";
  load.backend = &kernels::RefBackend();
  load.mtp = false;
  auto pool = platform::ThreadPool::Create({platform::AllowedCpus().front()});
  auto model = model::LoadModel(load, *pool);
  ASSERT_TRUE(model) << model.error().message();
  ModelRunnerOptions options;
  options.vocab_size = (*model)->config().vocab_size;
  options.num_blocks = 4;
  options.max_model_len = 32;
  options.max_rows = 8;
  options.max_samples = 1;
  options.counts_experts = true;
  auto executor = StepExecutor::Create(std::move(*model), load.backend, std::move(pool), options);
  ASSERT_TRUE(executor) << executor.error().message();

  StepPlan plan;
  plan.step_id = 0;
  plan.tokens = {1, 2, 3};
  plan.positions = {0, 1, 2};
  plan.kv_rows = {0, 1, 2};
  plan.query_start = {0, 3};
  plan.context_len = {3};
  plan.block_table = {0};
  plan.max_blocks = 1;
  plan.block_size = options.block_size;
  SharedStep shared;
  shared.step = 40;
  shared.epoch = 7;
  const auto output = (*executor)->Run(plan, &shared);
  ASSERT_TRUE(output) << output.error().message();
  EXPECT_EQ(output->epoch, 7);
  EXPECT_EQ(output->num_experts, 16);
  EXPECT_EQ(output->experts_per_token, 4);
  const std::vector<int32_t>& counts = output->expert_counts;
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0), 3 * 4 * 2) << "of two layers";
}

}  // namespace
}  // namespace moebius::engine
