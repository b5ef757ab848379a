#include "serve/metrics.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "serve/expert_balance.h"

namespace moebius::serve {
namespace {

using nlohmann::json;

constexpr double kLatencyBounds[] = {0.001, 0.01, 0.1, 1};
constexpr double kTokenBounds[] = {1, 8, 64};

Histogram Latencies(std::initializer_list<double> values) {
  Histogram histogram(kLatencyBounds);
  for (const double value : values) histogram.Observe(value);
  return histogram;
}

void FillEngine(engine::EngineStats& engine) {
  engine.num_running = 3;
  engine.num_waiting = 2;
  engine.num_kv_blocks = 200;
  engine.num_used_kv_blocks = 50;
  engine.num_cached_kv_blocks = 30;
  engine.num_steps = 11;
  engine.num_prompt_tokens = 100;
  engine.num_cached_tokens = 40;
  engine.num_output_tokens = 77;
  engine.num_finished_stop = 5;
  engine.num_finished_length = 6;
  engine.num_cancelled = 7;
  engine.num_failed = 8;
  engine.num_corrupted = 1;
  engine.time_to_first_token = Latencies({0.02, 0.05, 0.2});
  for (Histogram* histogram :
       {&engine.inter_token_latency, &engine.time_per_output_token, &engine.e2e_latency,
        &engine.queue_time, &engine.prefill_time, &engine.decode_time, &engine.inference_time}) {
    *histogram = Latencies({0.005});
  }
  for (Histogram* histogram : {&engine.step_tokens, &engine.prompt_length, &engine.output_length,
                               &engine.max_tokens, &engine.computed_prompt_tokens}) {
    *histogram = Histogram(kTokenBounds);
    histogram->Observe(5);
  }
  engine.device_time.Add(0.003);
}

Snapshot MakeSnapshot() {
  Snapshot snapshot;
  snapshot.model_name = "a \"quoted\" name";
  snapshot.model = {.dtype = "bfloat16",
                    .kv_cache_dtype = "fp8",
                    .architecture = "DeepseekV3ForCausalLM",
                    .weight_bytes = 42,
                    .num_layers = 7,
                    .num_moe_layers = 2,
                    .num_experts = 4,
                    .experts_per_token = 2,
                    .moe_layers = {1, 2},
                    .block_size = 16,
                    .gpu_memory_utilization = 0.9,
                    .enable_prefix_caching = true};
  snapshot.limits.max_model_len = 2048;
  FillEngine(snapshot.engine);
  snapshot.experts = moe::ExpertStats(2, 4);
  snapshot.experts.Count(0, std::vector<int32_t>{0, 1, 2, 3});
  snapshot.experts.Count(1, std::vector<int32_t>{1, 1, 1, 3});
  snapshot.server.params_n = Histogram(kTokenBounds);
  snapshot.server.endpoints.push_back({.method = "POST",
                                       .path = "/v1/chat/completions",
                                       .num_by_status = {{200, 9}, {400, 2}, {499, 1}},
                                       .seconds = Latencies({0.5})});
  // Two ranks with two of the four experts each.
  snapshot.ranks.resize(2);
  for (int rank = 0; rank < 2; ++rank) {
    engine::RankLoad& load = snapshot.ranks[static_cast<size_t>(rank)];
    load.rank = load.dp = load.expert_rank = rank;
    load.num_steps = 11;
    load.num_empty_steps = 3 * rank;
    load.num_rows = 200 - 100 * rank;
    load.num_expert_rows = 300;
    load.num_home_rows = 150 - 75 * rank;
    load.num_copy_rows = 30;
    load.dispatch_bytes = 4096;
    load.combine_bytes = 2048;
    load.num_latency_steps = 9;
    load.num_throughput_steps = 2;
    load.last_step = 10;
    load.seconds = 1;
    load.parts = {.attention = 0.5, .experts = 0.25, .wait = 0.125, .other = 0.125};
  }
  snapshot.uptime_seconds = 10;
  return snapshot;
}

std::string Value(const std::string& text, const std::string& sample) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(sample + " ")) return line.substr(sample.size() + 1);
  }
  return "absent";
}

