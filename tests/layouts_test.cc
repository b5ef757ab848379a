// Every family on every kind of layout, all ranks as threads: bit by bit one rank's answers with
// deterministic sums, one rank's up to rounding without, an error where a layout is illegal.
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "layout/rules.h"
#include "plan/model_shape.h"
#include "rank/testing/golden_ranks.h"

namespace moebius::rank {
namespace {

using engine::TokenChunk;
using layout::ParallelConfig;
using testing::Parallel;

constexpr int kMaxRanks = 64;        // TP8 x DP8
constexpr int kMaxRanksOfPair = 24;  // where few cells stand for all
constexpr int kRequests = 6;
constexpr int kTopLogprobs = 20;
constexpr int64_t kChunkRows = 3;  // of steps of up to 20

const std::vector<std::string> kFolders = {"tests/golden/deepseek_v2_group",
                                           "tests/golden/deepseek_v3",
                                           "tests/golden/deepseek_v3_fp8",
                                           "tests/golden/kimi_k2_mtp",
                                           "tests/golden/llama3",
                                           "tests/golden/llama4_nested",
                                           "tests/golden/mixtral_window",
                                           "tests/golden/qwen3_dense",
                                           "tests/golden/qwen3_moe_old",
                                           "models/demo"};
const std::vector<int> kTensorSizes = {1, 2, 3, 4, 5, 6, 7, 8};
const std::vector<int> kDataSizes = {1, 2, 3, 4, 5, 6, 7, 8};
const std::vector<int> kPipelineSizes = {1, 2, 3};

struct Cell {
  std::string folder;
  ParallelConfig parallel;
  int64_t max_moe_rows = 0;  // of a rank in one chunk of a MoE layer; 0: all of its step's

  std::string Name() const {
    return folder.substr(folder.rfind('/') + 1) + " " + ConfigName(parallel) +
           (max_moe_rows > 0 ? fmt::format(" in chunks of {}", max_moe_rows) : "");
  }
};

bool IsDense(const std::string& folder) {
  return folder.ends_with("llama3") || folder.ends_with("qwen3_dense");
}

// The checkpoint where its heads can be shared by `tp` ranks, else random weights of its kind with
// heads that can.
model::LoadOptions LoadOf(const std::string& folder, int tp) {
  model::LoadOptions load;
  load.folder = std::string(MOEBIUS_SOURCE_DIR) + "/" + folder;
  load.mtp = false;
  load.backend = &kernels::RefBackend();
  load.dtype = model::DTypeChoice::kFloat32;
  const bool is_demo = folder == "models/demo";
  if ((is_demo ? 8 : 4) % tp == 0) return load;
  load.load_format = model::LoadFormat::kDummy;
  load.hf_overrides = fmt::format(
      R"({{"num_attention_heads": {}, "num_key_value_heads": {}, "head_dim": 16}})", 2 * tp, tp);
  if (folder.ends_with("llama4_nested")) {
    load.hf_overrides = fmt::format(R"({{"text_config": {}}})", load.hf_overrides);
  }
  return load;
}

RankOptions OptionsOf(const Cell& cell) {
  RankOptions options = testing::GoldenOptions(cell.parallel);
  options.load = LoadOf(cell.folder, cell.parallel.tensor_parallel_size);
  options.engine.max_model_len = 48;
  options.engine.max_num_seqs = 4;
  options.engine.max_num_batched_tokens = 20;
  options.max_num_tokens = cell.max_moe_rows;
  options.step_timeout = std::chrono::minutes(5);  // threads of many ranks share few cores
  return options;
}

// Greedy and drawn requests of several lengths, all at once, with log probabilities.
std::vector<TokenChunk> Ask(engine::EngineClient& client) {
  return testing::Ask(client, kRequests, [](int i) {
    engine::RequestInput input;
    for (int t = 0; t < 2 + 7 * i % 27; ++t) input.prompt.push_back((7 * t + 3 * i) % 50);
    input.sampling.max_tokens = 4 + i % 3;
    input.sampling.temperature = i % 2 == 0 ? 0.0F : 0.8F;
    input.sampling.seed = 11 + i;
    input.sampling.num_logprobs = kTopLogprobs;
    input.sampling.ignore_eos = true;
    return input;
  });
}

// What one rank answers; layouts with the same weights share it.
const std::vector<TokenChunk>& OneRank(const RankOptions& options) {
  static std::map<std::string, std::vector<TokenChunk>> known;
  std::vector<TokenChunk>& answers = known[options.load.folder + options.load.hf_overrides];
  if (answers.empty()) answers = Ask(*testing::OneRank(options));
  return answers;
}

std::vector<layout::Finding> FindingsOf(const Cell& cell) {
  const model::LoadOptions load = LoadOf(cell.folder, cell.parallel.tensor_parallel_size);
  const auto shape = plan::LoadModelShape(load.folder, load.hf_overrides);
  EXPECT_TRUE(shape) << shape.error().message();
  ParallelConfig parallel = cell.parallel;
  parallel.own_ranks = true;
  return CheckRules(parallel, shape->numbers);
}

void ExpectOneRanksBits(const Cell& cell) {
  const RankOptions options = OptionsOf(cell);
  const std::vector<TokenChunk>& expected = OneRank(options);
  const auto client = StartThreadRanks(options);
  ASSERT_TRUE(client) << cell.Name() << ": " << client.error().message();
  const std::vector<TokenChunk> answers = Ask(**client);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].tokens, expected[i].tokens) << cell.Name() << ", request " << i;
    EXPECT_EQ(answers[i].logprobs, expected[i].logprobs) << cell.Name() << ", request " << i;
  }
}

