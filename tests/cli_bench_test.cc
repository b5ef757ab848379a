// `moebius bench serve` and `moebius bench sweep` as a user runs them: against the real server on
// the demo model; and `bench kernels` and `bench exchange`.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli_runner.h"

namespace moebius {
namespace {

using nlohmann::json;

const std::string kDemo = MOEBIUS_SOURCE_DIR "/models/demo";

class BenchTest : public CliTest {
 protected:
  // A plan in the test's folder; `loads` and `servers` as YAML.
  std::string Plan(const std::string& servers, const std::string& loads) const {
    return Write("plan.yaml",
                 "name: t\nstart-timeout-sec: 60\ndefaults:\n  command: moebius serve " + kDemo +
                     "\n  load-flags: {random-input-len: 16, random-output-len: 8}\n"
                     "servers:\n" +
                     servers + "loads:\n" + loads);
  }
  Args Sweep(const std::string& plan) const {
    return {"bench", "sweep", plan, "--output-dir", folder_ + "out"};
  }
  std::vector<json> Rows() const {
    std::vector<json> rows;
    std::istringstream lines(ReadFile(folder_ + "out/rows.jsonl"));
    for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
    return rows;
  }
};

// No server of this test's folder is left.
int NumServers(const std::string& marker) {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string words = ReadFile(entry.path().string() + "/cmdline");
    if (words.find(marker) != std::string::npos && words.find("sweep") == std::string::npos) {
      ++count;
    }
  }
  return count;
}

TEST_F(BenchTest, ASweepRunsWhatItCanAndMarksTheRest) {
  const std::string plan = Plan(
      "  - name: good\n    flags: {served-model-name: sweep-marker-one}\n"
      "  - name: refused\n    flags: {nnodes: 2}\n"
      "  - name: planned\n    not-yet: later\n"
      "  - name: dies\n    command: [\"false\"]\n",
      "  - name: c\n    matrix: {max-concurrency: [1, 4]}\n    flags: {num-prompts: 8}\n");
  const Finished finished = Run(Sweep(plan));
  EXPECT_EQ(finished.exit_code, 1) << finished.err;  // a cell failed
  const std::vector<json> rows = Rows();
  ASSERT_EQ(rows.size(), 8u) << finished.err;
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(rows[i]["status"], "ok") << rows[i];
    EXPECT_EQ(rows[i]["result"]["completed"], 8);
    EXPECT_EQ(rows[i]["result"]["total_output_tokens"], 64);
    EXPECT_EQ(rows[i]["result"]["total_input_tokens"], 128);
    EXPECT_EQ(rows[i]["result"]["max_concurrency"], i == 0 ? 1 : 4);
    EXPECT_NE(rows[i]["identity"]["machine"], "");
    EXPECT_EQ(rows[2 + i]["status"], "not yet");
    EXPECT_TRUE(Contains(rows[2 + i]["reason"], "--nnodes is 2")) << rows[2 + i];
    EXPECT_EQ(rows[4 + i]["reason"], "later");
    EXPECT_EQ(rows[6 + i]["status"], "failed");
  }
  EXPECT_TRUE(Contains(finished.out, "| good / c max-concurrency=4 | ok | 8 | 0 |"));
  for (const char* name : {"report.md", "report.csv", "report.html"}) {
    EXPECT_FALSE(ReadFile(folder_ + "out/" + name).empty()) << name;
  }
  EXPECT_EQ(NumServers("sweep-marker-one"), 0);

  // Where each stands, without running anything.
  const std::string list = Run(Sweep(plan) + Args{"--list"}).out;
  for (const char* line :
       {"  done        good / c max-concurrency=1\n", "  failed      dies / c max-concurrency=1  (",
        "  cannot yet  refused / c max-concurrency=4  (",
        "  cannot yet  planned / c max-concurrency=1  (later)\n"}) {
    EXPECT_TRUE(Contains(list, line)) << line << list;
  }