const std::string kCommon = "model_name=\"a \\\"quoted\\\" name\",engine=\"0\"";

TEST(Metrics, EngineCountersHaveTheNamesThatDashboardsKnow) {
  Metrics metrics("1.2.3");
  const std::string text = metrics.Text(MakeSnapshot());
  const auto value = [&](const std::string& name, const std::string& labels = "") {
    return Value(text, name + "{" + kCommon + (labels.empty() ? "" : "," + labels) + "}");
  };
  EXPECT_EQ(value("vllm:num_requests_running"), "3");
  EXPECT_EQ(value("vllm:num_requests_waiting_by_reason", "reason=\"capacity\""), "2");
  EXPECT_EQ(value("vllm:kv_cache_usage_perc"), "0.25");
  EXPECT_EQ(value("vllm:prompt_tokens_by_source_total", "source=\"local_compute\""), "60");
  EXPECT_EQ(value("vllm:prompt_tokens_by_source_total", "source=\"local_cache_hit\""), "40");
  EXPECT_EQ(value("vllm:prefix_cache_queries_total"), "100");
  EXPECT_EQ(value("vllm:generation_tokens_total"), "77");
  EXPECT_EQ(value("vllm:request_success_total", "finished_reason=\"abort\""), "7");
  EXPECT_EQ(value("vllm:request_success_total", "finished_reason=\"stop\""), "5");
  EXPECT_EQ(value("vllm:corrupted_requests_total"), "1");
  EXPECT_EQ(value("vllm:time_to_first_token_seconds_bucket", "le=\"0.1\""), "2");
  EXPECT_EQ(value("vllm:time_to_first_token_seconds_count"), "3");
  EXPECT_EQ(value("vllm:cache_config_info",
                  "block_size=\"16\",num_gpu_blocks=\"200\",cache_dtype=\"fp8\","
                  "gpu_memory_utilization=\"0.9\",enable_prefix_caching=\"True\""),
            "1");
  EXPECT_EQ(value("moebius:step_seconds_bucket", "part=\"device\",le=\"0.005\""), "1");
  EXPECT_EQ(value("moebius:step_seconds_bucket", "part=\"device\",le=\"0.002\""), "0");
  EXPECT_EQ(value("moebius:build_info", "version=\"1.2.3\""), "1");
}

TEST(Metrics, RanksAreToldApart) {
  Metrics metrics("1");
  const std::string text = metrics.Text(MakeSnapshot());
  const auto value = [&](const std::string& name, int rank, const std::string& more = "") {
    return Value(text, name + "{" + kCommon + ",rank=\"" + std::to_string(rank) + "\",dp=\"" +
                           std::to_string(rank) + "\",tp=\"0\",pp=\"0\"" + more + "}");
  };
  EXPECT_EQ(value("moebius:rank_steps_total", 1), "11");
  EXPECT_EQ(value("moebius:rank_zero_token_steps_total", 0), "0");
  EXPECT_EQ(value("moebius:rank_zero_token_steps_total", 1), "3");
  EXPECT_EQ(value("moebius:rank_tokens_total", 0), "200");
  EXPECT_EQ(value("moebius:rank_expert_tokens_total", 1), "300");
  EXPECT_EQ(value("moebius:rank_home_expert_tokens_total", 1), "75");
  EXPECT_EQ(value("moebius:rank_dispatch_bytes_total", 1), "4096");
  EXPECT_EQ(value("moebius:rank_combine_bytes_total", 1), "2048");
  EXPECT_EQ(value("moebius:rank_step_seconds_total", 1, ",part=\"attention\""), "0.5");
  EXPECT_EQ(value("moebius:rank_step_seconds_total", 0, ",part=\"wait\""), "0.125");
  EXPECT_EQ(value("moebius:rank_exchange_steps_total", 0, ",mode=\"latency\""), "9");
  EXPECT_EQ(value("moebius:rank_exchange_steps_total", 0, ",mode=\"throughput\""), "2");
  EXPECT_EQ(value("moebius:rank_last_step", 0), "10");
}