// A legal cell gives one rank's bits; of an illegal one the rules speak, and ranks that start all
// the same are none of them wrong: the engine knows fewer reasons than the planner.
void CheckCell(const Cell& cell) {
  const std::vector<layout::Finding> findings = FindingsOf(cell);
  if (IsLegal(findings)) {
    ExpectOneRanksBits(cell);
    return;
  }
  EXPECT_FALSE(findings.front().message.empty()) << cell.Name();
  const auto client = StartThreadRanks(OptionsOf(cell));
  if (client) return ExpectOneRanksBits(cell);
  EXPECT_GT(client.error().message().size(), 20U) << cell.Name();
  EXPECT_NE(client.error().code(), ErrorCode::kInternal) << client.error().message();
}

std::vector<Cell> AllCells() {
  std::vector<Cell> cells;
  for (const std::string& folder : kFolders) {
    for (const int tp : kTensorSizes) {
      for (const int dp : kDataSizes) {
        for (const int pp : kPipelineSizes) {
          for (const bool ep : {false, true}) {
            if (tp * dp * pp <= kMaxRanks) cells.push_back({folder, Parallel(tp, dp, pp, ep)});
          }
        }
      }
    }
  }
  return cells;
}

// What a cell holds of pairs of choices.
std::set<std::string> PairsOf(const Cell& cell) {
  const ParallelConfig& p = cell.parallel;
  const std::vector<std::string> choices = {cell.folder,
                                            fmt::format("tp{}", p.tensor_parallel_size),
                                            fmt::format("dp{}", p.data_parallel_size),
                                            fmt::format("pp{}", p.pipeline_parallel_size),
                                            p.enable_expert_parallel ? "ep" : "cut",
                                            cell.max_moe_rows > 0 ? "chunks" : "whole"};
  std::set<std::string> pairs;
  for (size_t a = 0; a < choices.size(); ++a) {
    for (size_t b = a + 1; b < choices.size(); ++b) pairs.insert(choices[a] + " " + choices[b]);
  }
  return pairs;
}

// Few cells in which every pair of choices stands that stands in any; the smaller ones first.
std::vector<Cell> PairwiseCells() {
  std::vector<Cell> cells = AllCells();
  std::erase_if(cells, [](const Cell& cell) {
    return cell.parallel.num_gpus() > kMaxRanksOfPair || !IsLegal(FindingsOf(cell));
  });
  // Layers of experts that take a step in chunks.
  for (size_t i = 0, count = cells.size(); i < count; ++i) {
    Cell cell = cells[i];
    if (IsDense(cell.folder) || cell.parallel.expert_group() == 1) continue;
    cell.max_moe_rows = kChunkRows;
    cells.push_back(cell);
  }
  std::ranges::stable_sort(cells, {}, [](const Cell& cell) { return cell.parallel.num_gpus(); });
  std::set<std::string> missing;
  for (const Cell& cell : cells) missing.merge(PairsOf(cell));
  std::vector<Cell> chosen;
  while (!missing.empty()) {
    const auto gain = [&](const Cell& cell) {
      return std::ranges::count_if(PairsOf(cell),
                                   [&](const auto& pair) { return missing.contains(pair); });
    };
    const auto best = std::ranges::max_element(cells, {}, gain);
    for (const std::string& pair : PairsOf(*best)) missing.erase(pair);
    chosen.push_back(*best);
  }
  return chosen;
}

TEST(Layouts, EveryPairOfChoicesGivesOneRanksBits) {
  const std::vector<Cell> cells = PairwiseCells();
  EXPECT_GT(cells.size(), 40U);
  for (const Cell& cell : cells) ExpectOneRanksBits(cell);
}

// Few and small enough for a build that watches threads.
TEST(Layouts, SmallOnesGiveOneRanksBits) {
  ExpectOneRanksBits({"tests/golden/deepseek_v3", Parallel(2, 2, 1, true), kChunkRows});
  ExpectOneRanksBits({"tests/golden/qwen3_moe_old", Parallel(1, 2, 2, false)});
}

