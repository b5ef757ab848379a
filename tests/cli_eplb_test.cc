// `moebius eplb` as a user runs it: files in, files out, and a server that only counts.
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <string>

#include "cli_runner.h"
#include "net/http_server.h"
#include "plan/balance/placement_file.h"
#include "plan/balance/statistics_folder.h"

namespace moebius {
namespace {

using nlohmann::json;

// DeepSeek's published example.
constexpr const char* kLoad = R"({"load": [
  [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
  [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]})";
const Args kShape = {"--num-slots", "16", "--ranks", "8", "--groups", "4", "--nodes", "2"};

class EplbTest : public CliTest {
 protected:
  json Json(const Args& args) const {
    const Finished finished = Run(Args{"eplb"} + args + Args{"--format", "json"});
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    const json parsed = json::parse(finished.out, nullptr, false);
    EXPECT_FALSE(parsed.is_discarded()) << finished.out;
    return parsed;
  }

  std::string UsageError(const Args& args) const {
    const Finished finished = Run(Args{"eplb"} + args);
    EXPECT_EQ(finished.exit_code, 2) << finished.err;
    return finished.err;
  }

  // Ten iterations of layers 3 and 4, eight experts, of which 0 and 1 are hot.
  std::string WriteRecording() const {
    plan::ExpertStatistics rank;
    rank.meta = {8, 2};
    rank.layers = {3, 4};
    rank.first_iteration = 100;
    for (int i = 0; i < 10; ++i) {
      rank.iterations.push_back(
          {{800, 600, 100, 100, 100, 100, 100, 100 + i}, {100, 100, 100, 100, 100, 100, 100, 100}});
    }
    const std::string folder = folder_ + "statistics";
    EXPECT_TRUE(plan::MakeStatisticsFolder(folder));
    EXPECT_TRUE(plan::WriteStatistics(folder, std::vector{rank, rank}));
    return folder;
  }
};

TEST_F(EplbTest, DeepSeeksPublishedExample) {
  const std::string load = Write("load.json", kLoad);
  const json plan = Json(Args{"plan", "--load", load, "--policy", "deepseek"} + kShape);
  EXPECT_EQ(plan["slots"], json::parse("[[5,6,5,7,8,4,3,4,10,9,10,2,0,1,11,1],"
                                       "[7,10,6,8,6,11,8,9,2,4,5,1,5,0,3,1]]"));
  ASSERT_EQ(plan["imbalance"].size(), 2u);
  EXPECT_GT(plan["imbalance"][0], 0.0);
  EXPECT_EQ(plan.size(), 2u);
}

TEST_F(EplbTest, PlansInTensorRtsWords) {
  const std::string output = folder_ + "placement.yaml";
  const Finished finished =
      Run({"eplb", "plan", "--ep_size", "4", "--num_slots", "12", "--expert_statistic_path",
           WriteRecording(), "--output_path", output, "--policy=trtllm", "--iter_start", "101",
           "--iter_stop", "105", "--layer_updates_per_iter", "2"});
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_EQ(finished.out, "");
  const auto placement = plan::ReadPlacementFile(output, 8);
  ASSERT_TRUE(placement) << placement.error().message();
  EXPECT_EQ(placement->num_slots, 12);
  EXPECT_EQ(placement->layer_updates_per_iter, 2);
  ASSERT_EQ(placement->assignments.size(), 2u);
  EXPECT_TRUE(placement->assignments.contains(3) && placement->assignments.contains(4));
  EXPECT_EQ(ReadFile(output), plan::PlacementYaml(*placement));
}

TEST_F(EplbTest, ImprovesWhatThereIs) {
  const std::string statistics = WriteRecording();
  const std::string first = folder_ + "first.yaml";
  const std::string second = folder_ + "second.yaml";
  const Args shape = {"--num-slots", "12", "--ranks", "4"};
  ASSERT_EQ(Run(Args{"eplb", "plan", statistics, "--output", first} + shape).exit_code, 0);
  // The same loads: nothing is to be gained, nothing moves.
  const Finished again =
      Run({"eplb", "plan", statistics, "--from", first, "--ranks", "4", "--output", second});
  EXPECT_EQ(again.exit_code, 0) << again.err;
  EXPECT_EQ(ReadFile(first), ReadFile(second));
  // From a poor placement at most so many slots change.
  Write("poor.yaml",
        "num_slots: 12\ninitial_global_assignments:\n"
        "  3: [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]\n  4: [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]\n"
        "  9: [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]\nlayer_updates_per_iter: 3\n");
  const json moved = Json(
      {"plan", statistics, "--from", folder_ + "poor.yaml", "--ranks", "4", "--max-moves", "2"});
  const json poor = json::parse("[0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]");
  int num_moves = 0;
  for (size_t slot = 0; slot < 12; ++slot) num_moves += moved["slots"][0][slot] != poor[slot];
  EXPECT_GT(num_moves, 0);
  EXPECT_LE(num_moves, 2);
  EXPECT_EQ(moved["slots"].size(), 2u);
  // A layer without loads stays.
  const Finished yaml =
      Run({"eplb", "plan", statistics, "--from", folder_ + "poor.yaml", "--ranks", "4"});
  EXPECT_TRUE(
      Contains(yaml.out, "  9: [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]\nlayer_updates_per_iter: 3\n"))
      << yaml.out;
}

TEST_F(EplbTest, PlansByPredictedTime) {
  const std::string statistics = WriteRecording();
  const std::string in_order = "[0, 1, 2, 3, 4, 5, 6, 7]";
  Write("order.yaml", "num_slots: 8\ninitial_global_assignments:\n  3: " + in_order +
                          "\n  4: " + in_order + "\nlayer_updates_per_iter: 0\n");
  const Args plan = {"plan", statistics, "--from", folder_ + "order.yaml", "--ranks", "4"};
  EXPECT_NE(Json(plan)["slots"][0], json::parse(in_order)) << "experts 0 and 1 are hot";
  // Every rank reads the weights of two experts, and rows take next to nothing.
  const Args weights = {"--us-per-row", "0.001", "--us-per-active-expert", "100"};
  EXPECT_EQ(Json(plan + weights)["slots"][0], json::parse(in_order));
  // With one row a step most experts get none, and the hot ones are what is read.
  EXPECT_NE(Json(plan + weights + Args{"--tokens-per-step", "1"})["slots"][0],
            json::parse(in_order));
  EXPECT_TRUE(Contains(UsageError({"plan", statistics, "--ranks", "4", "--us-per-row", "-1"}),
                       "--us-per-row is -1, expected 0 to 1e9"));
  EXPECT_TRUE(Contains(
      UsageError({"plan", statistics, "--ranks", "4", "--policy", "trtllm", "--us-per-row", "1"}),
      "are of --policy improve: trtllm knows no time"));
}

TEST_F(EplbTest, ReportsByExpertAndByRank) {
  const std::string statistics = WriteRecording();
  const std::string file = folder_ + "p.yaml";
  ASSERT_EQ(Run({"eplb", "plan", statistics, "--num-slots", "12", "--ranks", "4", "--output", file})
                .exit_code,
            0);
  const json report = Json({"report", statistics, "--placement", file, "--ranks", "4"});
  EXPECT_EQ(report["iterations"], 10);
  EXPECT_EQ(report["first_iteration"], 100);
  ASSERT_EQ(report["layers"].size(), 2u);
  const json& hot = report["layers"][0];
  EXPECT_EQ(hot["layer"], 3);
  EXPECT_NEAR(hot["mean"], 2 * 2004.5 / 8, 1e-6);
  EXPECT_NEAR(hot["max_over_mean"], 800 / (2004.5 / 8), 1e-6);
  EXPECT_NEAR(hot["ranks"]["before"], 1400 / (2004.5 / 4) - 1, 1e-6);
  EXPECT_LT(hot["ranks"]["after"], 0.2);
  EXPECT_GE(hot["ranks"]["after"], hot["ranks"]["best"]);
  EXPECT_GT(hot["ranks"]["gain"], 2.0);
  EXPECT_NEAR(report["layers"][1]["imbalance"], 0, 1e-9);
  EXPECT_NEAR(report["layers"][1]["entropy"], 1, 1e-9);

  const Finished text =
      Run({"eplb", "report", statistics, "--placement", file, "--ranks", "4", "--per-expert"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  for (const char* part : {"8 experts, 10 iterations", "imbalance", "Gini", "By rank", "best",
                           "layer 3, tokens by expert"}) {
    EXPECT_TRUE(Contains(text.out, part)) << part << "\n" << text.out;
  }
  std::istringstream lines(text.out);
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 100u) << line;
  EXPECT_FALSE(Json({"report", statistics})["layers"][0].contains("ranks"));
  EXPECT_FALSE(Json({"report", statistics})["layers"][0].contains("kl"));
  const json same = Json({"report", statistics, "--reference", statistics});
  for (const json& layer : same["layers"]) {
    EXPECT_NEAR(layer["kl"], 0, 1e-3);
    EXPECT_EQ(layer["differs"], false);
  }
}

TEST_F(EplbTest, ReplaysEachPolicy) {
  const json replay = Json(
      {"replay", "--synthetic",        "drifting", "--experts",    "32",  "--layers",
       "2",      "--windows",          "30",       "--num-slots",  "40",  "--ranks",
       "8",      "--bytes-per-expert", "1000",     "--us-per-row", "0.1", "--us-per-active-expert",
       "5",      "--tokens-per-step",  "64"});
  ASSERT_EQ(replay["policies"].size(), 5u);
  const json& none = replay["policies"][0];
  const json& trtllm = replay["policies"][2];
  const json& improve = replay["policies"][3];
  EXPECT_EQ(none["policy"], "none");
  EXPECT_EQ(none["bytes"], 0.0);
  EXPECT_LT(improve["imbalance"], none["imbalance"]);
  EXPECT_LT(improve["step_seconds"], none["step_seconds"]);
  EXPECT_LT(improve["slots_rewritten"], trtllm["slots_rewritten"]);
  const json& timed = replay["policies"][4];
  EXPECT_EQ(timed["policy"], "timed");
  EXPECT_LT(timed["step_seconds"], improve["step_seconds"]) << "few tokens a step";
  EXPECT_TRUE(Contains(
      UsageError({"replay", "--synthetic", "drifting", "--ranks", "2", "--policies", "timed"}),
      "--policies has 'timed', which takes --us-per-row or"));

  const Finished text = Run({"eplb", "replay", WriteRecording(), "--num-slots", "9", "--ranks", "2",
                             "--policies", "none,improve"});
  EXPECT_EQ(text.exit_code, 0) << text.err;
  EXPECT_TRUE(Contains(text.out, "2 layers of 8 experts, 9 slots on 2 ranks, 10 windows"));
  EXPECT_TRUE(Contains(text.out, "improve"));
}

TEST_F(EplbTest, LocalityOfBothRules) {
  const json locality = Json({"locality", "--experts", "32", "--num-slots", "40", "--ranks", "4",
                              "--top-k", "4", "--layers", "1", "--tokens", "500"});
  ASSERT_EQ(locality["rules"].size(), 2u);
  EXPECT_EQ(locality["rules"][0]["rule"], "round robin");
  EXPECT_LT(locality["rules"][1]["remote_copies"], locality["rules"][0]["remote_copies"]);
  EXPECT_TRUE(Contains(UsageError({"locality", "--experts", "4"}), "--top-k is 8, expected at"));
}

TEST_F(EplbTest, ErrorsOfUse) {
  const std::string load = Write("load.json", kLoad);
  EXPECT_TRUE(Contains(UsageError({"pla"}),
                       "unknown command pla (did you mean plan?); there are: "
                       "plan, report, replay, locality, record"));
  EXPECT_TRUE(Contains(UsageError({"plan", "--num-slot", "4"}),
                       "unknown flag --num-slot (did you mean --num-slots?)"));
  EXPECT_TRUE(Contains(UsageError({"plan"}), "no loads: expected one of DIR"));
  EXPECT_TRUE(Contains(UsageError({"plan", folder_, "--load", load}), "two kinds of loads"));
  EXPECT_TRUE(Contains(UsageError({"plan", "--load", load}), "--ranks is missing"));
  EXPECT_TRUE(Contains(UsageError({"plan", "--load", load, "--policy", "trtllm", "--from", load}),
                       "--from is of --policy improve"));
  EXPECT_TRUE(Contains(UsageError({"plan", "--load", load, "--policy", "best"}),
                       "--policy is 'best', expected one of deepseek, trtllm, improve"));
  EXPECT_TRUE(
      Contains(UsageError({"report", "--load", load, "--num-slots", "16"}), "--ranks is missing"));
  EXPECT_TRUE(Contains(UsageError({"replay", "--synthetic", "steady"}), "--synthetic is 'steady'"));
  EXPECT_TRUE(Contains(UsageError({"record"}), "--output is missing"));
  EXPECT_TRUE(Contains(UsageError({"record", "--output", "x", "--interval", "0"}),
                       "--interval is 0, expected 0.01"));

  const Finished few = Run({"eplb", "plan", "--load", load, "--num-slots", "8", "--ranks", "8"});
  EXPECT_EQ(few.exit_code, 1);
  EXPECT_TRUE(Contains(few.err, "8 slots, expected at least one for each of 12 experts"));
  const Finished odd = Run(
      {"eplb", "plan", "--load", load, "--num-slots", "13", "--ranks", "8", "--policy", "trtllm"});
  EXPECT_EQ(odd.exit_code, 1);
  EXPECT_TRUE(Contains(odd.err, "13 slots on 8 ranks")) << odd.err;
  EXPECT_EQ(Run({"eplb", "plan", folder_ + "none", "--ranks", "2"}).exit_code, 1);
  const Finished help = Run({"eplb"});
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_TRUE(Contains(help.out, "replay"));
}

// Counts one token more for expert 1 of layer 5 with each question.
class CountingServer {
 public:
  CountingServer() {
    net::HttpServerOptions options;
    options.host = "127.0.0.1";
    options.port = 0;
    auto server = net::HttpServer::Start(
        options, [this](net::HttpRequest request, std::shared_ptr<net::Exchange> exchange) {
          exchange->Respond(Answer(request));
        });
    EXPECT_TRUE(server) << server.error().message();
    server_ = std::move(*server);
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(server_->port()); }
  int num_asked() const { return num_asked_; }

 private:
  net::HttpResponse Answer(const net::HttpRequest& request) {
    net::HttpResponse response;
    const std::string* key = request.Find("Authorization");
    if (request.target != "/eplb/counts" || key == nullptr || *key != "Bearer sesame") {
      response.status = key == nullptr ? 401 : 404;
      response.body = R"({"error": {"message": "no"}})";
      return response;
    }
    const int n = num_asked_++;
    response.body = R"({"num_experts": 2, "num_experts_per_token": 1, "layers": [5], "epoch": 0,)"
                    R"("ranks": [{"decode": [[7, )" +
                    std::to_string(10 + n) + R"(]], "prefill": [[100, )" + std::to_string(100 + n) +
                    "]]}]}";
    return response;
  }

  std::atomic<int> num_asked_{0};
  std::unique_ptr<net::HttpServer> server_;
};

TEST_F(EplbTest, RecordsWhatAServerCounts) {
  const CountingServer server;
  const std::string output = folder_ + "recorded";
  const Finished finished =
      Run({"eplb", "record", "--base-url", server.url(), "--api-key", "sesame", "--output", output,
           "--seconds", "0.3", "--interval", "0.05"});
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_TRUE(Contains(finished.out, "1 layer of 2 experts, 1 rank")) << finished.out;
  const auto statistics = plan::ReadStatistics(output);
  ASSERT_TRUE(statistics) << statistics.error().message();
  EXPECT_EQ(statistics->layers, std::vector<int>{5});
  EXPECT_EQ(statistics->iterations.size(), static_cast<size_t>(server.num_asked() - 1));
  for (const plan::LayerCounts& iteration : statistics->iterations) {
    EXPECT_EQ(iteration, (plan::LayerCounts{{0, 2}}));
  }
  // Not a second time into the same folder.
  const Finished again = Run({"eplb", "record", "--base-url", server.url(), "--api-key", "sesame",
                              "--output", output, "--seconds", "0.1"});
  EXPECT_EQ(again.exit_code, 1);
  EXPECT_TRUE(Contains(again.err, "holds something")) << again.err;
  const Finished locked = Run({"eplb", "record", "--base-url", server.url(), "--output",
                               folder_ + "other", "--seconds", "0.1"});
  EXPECT_EQ(locked.exit_code, 1);
  EXPECT_TRUE(Contains(locked.err, "/eplb/counts answers 401: no")) << locked.err;
}

TEST_F(EplbTest, CtrlCEndsARecordingAndKeepsIt) {
  const CountingServer server;
  const std::string output = folder_ + "recorded";
  const pid_t pid = Start({"eplb", "record", "--base-url", server.url(), "--api-key", "sesame",
                           "--output", output, "--interval", "0.05", "--phase", "decode"});
  for (int i = 0; i < 12000 && server.num_asked() < 4; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  // As `timeout -s INT` does: to the process, and to its group.
  kill(pid, SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  kill(pid, SIGINT);
  EXPECT_EQ(Wait(pid), 0) << ReadFile(folder_ + "stderr");
  const auto statistics = plan::ReadStatistics(output);
  ASSERT_TRUE(statistics) << statistics.error().message();
  EXPECT_GE(statistics->iterations.size(), 3u);
  EXPECT_EQ(statistics->iterations[0], (plan::LayerCounts{{0, 1}}));
}

}  // namespace
}  // namespace moebius