TEST(Metrics, TheBalanceOfExpertsOverRanks) {
  Metrics metrics("1");
  Snapshot snapshot = MakeSnapshot();  // layer 1: experts 0 to 3 got 0, 3, 0, 1
  const auto value = [&](const std::string& text, const std::string& name, int layer) {
    return Value(text, name + "{" + kCommon + ",layer=\"" + std::to_string(layer) + "\"}");
  };
  std::string text = metrics.Text(snapshot);
  EXPECT_EQ(value(text, "moebius:rank_balancedness", 0), "1");
  EXPECT_EQ(value(text, "moebius:rank_expert_load_max", 1), "3");
  EXPECT_EQ(value(text, "moebius:rank_imbalance", 1), "1.5");
  EXPECT_EQ(std::stod(value(text, "moebius:rank_balancedness", 1)), 2.0 / 3);
  // A second copy of expert 1, on the other rank.
  snapshot.placement = {
      .epoch = 3,
      .slots = {.num_slots = 6, .layers = {{0, 1, -1, 2, 3, 1}, {0, 1, -1, 2, 3, 1}}},
      .moves = {}};
  text = Metrics("1").Text(snapshot);
  EXPECT_EQ(value(text, "moebius:rank_imbalance", 1), "1");
  EXPECT_EQ(value(text, "moebius:rank_imbalance_in_order", 1), "1.5");
  EXPECT_EQ(value(text, "moebius:balancing_gain", 1), "1.5");
  EXPECT_EQ(Value(text, "moebius:eplb_epoch{" + kCommon + "}"), "3");
  EXPECT_EQ(Value(text, "moebius:routing_locality{" + kCommon + "}"), "0.375");
  EXPECT_EQ(Value(text, "moebius:routing_locality_expected{" + kCommon + "}"), "0.5");
  EXPECT_EQ(Value(text, "moebius:routing_locality_copies{" + kCommon + "}"), "0.1");
  EXPECT_EQ(Value(text, "moebius:routing_locality_node{" + kCommon + "}"), "1");
  EXPECT_EQ(text.find("moebius:eplb_plans_total"), std::string::npos) << "experts stay";
  // A device does not say where rows were computed: nothing rather than 0.
  for (engine::RankLoad& load : snapshot.ranks) load.num_expert_rows = 0;
  text = Metrics("1").Text(snapshot);
  EXPECT_EQ(text.find("moebius:routing_locality"), std::string::npos);
  EXPECT_NE(text.find("moebius:rank_imbalance"), std::string::npos);
  EXPECT_TRUE(json::parse(Metrics("1").Stats(snapshot, false))["balance"]["locality"].is_null());
  // Cut experts are on every rank: there is nothing to balance.
  for (engine::RankLoad& load : snapshot.ranks) load.expert_rank = -1;
  text = Metrics("1").Text(snapshot);
  EXPECT_EQ(text.find("moebius:rank_balancedness"), std::string::npos);
  EXPECT_NE(text.find("moebius:rank_steps_total"), std::string::npos);
}

moe::PlacementState MovingPlacement() {
  return {.epoch = 6,
          .slots = {},
          .is_moving = true,
          .moves = {.epoch = 6,
                    .num_committed = 5,
                    .num_dropped = 2,
                    .num_slots = 9,
                    .num_bytes = 4096,
                    .seconds = 1.5,
                    .num_steps = 70,
                    .stall_seconds = 0.25,
                    .from_same_rank = 1,
                    .from_peer = 7,
                    .from_pool = 3,
                    .from_checkpoint = 4,
                    .num_corrupt = 8,
                    .last_drop = "rank 1: \"no\" source"}};
}

