// The engine on several GPUs, or on several virtual ranks of one, against the engine on one GPU:
// the same bits in deterministic mode, whatever the placement of experts and while it changes, and
// the same within rounding otherwise. Skipped without a GPU.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <random>
#include <tuple>

#include "base/testing/slow.h"
#include "checkpoints.h"
#include "engine/inproc_engine_client.h"
#include "engine/token_stream.h"
#include "kernels/backend.h"
#include "model/load.h"
#include "model/model_config.h"
#include "rank/process_ranks.h"
#include "rank/rank_device.h"
#include "rank/rank_process.h"
#include "rank/thread_ranks.h"

namespace moebius::rank {
namespace {

using engine::EngineClient;
using engine::TokenChunk;

const std::chrono::milliseconds kLong = moebius::testing::Slow(std::chrono::minutes(2));

struct Layout {
  const char* name;
  int tp;
  int dp;
  bool ep;
  int pp = 1;

  int num_ranks() const { return tp * dp * pp; }
};
void PrintTo(const Layout& layout, std::ostream* out) { *out << layout.name; }
constexpr Layout kLayouts[] = {{"Tp2", 2, 1, false},           {"Dp2Ep", 1, 2, true},
                               {"Tp2Ep", 2, 1, true},          {"Dp2Tp2Ep", 2, 2, true},
                               {"Dp2CutExperts", 1, 2, false}, {"Dp4Ep", 1, 4, true},
                               {"Dp2Tp2", 2, 2, false},        {"Pp2", 1, 1, false, 2},
                               {"Pp2Tp2", 2, 1, false, 2},     {"Pp2Dp2Ep", 1, 2, true, 2}};

struct Mode {
  model::DTypeChoice dtype = model::DTypeChoice::kFloat32;
  bool deterministic = true;
  bool graphs = true;
  bool copies = false;  // more slots than experts
  bool moves = false;   // between them, at random
  bool processes = false;
  std::string overrides = {};  // of the configuration: the weights are random then
};

RankOptions OptionsOf(const std::string& folder, const Mode& mode,
                      const kernels::Backend* backend) {
  RankOptions options;
  options.load.folder = folder;
  options.load.dtype = mode.dtype;
  options.load.mtp = false;
  if (!mode.overrides.empty()) {
    options.load.load_format = model::LoadFormat::kDummy;
    options.load.hf_overrides = mode.overrides;
  }
  options.load.backend = backend;
  options.engine.block_size = 8;
  options.engine.num_kv_blocks = 400;
  options.engine.max_model_len = 120;
  options.engine.max_num_seqs = 16;
  options.engine.max_num_batched_tokens = 64;  // prompts run in chunks
  options.engine.seed = 1;
  options.engine.device_graphs = mode.graphs;
  options.engine.deterministic = mode.deterministic;
  options.deterministic = mode.deterministic;
  options.step_timeout = moebius::testing::Slow(std::chrono::seconds(20));
  return options;
}

// Ranks as processes want a GPU each; with MOEBIUS_SHARE_GPUS=1 they take turns on fewer.
bool CanBeProcesses(const Layout& layout) {
  return std::getenv("MOEBIUS_SHARE_GPUS") != nullptr ||
         layout.num_ranks() <= NumRankDevices().value_or(0);
}

std::unique_ptr<EngineClient> StartOne(const RankOptions& options) {
  auto pool = platform::ThreadPool::Create();
  auto model = model::LoadModel(options.load, *pool);
  if (!model) {
    ADD_FAILURE() << model.error().message();
    return nullptr;
  }
  auto client = engine::InprocEngineClient::Create(std::move(*model), options.load.backend,
                                                   std::move(pool), options.engine);
  if (client) return std::move(*client);
  ADD_FAILURE() << client.error().message();
  return nullptr;
}

std::unique_ptr<EngineClient> StartMany(RankOptions options, const Layout& layout, const Mode& mode,
                                        int64_t num_experts) {
  if (mode.copies) options.slots.num_slots = num_experts + layout.tp * layout.dp;
  if (mode.moves) {
    options.slots.num_slots = std::max(options.slots.num_slots, num_experts);
    options.online.layer_updates_per_iter = 2;
    options.online.step_interval = 2;
    options.online.num_staging = 3;
    options.online.is_random = true;
    options.online.seed = 7;
  }
  options.parallel.tensor_parallel_size = layout.tp;
  options.parallel.data_parallel_size = layout.dp;
  options.parallel.pipeline_parallel_size = layout.pp;
  options.parallel.enable_expert_parallel = layout.ep;
  if (mode.processes) {
    auto client = ProcessRanks::Start(options);
    if (client) return std::move(*client);
    ADD_FAILURE() << client.error().message();
    return nullptr;
  }
  auto client = StartThreadRanks(options);
  if (client) return std::move(*client);
  ADD_FAILURE() << client.error().message();
  return nullptr;
}

std::vector<engine::RequestInput> Inputs(size_t count, int64_t vocab_size) {
  std::mt19937 random(5);
  std::vector<engine::RequestInput> inputs(count);
  for (engine::RequestInput& input : inputs) {
    const size_t num_tokens = 2 + random() % 70;
    for (size_t i = 0; i < num_tokens; ++i) {
      input.prompt.push_back(static_cast<TokenId>(random() % static_cast<uint32_t>(vocab_size)));
    }
    engine::SamplingParams& sampling = input.sampling;
    sampling.max_tokens = static_cast<int32_t>(8 + random() % 30);
    sampling.temperature = random() % 3 == 0 ? 0.0f : 0.8f;
    sampling.seed = random();
    sampling.num_logprobs = 2;
    sampling.ignore_eos = true;
    sampling.num_prompt_logprobs = 1;
    if (random() % 3 == 0) sampling.repetition_penalty = 1.2f;
    if (random() % 3 == 0) sampling.top_k = 40;
  }
  return inputs;
}

// In waves, so that ranks run out of work at different times.
std::vector<TokenChunk> Ask(EngineClient& client, const std::vector<engine::RequestInput>& inputs) {
  std::vector<TokenChunk> chunks;
  for (size_t first = 0; first < inputs.size(); first += 5) {
    const size_t end = std::min(inputs.size(), first + 5);
    std::vector<engine::TokenStream> streams(end - first);
    for (size_t i = first; i < end; ++i) {
      EXPECT_TRUE(client.Submit(inputs[i], streams[i - first].Sink()).has_value());
    }
    for (engine::TokenStream& stream : streams) {
      auto chunk = stream.Collect(kLong);
      EXPECT_TRUE(chunk) << chunk.error().message();
      if (chunk && chunk->error) ADD_FAILURE() << chunk->error->message();
      chunks.push_back(chunk ? std::move(*chunk) : TokenChunk());
    }
  }
  return chunks;
}

class DeviceRanks : public ::testing::TestWithParam<std::tuple<std::string, Layout>> {
 protected:
  void SetUp() override {
    const auto backend = kernels::CudaBackend();
    if (!backend) GTEST_SKIP() << backend.error().message();
    cuda_ = *backend;
    const auto config = model::LoadConfig(OptionsOf(folder(), {}, cuda_).load);
    ASSERT_TRUE(config) << config.error().message();
    num_experts_ = config->moe.num_experts;
    const bool moe = num_experts_ > 0;
    // Weights keep fp8 where blocks of 128 x 128 stay whole, which a cut may decide otherwise.
    const model::AttentionConfig& attention = config->attention;
    const int64_t mla_queries = attention.num_heads / layout().tp *
                                (attention.qk_nope_head_dim + attention.qk_rope_head_dim);
    const bool cuts_blocks =
        config->intermediate_size % 128 != 0 ||
        (attention.kind == model::AttentionKind::kMla && mla_queries % 128 != 0);
    cut_changes_weights_ = config->fp8_blocks && layout().tp > 1 && cuts_blocks;
    if (!moe && (layout().ep || layout().dp > 1)) GTEST_SKIP() << "no experts";
  }
  std::string folder() const { return std::get<0>(GetParam()); }
  const Layout& layout() const { return std::get<1>(GetParam()); }

