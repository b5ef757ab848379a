// TensorRT-LLM's Wide-EP quick start as a user runs it: 256 experts in 288 slots on 32 ranks, with
// placements from files, and what is wrong with others.
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "cli_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

constexpr int kExperts = 256;
constexpr int kSlots = 288;
constexpr int kRanks = 32;
// Layer 0 has no experts.
constexpr const char* kConfig =
    R"({"model_type":"qwen3_moe","vocab_size":96,"hidden_size":64,"num_hidden_layers":3,
        "num_attention_heads":8,"num_key_value_heads":4,"head_dim":16,"intermediate_size":96,
        "max_position_embeddings":64,"num_experts":256,"num_experts_per_tok":8,
        "moe_intermediate_size":32,"norm_topk_prob":true,"tie_word_embeddings":false,
        "mlp_only_layers":[0]})";

class WideEpTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    Write("config.json", kConfig);
    std::string lines;
    for (int i = 0; i < 8; ++i) {
      const json request = {{"prompt_ids", {i, 6, 7, 9 + i, 11, 3}},
                            {"max_tokens", 8},
                            {"temperature", i % 2 == 0 ? 0.0 : 0.8},
                            {"seed", i},
                            {"ignore_eos", true},
                            {"logprobs", 2}};
      lines += request.dump() + "\n";
    }
    Write("requests.jsonl", lines);
  }

  Finished Ask(const Args& more) const {
    return Run(Args{"run", folder_, "--load-format", "dummy", "--dtype", "float32",
                    "--deterministic", "--input-file", folder_ + "requests.jsonl", "--max-num-seqs",
                    "4", "--max-model-len", "64"} +
               more);
  }

  // The quick start with that for a load_balancer.
  Finished AskWide(const std::string& load_balancer, const Args& more = {}) const {
    const std::string file = Write("wide.yaml", fmt::format("tensor_parallel_size: {}\n"
                                                            "moe_expert_parallel_size: {}\n"
                                                            "enable_attention_dp: true\n"
                                                            "moe_config:\n"
                                                            "  backend: WIDEEP\n"
                                                            "  max_num_tokens: 9216\n"
                                                            "  load_balancer: {}\n",
                                                            kRanks, kRanks, load_balancer));
    return Ask(Args{"--config", file, "--all2all-backend", "inproc", "--print-load"} + more);
  }

  // `answers`, and nine slots on each rank.
  static void ExpectAnswers(const Finished& finished, const std::string& answers) {
    ASSERT_EQ(finished.exit_code, 0) << finished.err;
    EXPECT_TRUE(finished.out.starts_with(answers)) << finished.out;
    std::istringstream lines(finished.out.substr(std::min(answers.size(), finished.out.size())));
    std::string line;
    std::getline(lines, line);
    EXPECT_TRUE(Contains(line, "8 of 256 take each token, in each of 2 layers")) << line;
    std::getline(lines, line);
    EXPECT_TRUE(Contains(line, "slots")) << line;
    int num_ranks = 0;
    // Lines of ranks; those of what moved come after them.
    while (num_ranks < kRanks && std::getline(lines, line)) {
      std::istringstream columns(line);
      int rank = -1;
      int own = -1;
      int slots = -1;
      columns >> rank >> own >> slots;
      EXPECT_EQ(rank, num_ranks++) << line;
      EXPECT_EQ(slots, kSlots / kRanks) << line;
    }
    EXPECT_EQ(num_ranks, kRanks);
  }

  void ExpectRefused(const std::string& load_balancer, const std::string& message) const {
    const Finished finished = AskWide(load_balancer);
    EXPECT_EQ(finished.exit_code, 2) << finished.err;
    EXPECT_TRUE(Contains(finished.err, message)) << finished.err << "expected " << message;
  }
};

TEST_F(WideEpTest, TheQuickStartGivesOneRanksAnswers) {
  const Finished one = Ask({});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  ExpectAnswers(AskWide("{num_slots: 288, layer_updates_per_iter: 1}"), one.out);
  // Experts that move, whatever the load.
  ExpectAnswers(AskWide("{num_slots: 288, layer_updates_per_iter: 1}",
                        {"--eplb-config", R"({"random_moves": 3, "step_interval": 1})"}),
                one.out);

  json load;
  for (int layer = 0; layer < 2; ++layer) {
    std::vector<int> tokens;
    for (int e = 0; e < kExperts; ++e) tokens.push_back(e % 37 == layer ? 900 : 10 + e % 7);
    load["load"].push_back(tokens);
  }
  const std::string placement = folder_ + "placement.yaml";
  for (const char* policy : {"deepseek", "improve"}) {
    const Finished plan =
        Run({"eplb", "plan", "--load", Write("load.json", load.dump()), "--first-layer", "1",
             "--num-slots", "288", "--ranks", "32", "--policy", policy, "--format", "yaml",
             "--layer-updates-per-iter", "1", "--output", placement});
    ASSERT_EQ(plan.exit_code, 0) << plan.err;
    EXPECT_TRUE(Contains(ReadFile(placement), "num_slots: 288")) << ReadFile(placement);
    ExpectAnswers(AskWide(placement), one.out);
  }
}

TEST_F(WideEpTest, WhatCannotBeIsRefusedBeforeAnythingStarts) {
  ExpectRefused(
      "{num_slots: 255, layer_updates_per_iter: 1}",
      "moe_config.load_balancer.num_slots is 255, expected at least 256, one for each expert");
  std::vector<int> list;
  for (int s = 0; s < kSlots; ++s) list.push_back(s % kExperts);
  const auto with = [](int layer, const std::vector<int>& experts) {
    return fmt::format("{{num_slots: 288, initial_global_assignments: {{{}: [{}]}}}}", layer,
                       fmt::join(experts, ", "));
  };
  ExpectRefused(with(0, list),
                "moe_config.load_balancer: initial_global_assignments: layer 0 has no experts, "
                "expected one of 1 to 2");
  std::vector<int> wrong = list;
  wrong[3] = 4;
  wrong[kExperts + 3] = 4;
  ExpectRefused(with(2, wrong), "expert 3");
  wrong[3] = kExperts;
  ExpectRefused(with(2, wrong), "layer 2: slot 3 holds 256, expected 0 to 255");
  const std::string file =
      Write("wrong.yaml", fmt::format("num_slots: 288\ninitial_global_assignments:\n  1: [{}]\n",
                                      fmt::join(wrong, ", ")));
  ExpectRefused(file, file +
                          ":3: initial_global_assignments: layer 1: slot 3 holds 256, expected 0 "
                          "to 255");
  list.pop_back();
  ExpectRefused(with(1, list), "layer 1 lists 287 slots, expected num_slots, which is 288");
  ExpectRefused(folder_ + "not_there.yaml", "not_there.yaml");
}

}  // namespace
}  // namespace moebius