TEST(Metrics, WhatBalancingHasDone) {
  Snapshot snapshot = MakeSnapshot();
  snapshot.placement = MovingPlacement();
  const std::string text = Metrics("1").Text(snapshot);
  const auto value = [&](const std::string& name, const std::string& more = "") {
    return Value(text, "moebius:eplb_" + name + "{" + kCommon + more + "}");
  };
  EXPECT_EQ(value("epoch"), "6");
  EXPECT_EQ(value("plans_total", ",result=\"committed\""), "5");
  EXPECT_EQ(value("plans_total", ",result=\"dropped\""), "2");
  EXPECT_EQ(value("moved_slots_total"), "9");
  EXPECT_EQ(value("moved_bytes_total"), "4096");
  EXPECT_EQ(value("fetched_experts_total", ",source=\"same_rank\""), "1");
  EXPECT_EQ(value("fetched_experts_total", ",source=\"peer\""), "7");
  EXPECT_EQ(value("fetched_experts_total", ",source=\"host_pool\""), "3");
  EXPECT_EQ(value("fetched_experts_total", ",source=\"checkpoint\""), "4");
  EXPECT_EQ(value("corrupt_pieces_total"), "8");
  EXPECT_EQ(value("moving_seconds_total"), "1.5");
  EXPECT_EQ(value("moving_steps_total"), "70");
  EXPECT_EQ(value("stall_seconds_total"), "0.25");
}

TEST(Metrics, HttpStatusesAreClasses) {
  Metrics metrics("1");
  const std::string text = metrics.Text(MakeSnapshot());
  const std::string series = "http_requests_total{handler=\"/v1/chat/completions\",method=\"POST\"";
  EXPECT_EQ(Value(text, series + ",status=\"2xx\"}"), "9");
  EXPECT_EQ(Value(text, series + ",status=\"4xx\"}"), "3");
  EXPECT_EQ(Value(text, series + ",status=\"5xx\"}"), "absent");
  EXPECT_EQ(Value(text,
                  "http_request_duration_seconds_count{handler=\"/v1/chat/completions\","
                  "method=\"POST\"}"),
            "1");
}

TEST(Metrics, ProcessIsThisOne) {
  Metrics metrics("1");
  const std::string text = metrics.Text(MakeSnapshot());
  EXPECT_GT(std::stod(Value(text, "process_resident_memory_bytes")), 1 << 20);
  EXPECT_GE(std::stod(Value(text, "process_threads")), 1);
  EXPECT_GE(std::stod(Value(text, "process_open_fds")), 3);
  EXPECT_GE(std::stod(Value(text, "process_cpu_seconds_total")), 0);
  const double start = std::stod(Value(text, "process_start_time_seconds"));
  EXPECT_GT(start, 1.6e9);
  EXPECT_LE(start, static_cast<double>(::time(nullptr)) + 2);
}

TEST(Metrics, ExpertsAreToldByLayerAndWindow) {
  Metrics metrics("1");
  Snapshot snapshot = MakeSnapshot();
  const auto value = [&](const std::string& text, const std::string& name, int layer) {
    return Value(text, name + "{" + kCommon + ",layer=\"" + std::to_string(layer) + "\"}");
  };
  std::string text = metrics.Text(snapshot);
  EXPECT_EQ(value(text, "moebius:expert_imbalance", 0), "1");
  EXPECT_EQ(value(text, "moebius:expert_imbalance", 1), "3");
  EXPECT_EQ(value(text, "moebius:experts_active", 1), "2");
  EXPECT_EQ(value(text, "moebius:expert_effective_ratio", 1), "0.5");
  // Two tokens of two of four experts each.
  EXPECT_EQ(value(text, "moebius:expert_effective_ratio_expected", 1), "0.75");
  EXPECT_EQ(value(text, "moebius:expert_load_max", 1), "3");
  EXPECT_EQ(value(text, "moebius:expert_assignments_total", 1), "4");
  // A minute later only what came since counts, but for the counter.
  snapshot.uptime_seconds = 71;
  snapshot.experts.Count(1, std::vector<int32_t>{0, 2});
  text = metrics.Text(snapshot);
  EXPECT_EQ(value(text, "moebius:expert_load_max", 1), "1");
  EXPECT_EQ(value(text, "moebius:expert_imbalance", 0), "0");
  EXPECT_EQ(value(text, "moebius:expert_assignments_total", 1), "6");
  EXPECT_EQ(Value(text, "moebius:expert_window_seconds{" + kCommon + "}"), "61");
}