  // Of one GPU, kept for all layouts.
  const std::vector<TokenChunk>& Expected(const Mode& mode) {
    static std::map<std::tuple<std::string, int, bool, std::string>, std::vector<TokenChunk>> known;
    std::vector<TokenChunk>& chunks =
        known[{folder(), static_cast<int>(mode.dtype), mode.deterministic, mode.overrides}];
    if (chunks.empty()) {
      const auto client = StartOne(OptionsOf(folder(), mode, cuda_));
      if (client != nullptr) chunks = Ask(*client, Inputs(15, client->limits().vocab_size));
    }
    return chunks;
  }
  std::unique_ptr<EngineClient> Start(const Mode& mode) {
    return StartMany(OptionsOf(folder(), mode, cuda_), layout(), mode, num_experts_);
  }
  std::vector<TokenChunk> Got(const Mode& mode) {
    const auto client = Start(mode);
    return client == nullptr ? std::vector<TokenChunk>()
                             : Ask(*client, Inputs(15, client->limits().vocab_size));
  }

  void ExpectTheSameBits(const Mode& mode) { ExpectTheSameBits(mode, Got(mode)); }
  void ExpectTheSameBits(const Mode& mode, const std::vector<TokenChunk>& got) {
    const std::vector<TokenChunk>& want = Expected(mode);
    ASSERT_EQ(got.size(), want.size());
    for (size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i].tokens, want[i].tokens) << "request " << i;
      EXPECT_EQ(got[i].logprobs, want[i].logprobs) << "request " << i;
      EXPECT_EQ(got[i].prompt_logprobs, want[i].prompt_logprobs) << "request " << i;
    }
  }