// In parts that may run side by side: a checkpoint and a number of tensor-parallel ranks.
class LayoutsAll : public ::testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(LayoutsAll, EveryCellGivesOneRanksBitsOrItsMessage) {
  for (const Cell& cell : AllCells()) {
    if (std::tuple(cell.folder, cell.parallel.tensor_parallel_size) != GetParam()) continue;
    SCOPED_TRACE(cell.Name());
    CheckCell(cell);
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(All, LayoutsAll,
                         ::testing::Combine(::testing::ValuesIn(kFolders),
                                            ::testing::ValuesIn(kTensorSizes)),
                         [](const auto& test) {
                           const std::string& folder = std::get<0>(test.param);
                           return fmt::format("{}_tp{}", folder.substr(folder.rfind('/') + 1),
                                              std::get<1>(test.param));
                         });

TEST(Layouts, IllegalOnesAreRefusedWithTheirMessage) {
  int num_illegal = 0;
  for (const Cell& cell : {Cell{"tests/golden/deepseek_v3", Parallel(8, 1, 1, false)},
                           Cell{"tests/golden/llama3", Parallel(1, 1, 3, false)},
                           Cell{"tests/golden/deepseek_v3_fp8", Parallel(1, 5, 1, true)}}) {
    RankOptions options = OptionsOf(cell);
    options.load = LoadOf(cell.folder, 1);  // with the checkpoint's own heads
    const auto client = StartThreadRanks(options);
    ASSERT_FALSE(client) << cell.Name();
    EXPECT_NE(client.error().message().find("expected"), std::string::npos)
        << cell.Name() << ": " << client.error().message();
    ++num_illegal;
  }
  EXPECT_EQ(num_illegal, 3);
}

// Sums in another order: the tokens until two candidates are as close as rounding is, and log
// probabilities within a thousandth of their spread; the same bits every time.
TEST(Layouts, DefaultSumsDifferByRoundingAndNeverBetweenRuns) {
  constexpr float kTolerance = 1e-3F;
  for (const Cell& cell : {Cell{"models/demo", Parallel(1, 4, 1, true)},
                           Cell{"tests/golden/deepseek_v2_group", Parallel(1, 2, 1, true)},
                           Cell{"tests/golden/deepseek_v3", Parallel(2, 2, 1, true)},
                           Cell{"tests/golden/deepseek_v3", Parallel(2, 2, 1, true), kChunkRows},
                           Cell{"tests/golden/deepseek_v3_fp8", Parallel(1, 2, 1, true)},
                           Cell{"tests/golden/kimi_k2_mtp", Parallel(2, 1, 1, true)},
                           Cell{"tests/golden/llama3", Parallel(2, 2, 1, false)},
                           Cell{"tests/golden/llama4_nested", Parallel(1, 2, 1, true)},
                           Cell{"tests/golden/qwen3_dense", Parallel(4, 1, 1, false)},
                           Cell{"tests/golden/qwen3_moe_old", Parallel(1, 3, 2, true)},
                           Cell{"tests/golden/qwen3_moe_old", Parallel(2, 2, 1, false)},
                           Cell{"tests/golden/mixtral_window", Parallel(2, 1, 1, true)}}) {
    RankOptions options = OptionsOf(cell);
    const std::vector<TokenChunk>& expected = OneRank(options);
    options.deterministic = false;
    std::vector<std::vector<TokenChunk>> runs;
    for (int run = 0; run < 2; ++run) {
      const auto client = StartThreadRanks(options);
      ASSERT_TRUE(client) << cell.Name() << ": " << client.error().message();
      runs.push_back(Ask(**client));
    }
    int num_compared = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
      EXPECT_EQ(runs[0][i].tokens, runs[1][i].tokens) << cell.Name();
      EXPECT_EQ(runs[0][i].logprobs, runs[1][i].logprobs) << cell.Name();
      for (size_t t = 0; t < expected[i].logprobs.size(); ++t) {
        const engine::LogprobEntry& one = expected[i].logprobs[t];
        const engine::LogprobEntry& many = runs[0][i].logprobs[t];
        const float spread = one.top_logprobs.front() - one.top_logprobs.back();
        for (size_t r = 0; r < one.top_logprobs.size(); ++r) {
          EXPECT_NEAR(many.top_logprobs[r], one.top_logprobs[r], kTolerance * spread)
              << cell.Name() << ", request " << i << ", token " << t;
        }
        ++num_compared;
        if (many.token != one.token) break;  // from here on they answer other questions
      }
    }
    EXPECT_GT(num_compared, kRequests) << cell.Name();
  }
}

}  // namespace
}  // namespace moebius::rank