TEST(Metrics, PhasesOfALayerAreToldApart) {
  Snapshot snapshot = MakeSnapshot();  // layer 1: experts 0 to 3 got 0, 3, 0, 1
  snapshot.experts.counts()[8 + 4 + 1] = 2;
  const std::string text = Metrics("1").Text(snapshot);
  const auto value = [&](const std::string& name, const std::string& phase) {
    return Value(text, name + "{" + kCommon + ",layer=\"1\",phase=\"" + phase + "\"}");
  };
  EXPECT_EQ(value("moebius:expert_phase_imbalance", "prefill"), "4");
  EXPECT_EQ(value("moebius:expert_phase_imbalance", "decode"), "2");
  EXPECT_EQ(value("moebius:rank_phase_imbalance", "prefill"), "2");
  EXPECT_EQ(value("moebius:rank_phase_imbalance", "decode"), "1");
  EXPECT_EQ(Value(text, "moebius:expert_prompt_assignments_total{" + kCommon + ",layer=\"1\"}"),
            "2");
}

TEST(Metrics, StarvedAndDominantExpertsAreSaid) {
  Snapshot snapshot = MakeSnapshot();
  snapshot.experts = moe::ExpertStats(1, 32);
  for (int64_t& count : snapshot.experts.counts().first(32)) count = 200;
  snapshot.experts.counts()[3] = 10;
  snapshot.experts.counts()[4] = 0;
  snapshot.experts.counts()[7] = 4000;
  const std::string text = Metrics("1").Text(snapshot);
  const auto value = [&](const std::string& name) {
    return Value(text, name + "{" + kCommon + ",layer=\"0\"}");
  };
  EXPECT_EQ(value("moebius:experts_starved"), "2");
  EXPECT_EQ(value("moebius:experts_dominant"), "1");
  EXPECT_EQ(value("moebius:expert_collapse_index"), "0.0625");
  EXPECT_EQ(value("moebius:expert_collapsed"), "1");
  const json stats = json::parse(Metrics("1").Stats(snapshot, /*with_experts=*/false));
  EXPECT_EQ(stats["balance"]["collapsed"], json({true}));
  EXPECT_NEAR(stats["balance"]["entropy"][0].get<double>(),
              std::stod(value("moebius:expert_entropy")), 1e-4);
  EXPECT_EQ(value("moebius:expert_effective_ratio"), "0.96875");
  EXPECT_LT(std::stod(value("moebius:expert_entropy")), 1);
  EXPECT_GT(std::stod(value("moebius:expert_gini")), 0.3);
  EXPECT_GT(std::stod(value("moebius:expert_cv")), 1);
  EXPECT_EQ(Value(text, "moebius:expert_statistics{" + kCommon + "}"), "1");
}

// 61 layers of 256 experts may not make a series an expert.
TEST(Metrics, SeriesDoNotGrowWithExperts) {
  Metrics metrics("1");
  Snapshot snapshot = MakeSnapshot();
  const auto num_lines = [&](int num_experts) {
    snapshot.experts = moe::ExpertStats(61, num_experts);
    return std::ranges::count(Metrics("1").Text(snapshot), '\n');
  };
  EXPECT_EQ(num_lines(8), num_lines(256));
  EXPECT_LT(num_lines(256), 2500);
}

TEST(Metrics, ADenseModelHasNoExpertSeries) {
  Metrics metrics("1");
  Snapshot snapshot = MakeSnapshot();
  snapshot.experts = {};
  EXPECT_EQ(metrics.Text(snapshot).find("moebius:expert"), std::string::npos);
}