  // What nine of ten log probabilities differ by at most: of the prompts, and of draws up to where
  // they part.
  static double MostOfTheDistance(const std::vector<TokenChunk>& got,
                                  const std::vector<TokenChunk>& want) {
    EXPECT_EQ(got.size(), want.size());
    std::vector<double> differences;
    for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
      EXPECT_EQ(got[i].prompt_logprobs.size(), want[i].prompt_logprobs.size());
      const size_t count = std::min(got[i].prompt_logprobs.size(), want[i].prompt_logprobs.size());
      for (size_t j = 0; j < count; ++j) {
        differences.push_back(std::fabs(static_cast<double>(got[i].prompt_logprobs[j].logprob) -
                                        want[i].prompt_logprobs[j].logprob));
      }
      const std::vector<TokenId>& drawn = got[i].tokens;
      const auto same = std::ranges::mismatch(drawn, want[i].tokens).in1 - drawn.begin();
      for (size_t j = 0; j < static_cast<size_t>(same); ++j) {  // with a log probability each
        differences.push_back(std::fabs(static_cast<double>(got[i].logprobs[j].logprob) -
                                        want[i].logprobs[j].logprob));
      }
    }
    std::sort(differences.begin(), differences.end());
    EXPECT_FALSE(differences.empty());
    return differences.empty() ? 0 : differences[differences.size() * 9 / 10];
  }

  // That distance below the limit; how many requests are equal.
  size_t ExpectNearlyTheSame(const Mode& mode, double limit) {
    const std::vector<TokenChunk>& want = Expected(mode);
    const std::vector<TokenChunk> got = Got(mode);
    const double most = MostOfTheDistance(got, want);
    EXPECT_LT(most, limit);
    size_t num_equal = 0;
    for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
      num_equal += got[i].tokens == want[i].tokens ? 1 : 0;
    }
    std::printf("%zu of 15 requests equal, most log probabilities within %.1e (limit %.1e)\n",
                num_equal, most, limit);
    return num_equal;
  }

  const kernels::Backend* cuda_ = nullptr;
  int64_t num_experts_ = 0;
  bool cut_changes_weights_ = false;
};

TEST_P(DeviceRanks, Float32GivesTheSameBits) { ExpectTheSameBits({}); }

TEST_P(DeviceRanks, BFloat16GivesTheSameBitsWithoutGraphs) {
  if (cut_changes_weights_) GTEST_SKIP() << "a cut of these weights keeps other blocks in fp8";
  ExpectTheSameBits(
      {.dtype = model::DTypeChoice::kBFloat16, .deterministic = true, .graphs = false});
}

TEST_P(DeviceRanks, CopiesOfExpertsGiveTheSameBits) {
  if (!layout().ep) GTEST_SKIP() << "no slots";
  ExpectTheSameBits({.copies = true});
}

TEST_P(DeviceRanks, ExpertsThatMoveGiveTheSameBits) {
  if (!layout().ep) GTEST_SKIP() << "no slots";
  for (const bool copies : {false, true}) {
    const Mode mode = {
        .dtype = copies ? model::DTypeChoice::kBFloat16 : model::DTypeChoice::kFloat32,
        .copies = copies,
        .moves = true};
    if (copies && cut_changes_weights_) continue;
    const auto client = Start(mode);
    ASSERT_NE(client, nullptr);
    moe::BalanceStatus moved;
    // Plans come with time, which on a slow day is more than one round's.
    for (int round = 0; round < 2 || (moved.num_committed < 8 && round < 20); ++round) {
      ExpectTheSameBits(mode, Ask(*client, Inputs(15, client->limits().vocab_size)));
      ASSERT_FALSE(HasFailure()) << "after " << moved.num_committed << " changes";
      moved = client->Placement().moves;
    }
    // With few experts and copies of most of them little can change places.
    EXPECT_GE(moved.num_committed, copies ? 1 : 8);
    EXPECT_EQ(moved.num_dropped, 0) << moved.last_drop;
    EXPECT_EQ(moved.num_corrupt, 0);
    EXPECT_GT(moved.from_peer, 0);
    std::printf("%lld changes, %lld experts from peers, %lld from the same rank\n",
                static_cast<long long>(moved.num_committed),
                static_cast<long long>(moved.from_peer),
                static_cast<long long>(moved.from_same_rank));
  }
}