  // Finished cells are skipped, the others tried again.
  const Finished second = Run(Sweep(plan));
  EXPECT_TRUE(Contains(second.err, "t: 2 done, 4 to run, 2 cannot yet\n")) << second.err;
  const std::vector<json> again = Rows();
  ASSERT_EQ(again.size(), 8u);
  for (int i = 0; i < 8; ++i) {
    EXPECT_EQ(again[i]["cell"], rows[i]["cell"]);
    if (i < 2) {
      EXPECT_EQ(again[i], rows[i]);
    }
  }
}

TEST_F(BenchTest, AnInterruptedSweepLeavesNoServerAndGoesOn) {
  const std::string plan =
      Plan("  - name: s\n    flags: {served-model-name: sweep-marker-two}\n",
           "  - name: quick\n    flags: {num-prompts: 2, max-concurrency: 1}\n"
           "  - name: long\n    flags: {max-concurrency: 2, duration: 2, num-prompts: 2}\n");
  Finished finished;
  std::thread runner([&] { finished = Run(Sweep(plan)); });
  // The first row is there: the second cell runs.
  for (int i = 0; i < 6000 && ReadFile(folder_ + "out/rows.jsonl").empty(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string words = ReadFile(entry.path().string() + "/cmdline");
    if (Contains(words, std::string("sweep\0", 6) + plan)) {
      kill(std::stoi(entry.path().filename()), SIGTERM);
    }
  }
  runner.join();
  EXPECT_EQ(finished.exit_code, 130) << finished.err;
  EXPECT_TRUE(Contains(finished.out, "\nInterrupted: 1 done, 1 to run;")) << finished.out;
  EXPECT_TRUE(Contains(finished.err, "interrupted")) << finished.err;
  EXPECT_EQ(NumServers("sweep-marker-two"), 0);
  ASSERT_EQ(Rows().size(), 1u);
  EXPECT_EQ(Run(Sweep(plan)).exit_code, 0);
  const std::vector<json> rows = Rows();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[1]["cell"], "s / long");
  EXPECT_GT(rows[1]["result"]["completed"], 2);
  EXPECT_FALSE(Contains(ReadFile(folder_ + "out/report.md"), "Interrupted"));
}

std::vector<json> JsonLines(const std::string& path) {
  std::vector<json> rows;
  std::istringstream lines(ReadFile(path));
  for (std::string line; std::getline(lines, line);) rows.push_back(json::parse(line));
  return rows;
}

TEST_F(BenchTest, KernelsAreMeasuredAndChecked) {
  const std::string out = folder_ + "kernels.jsonl";
  const Finished finished =
      Run({"bench", "kernels", "--part", "small", "--part", "sample", "--json", out});
  EXPECT_EQ(finished.exit_code, 0) << finished.err << finished.out;
  EXPECT_TRUE(Contains(finished.out, "memory streams ")) << finished.out;
  const std::vector<json> rows = JsonLines(out);
  ASSERT_EQ(rows.size(), 11u);
  for (const json& row : rows) {
    EXPECT_GT(row["us"], 0) << row;
    EXPECT_EQ(row["correct"], true) << row;
    EXPECT_GT(row["memory_bytes_per_second"], 1e8) << row;
  }
  const Finished wrong = Run({"bench", "kernels", "--part", "smal"});
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_TRUE(Contains(wrong.err,
                       "--part is 'smal', expected one of decode, prefill, attention, sample, "
                       "small"))
      << wrong.err;
}

TEST_F(BenchTest, TheExchangeIsMeasuredAndChecked) {
  const std::string out = folder_ + "exchange.jsonl";
  const Finished finished =
      Run({"bench", "exchange", "--ranks", "2", "--hidden", "128", "--json", out});
  EXPECT_EQ(finished.exit_code, 0) << finished.err << finished.out;
  const std::vector<json> rows = JsonLines(out);
  ASSERT_EQ(rows.size(), 21u);
  for (const json& row : rows) {
    EXPECT_GT(row["us"], 0) << row;
    EXPECT_EQ(row["correct"], true) << row;
    EXPECT_EQ(row["ranks"], 2) << row;
  }
  const Finished three = Run({"bench", "exchange", "--ranks", "3"});
  EXPECT_EQ(three.exit_code, 2);
  EXPECT_TRUE(Contains(three.err, "--ranks is 3, expected 2, 4 or 8")) << three.err;
}