TEST(Metrics, EveryFamilyIsThereOnceAndDocumented) {
  Metrics metrics("1");
  std::istringstream lines(metrics.Text(MakeSnapshot()));
  std::ifstream file(MOEBIUS_SOURCE_DIR "/docs/metrics.md");
  const std::string docs((std::istreambuf_iterator<char>(file)), {});
  std::set<std::string> names;
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("# TYPE ")) continue;
    const std::string name = line.substr(7, line.find(' ', 7) - 7);
    EXPECT_TRUE(names.insert(name).second) << name << " comes twice";
    EXPECT_NE(docs.find("`" + name + "`"), std::string::npos)
        << name << " is not in docs/metrics.md";
  }
  EXPECT_GT(names.size(), 60u);
}

// promtool is no package of the tests; where it is (tests/clients/setup.sh), it must find nothing.
// A ':' in a name and iteration_tokens_total are vLLM's.
TEST(Metrics, PromtoolIsContent) {
  const char* promtool = std::getenv("MOEBIUS_PROMTOOL");
  if (promtool == nullptr) GTEST_SKIP() << "MOEBIUS_PROMTOOL is not set";
  Metrics metrics("1");
  const std::string path = testing::TempDir() + "metrics_" + std::to_string(::getpid()) + ".txt";
  std::ofstream(path) << metrics.Text(MakeSnapshot());
  const std::string command = std::string(promtool) + " check metrics < " + path + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char line[1024];
  while (std::fgets(line, sizeof line, pipe) != nullptr) {
    const std::string found = line;
    EXPECT_TRUE(found.find("should not contain ':'") != std::string::npos ||
                found.starts_with("vllm:iteration_tokens_total non-counter"))
        << found;
  }
  const int status = ::pclose(pipe);
  EXPECT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 3))
      << status;  // 3: remarks on style, looked at above
  std::remove(path.c_str());
}

TEST(ExpertWindow, LooksBackAboutItsLength) {
  ExpertWindow window(12);
  moe::ExpertStats stats(1, 2);
  for (int second = 1; second <= 40; ++second) {
    stats.Count(0, std::vector<int32_t>{0});
    const ExpertLoad load = window.Advance(stats, second);
    EXPECT_EQ(load.Layer(0)[0], static_cast<int64_t>(load.seconds)) << second;
    EXPECT_EQ(load.earlier.size(), second < 24 ? 0u : second < 36 ? 1u : 2u) << second;
    for (const moe::ExpertStats& earlier : load.earlier) EXPECT_EQ(earlier.Layer(0)[0], 12);
    EXPECT_EQ(load.seconds, std::min(second, 12)) << second;
  }
}

TEST(ExpertWindow, SaysHowLongNobodyAsked) {
  ExpertWindow window(12);
  moe::ExpertStats stats(1, 1);
  window.Advance(stats, 1);
  stats.Count(0, std::vector<int32_t>{0, 0, 0});
  const ExpertLoad load = window.Advance(stats, 500);
  EXPECT_EQ(load.seconds, 499);
  EXPECT_EQ(load.Layer(0)[0], 3);
  EXPECT_TRUE(load.earlier.empty());
}