// They take seconds to start, so not for all checkpoints.
TEST_P(DeviceRanks, ProcessesGiveTheSameBits) {
  const std::string name = std::filesystem::path(folder()).filename();
  if (name != "demo" && name != "deepseek_v3_fp8") GTEST_SKIP() << "others do it";
  if (!CanBeProcesses(layout())) GTEST_SKIP() << "GPUs are too few";
  // Threads have no graphs.
  ExpectTheSameBits({.processes = true});
  ExpectNearlyTheSame({.deterministic = false, .processes = true}, 1e-3);
  if (layout().ep) ExpectTheSameBits({.copies = true, .moves = true, .processes = true});
}

// Sums of a rank's experts come home as one, products may sum in another order, and under TP each
// rank sums a part of their inputs.
TEST_P(DeviceRanks, DefaultModeDiffersByRounding) {
  EXPECT_GE(ExpectNearlyTheSame({.deterministic = false}, 1e-3), 12u);
}

// Rows go to them in fp8, but for deterministic mode.
TEST_P(DeviceRanks, ExpertsInFp8) {
  if (!layout().ep || !folder().ends_with("/demo")) GTEST_SKIP() << "one model serves";
  Mode mode = {.dtype = model::DTypeChoice::kBFloat16,
               .overrides = R"({"moe_intermediate_size": 128})"};
  ExpectTheSameBits(mode);
  if (!CanBeProcesses(layout())) return;
  mode.deterministic = false;
  mode.processes = true;  // with graphs
  ExpectNearlyTheSame(mode, 0.4);
}

// Experts of two blocks, and so of a block a rank: their inputs are cut, where the checkpoints'
// experts are too narrow for it.
TEST_P(DeviceRanks, CutExpertsAreSummed) {
  if (layout().ep || layout().tp * layout().dp != 2 || !folder().ends_with("/demo")) {
    GTEST_SKIP() << "one model serves";
  }
  Mode mode = {.overrides = R"({"moe_intermediate_size": 256})"};
  ExpectTheSameBits(mode);
  mode.deterministic = false;
  EXPECT_GE(ExpectNearlyTheSame(mode, 1e-3), 12u);
  if (!CanBeProcesses(layout())) return;
  // Threads hung here in bfloat16 (app/parallel_flags.cc), processes do not. One layer (of
  // each stage), so that no later router makes much of little. What one GPU is off from float32
  // comes of a dozen roundings; ranks add two or three.
  for (const char* weights : {R"(, "quantization_config": null)", ""}) {  // bfloat16, fp8
    mode = Mode{.deterministic = false};
    mode.overrides = fmt::format(
        R"({{"moe_intermediate_size": 256, "num_hidden_layers": {}, "first_k_dense_replace": 0{}}})",
        layout().pp, weights);
    const std::vector<TokenChunk>& exact = Expected(mode);
    mode.dtype = model::DTypeChoice::kBFloat16;
    const double of_one = MostOfTheDistance(Expected(mode), exact);
    mode.processes = true;  // with graphs
    const double of_ranks = MostOfTheDistance(Got(mode), exact);
    EXPECT_LT(of_ranks, 1.5 * of_one) << mode.overrides;
    std::printf("most log probabilities within %.1e of float32, of one GPU within %.1e\n", of_ranks,
                of_one);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, DeviceRanks,
    ::testing::Combine(::testing::ValuesIn(Checkpoints()), ::testing::ValuesIn(kLayouts)),
    [](const auto& info) {
      return std::filesystem::path(std::get<0>(info.param)).filename().string() + "_" +
             std::get<1>(info.param).name;
    });

}  // namespace
}  // namespace moebius::rank

int main(int argc, char** argv) {
  // Where virtual ranks share a GPU, a kernel that were loaded when it is first needed would wait
  // for one that waits for it.
  setenv("CUDA_MODULE_LOADING", "EAGER", 0);
  // Nor may a queue of the driver be shared by streams that wait for each other.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (!args.empty() && args[0] == moebius::rank::kRankProcessCommand) {
    return moebius::rank::RankProcessMain(args);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