TEST_F(BenchTest, WithoutAGpuItsBenchmarksSaySo) {
  if (std::filesystem::exists("/dev/nvidiactl")) GTEST_SKIP() << "there is one";
  for (const char* name : {"kernels", "exchange"}) {
    const Finished finished = Run({"bench", name, "--device", "cuda"});
    EXPECT_EQ(finished.exit_code, 2) << name;
    EXPECT_TRUE(Contains(finished.err, "--device is 'cuda', but ")) << finished.err;
  }
}

TEST_F(BenchTest, OnlyOfNoCellIsAnErrorThatNamesThem) {
  const std::string plan = Plan("  - name: s\n", "  - name: a\n  - name: b\n");
  for (const Args& more : {Args{}, Args{"--list"}}) {
    const Finished finished = Run(Sweep(plan) + Args{"--only", "nobody"} + more);
    EXPECT_EQ(finished.exit_code, 2);
    EXPECT_TRUE(Contains(finished.err,
                         "--only 'nobody' is in no cell's name; the plan's cells "
                         "are:\n  s / a\n  s / b\n"))
        << finished.err;
  }
  EXPECT_FALSE(std::filesystem::exists(folder_ + "out"));
  const Finished list = Run(Sweep(plan) + Args{"--only", "/ b", "--list"});
  EXPECT_EQ(list.exit_code, 0);
  EXPECT_EQ(std::count(list.out.begin(), list.out.end(), '\n'), 1);
  EXPECT_TRUE(Contains(list.out, "  to run      s / b\n")) << list.out;
}

// The processes whose command line has `words` one after another.
std::vector<pid_t> Running(const std::string& words) {
  std::vector<pid_t> pids;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    if (!Contains(ReadFile(entry.path().string() + "/cmdline"), words)) continue;
    pids.push_back(std::stoi(entry.path().filename()));
  }
  return pids;
}

TEST_F(BenchTest, ASweepThatWasKilledOutrightIsClearedUpByTheNext) {
  const std::string plan =
      Plan("  - name: s\n    flags: {served-model-name: sweep-marker-three}\n",
           "  - name: quick\n    flags: {num-prompts: 2, max-concurrency: 1}\n"
           "  - name: long\n    flags: {max-concurrency: 2, duration: 3, num-prompts: 2}\n");
  std::thread runner([&] { Run(Sweep(plan)); });
  const auto has_row = [&] { return Contains(ReadFile(folder_ + "out/rows.jsonl"), "\n"); };
  for (int i = 0; i < 6000 && !has_row(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  for (const pid_t pid : Running(std::string("sweep\0", 6) + plan)) kill(pid, SIGKILL);
  runner.join();
  const std::vector<pid_t> orphans = Running("sweep-marker-three");
  EXPECT_FALSE(orphans.empty());
  const Finished finished = Run(Sweep(plan));
  EXPECT_EQ(finished.exit_code, 0) << finished.err;
  EXPECT_TRUE(Contains(finished.err, "of an earlier sweep that was killed")) << finished.err;
  EXPECT_EQ(NumServers("sweep-marker-three"), 0);
  EXPECT_EQ(Rows().size(), 2u);
}

TEST_F(BenchTest, ACellWhoseRequestsFailIsFailedAndRunsAgain) {
  // One request runs and one waits: of a burst of 30, most get 429.
  const std::string plan =
      Plan("  - name: s\n    flags: {max-num-seqs: 1, max-num-waiting: 1}\n",
           "  - name: burst\n    flags: {num-prompts: 30, random-output-len: 64}\n");
  for (int i = 0; i < 2; ++i) {
    const Finished finished = Run(Sweep(plan));
    EXPECT_EQ(finished.exit_code, 1) << finished.err;
    EXPECT_TRUE(Contains(finished.err, "s / burst: failed: ")) << finished.err;
    const std::vector<json> rows = Rows();
    ASSERT_EQ(rows.size(), 1u);
    EXPECT_EQ(rows[0]["status"], "failed");
    EXPECT_TRUE(Contains(rows[0]["reason"], " of 30 requests failed (")) << rows[0]["reason"];
    EXPECT_TRUE(Contains(rows[0]["reason"], "429")) << rows[0]["reason"];
  }
}

TEST_F(BenchTest, APlansMistakesNameTheirLine) {
  const auto error = [&](const std::string& servers, const std::string& loads) {
    const Finished finished = Run(Sweep(Plan(servers, loads)));
    EXPECT_EQ(finished.exit_code, 1);
    return finished.err;
  };
  const std::string good_server = "  - name: s\n";
  const std::string good_load = "  - name: l\n";
  EXPECT_TRUE(Contains(error("  - name: s\n    flag: {}\n", good_load),
                       "plan.yaml:8: unknown key 'flag' of a server (did you mean flags?)"));
  EXPECT_TRUE(Contains(error("  - name: s\n    flags: {max-num-sequences: 3}\n", good_load),
                       "plan.yaml:7: unknown flag --max-num-sequences"));
  EXPECT_TRUE(Contains(error("  - name: s\n    flags: {max-num-seqs: none}\n", good_load),
                       "plan.yaml:7: --max-num-seqs is"));
  EXPECT_TRUE(Contains(error(good_server, "  - name: l\n    flags: {num-promts: 3}\n"),
                       "plan.yaml:9: unknown flag --num-promts (did you mean --num-prompts?)"));
  EXPECT_TRUE(Contains(error(good_server, "  - name: l\n    flags: {burstiness: 0}\n"),
                       "plan.yaml:9: --burstiness is 0"));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "out/rows.jsonl"));
}