TEST(StatsJson, HoldsGaugesCountersAndPercentiles) {
  Metrics metrics("1.2.3");
  const json stats = json::parse(metrics.Stats(MakeSnapshot(), /*with_experts=*/true));
  EXPECT_EQ(stats["server"]["model"], "a \"quoted\" name");
  EXPECT_EQ(stats["server"]["version"], "1.2.3");
  EXPECT_EQ(stats["gauges"]["kv_blocks_used"], 50);
  EXPECT_EQ(stats["counters"]["output_tokens"], 77);
  const json& ttft = stats["latency"]["ttft"];
  EXPECT_EQ(ttft["counts"], json({0, 0, 2, 1, 0}));
  // Rank 1.5 of 2 between 0.01 and 0.1, then 2.97 of 3 between 0.1 and 1.
  EXPECT_DOUBLE_EQ(ttft["p50"].get<double>(), 0.01 + 0.09 * 0.75);
  EXPECT_NEAR(ttft["p99"].get<double>(), 0.1 + 0.9 * 0.97, 1e-12);
  EXPECT_EQ(stats["experts"]["since_start"], json({{1, 1, 1, 1}, {0, 3, 0, 1}}));
  EXPECT_EQ(stats["experts"]["window"], json({{1, 1, 1, 1}, {0, 3, 0, 1}}));
  ASSERT_EQ(stats["ranks"].size(), 2u);
  EXPECT_EQ(stats["ranks"][1]["zero_token_steps"], 3);
  EXPECT_EQ(stats["ranks"][1]["parts"]["wait"], 0.125);
  EXPECT_EQ(stats["balance"]["num_ranks"], 2);
  EXPECT_EQ(stats["balance"]["balancedness"], json({1.0, 2.0 / 3}));
  EXPECT_EQ(stats["balance"]["imbalance"], json({1.0, 1.5}));
  EXPECT_EQ(stats["balance"]["imbalance_in_order"], json({1.0, 1.5}));
  EXPECT_EQ(stats["balance"]["starved"], json({0, 0}));
  // {1, 1, 1, 1} and {0, 3, 0, 1}, the second too few to be judged.
  ASSERT_EQ(stats["balance"]["entropy"].size(), 2u);
  EXPECT_DOUBLE_EQ(stats["balance"]["entropy"][0].get<double>(), 1);
  EXPECT_NEAR(stats["balance"]["entropy"][1].get<double>(), 0.4056, 1e-4);
  EXPECT_EQ(stats["balance"]["collapsed"], json({false, false}));
  EXPECT_EQ(stats["balance"]["locality"], json({{"rank", 0.375}, {"copies", 0.1}, {"node", 1.0}}));
  EXPECT_TRUE(stats["balance"]["moves"].is_null()) << "experts stay";
}

TEST(StatsJson, SaysWhatBalancingHasDone) {
  Snapshot snapshot = MakeSnapshot();
  snapshot.placement = MovingPlacement();
  const json stats = json::parse(Metrics("1").Stats(snapshot, /*with_experts=*/false));
  EXPECT_EQ(stats["balance"]["epoch"], 6);
  EXPECT_EQ(stats["balance"]["moves"],
            json({{"committed", 5},
                  {"dropped", 2},
                  {"last_drop", "rank 1: \"no\" source"},
                  {"slots", 9},
                  {"bytes", 4096},
                  {"fetched", {{"same_rank", 1}, {"peer", 7}, {"host_pool", 3}, {"checkpoint", 4}}},
                  {"corrupt_pieces", 8},
                  {"seconds", 1.5},
                  {"steps", 70},
                  {"stall_seconds", 0.25}}));
}

TEST(StatsJson, ExpertsCanBeLeftOutAndEmptyPercentilesAreNull) {
  Metrics metrics("1");
  Snapshot snapshot = MakeSnapshot();
  snapshot.engine.e2e_latency = Histogram(kLatencyBounds);
  snapshot.model_name = "bad \xff utf-8";
  const json stats = json::parse(metrics.Stats(snapshot, /*with_experts=*/false));
  EXPECT_FALSE(stats.contains("experts"));
  EXPECT_TRUE(stats["latency"]["e2e"]["p99"].is_null());
}

TEST(StatsJson, ARestartIsSeen) {
  const auto start_id = [](Metrics&& metrics) {
    return json::parse(metrics.Stats(MakeSnapshot(), false))["server"]["start_id"];
  };
  EXPECT_NE(start_id(Metrics("1")), start_id(Metrics("1")));
}

TEST(Page, IsOneDocumentThatAsksNobodyElse) {
  const std::string page(PageHtml());
  EXPECT_TRUE(page.starts_with("<!doctype html>"));
  EXPECT_NE(page.find("</html>"), std::string::npos);
  EXPECT_NE(page.find("default-src 'none'; connect-src 'self'"), std::string::npos);
  for (const char* word : {"src=\"", "@import", "<link rel=\"stylesheet\"", "https://"}) {
    EXPECT_EQ(page.find(word), std::string::npos) << word;
  }
}

}  // namespace
}  // namespace moebius::serve