TEST_F(BenchTest, AValueThatTheServerRefusesIsAMistakeAndNotForLater) {
  const std::string plan = Plan("  - name: s\n    flags: {max-model-len: 999999}\n",
                                "  - name: l\n    flags: {num-prompts: 1}\n");
  const Finished finished = Run(Sweep(plan));
  EXPECT_EQ(finished.exit_code, 1);
  const std::vector<json> rows = Rows();
  ASSERT_EQ(rows.size(), 1u) << finished.err;
  EXPECT_EQ(rows[0]["status"], "failed");
  EXPECT_TRUE(Contains(rows[0]["reason"], "--max-model-len")) << rows[0]["reason"];
  EXPECT_FALSE(rows[0]["identity"].contains("git"));
  EXPECT_TRUE(Contains(Run({"--version"}).out, rows[0]["identity"]["version"]));
}

TEST_F(BenchTest, ThePlansOfTheRepositoryAreWellFormed) {
  for (const char* name : {"functional", "scaling", "ablation"}) {
    const Finished finished = Run(
        {"bench", "sweep", std::string(MOEBIUS_SOURCE_DIR "/plans/") + name + ".yaml", "--list"});
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    EXPECT_GT(std::count(finished.out.begin(), finished.out.end(), '\n'), 10);
    EXPECT_TRUE(Contains(finished.out, "  cannot yet  "));
  }
}

TEST_F(BenchTest, NobodyThereIsSaid) {
  const Finished finished =
      Run({"bench", "serve", "--base-url", "http://127.0.0.1:1", "--num-prompts", "1"});
  EXPECT_EQ(finished.exit_code, 1);
  EXPECT_TRUE(Contains(finished.err, "127.0.0.1")) << finished.err;
}

TEST_F(BenchTest, FlagsThatMakeNoSenseAreNamed) {
  const auto error = [&](const Args& args) { return Run(Args{"bench", "serve"} + args).err; };
  EXPECT_TRUE(Contains(error({"--goodput", "ttft:100", "latency:3"}), "--goodput is 'latency:3'"));
  EXPECT_TRUE(Contains(error({"--percentile-metrics", "tfft"}), "'tfft', expected of ttft"));
  EXPECT_TRUE(Contains(error({"--duration", "5"}), "--duration needs"));
  EXPECT_TRUE(Contains(error({"--extra-body", "[1]"}), "expected a JSON object"));
  EXPECT_TRUE(Contains(error({"--request-rat", "5"}), "did you mean --request-rate?"));
}

}  // namespace
}  // namespace moebius
