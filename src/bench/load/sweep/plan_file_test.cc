#include "bench/load/sweep/plan_file.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace moebius::load {
namespace {

constexpr const char* kPlan = R"(name: small
about: two servers
repeats: 2
defaults:
  command: moebius serve models/demo
  server-flags: {threads: 2, max-num-seqs: 8}
  load-flags: {dataset-name: random, num-prompts: 4}
servers:
  - name: plain
  - name: moe
    flags: {max-num-seqs: 16}
    matrix: {moe-mode: [sparse, dense]}
    loads: [closed]
  - name: wide
    not-yet: one rank for now
  - name: other
    command: [vllm, serve, X, --port, "{port}"]
    env: {A: b}
loads:
  - name: closed
    matrix: {max-concurrency: [1, 4]}
  - name: open
    flags: {request-rate: 2, goodput: ["ttft:100", "tpot:20"], save-detailed: true}
)";

SweepPlan Parse(const std::string& text) {
  auto plan = ParsePlan(text, "p.yaml", {});
  EXPECT_TRUE(plan) << plan.error().message();
  return plan.value_or(SweepPlan());
}

std::string ErrorOf(std::string text, const std::string& from = "", const std::string& to = "") {
  if (!from.empty()) text.replace(text.find(from), from.size(), to);
  const auto plan = ParsePlan(text, "p.yaml", {});
  return plan ? "" : plan.error().message();
}

TEST(Plan, TheLimitOfFailuresIsAShare) {
  EXPECT_DOUBLE_EQ(Parse(kPlan).max_failed_share, 0.01);
  EXPECT_DOUBLE_EQ(Parse(std::string("max-failed-share: 0\n") + kPlan).max_failed_share, 0);
  EXPECT_NE(ErrorOf(kPlan, "repeats: 2", "max-failed-share: 5").find("a share from 0 to 1"),
            std::string::npos);
}

TEST(Plan, CellsAreTheProduct) {
  const SweepPlan plan = Parse(kPlan);
  ASSERT_EQ(plan.servers.size(), 5u);
  EXPECT_EQ(plan.servers[1].name, "moe moe-mode=sparse");
  EXPECT_EQ(ArgsOf(plan.servers[1].flags),
            (std::vector<std::string>{"--threads=2", "--max-num-seqs=16", "--moe-mode=sparse"}));
  EXPECT_TRUE(plan.servers[4].flags.empty());  // another command's flags are its own
  EXPECT_EQ(plan.servers[4].command.back(), "{port}");
  ASSERT_EQ(plan.loads.size(), 3u);
  EXPECT_EQ(plan.loads[1].name, "closed max-concurrency=4");
  EXPECT_EQ(
      ArgsOf(plan.loads[2].flags),
      (std::vector<std::string>{"--dataset-name=random", "--num-prompts=4", "--request-rate=2",
                                "--goodput=ttft:100", "--goodput=tpot:20", "--save-detailed"}));
  // plain, wide and other get 3 loads, the two moe 2, twice each.
  const std::vector<Cell> cells = CellsOf(plan);
  EXPECT_EQ(cells.size(), 2u * (3 * 3 + 2 * 2));
  EXPECT_EQ(cells[1].name, "plain / closed max-concurrency=1 #2");
  std::vector<std::string> hashes;
  for (const Cell& cell : cells) hashes.push_back(cell.hash);
  std::sort(hashes.begin(), hashes.end());
  // `plain` and `wide` are the same words, so their cells are, too.
  EXPECT_EQ(hashes.end() - std::unique(hashes.begin(), hashes.end()), 6);
}

TEST(Plan, HashesFollowWhatDecides) {
  const auto hash = [](const std::string& text) { return CellsOf(Parse(text)).front().hash; };
  std::string changed = kPlan;
  EXPECT_EQ(hash(kPlan), hash(changed.replace(changed.find("two servers"), 3, "six")));
  EXPECT_NE(hash(kPlan), hash(changed.replace(changed.find("threads: 2"), 10, "threads: 1")));
}

TEST(Plan, AnAblationTurnsOneSwitchAtATime) {
  const SweepPlan plan = Parse(R"(name: a
defaults: {command: moebius serve models/demo}
servers:
  - name: x
    ablate:
      cache: {off: {no-enable-prefix-caching: true}}
      async: {off: {no-async-scheduling: true}}
      eplb: {on: {enable-eplb: true}, not-yet: no replicas}
loads: [{name: l}]
)");
  std::vector<std::string> names;
  for (const ServerSpec& server : plan.servers) names.push_back(server.name);
  EXPECT_EQ(names, (std::vector<std::string>{"x all-on", "x all-off", "x only-cache",
                                             "x without-cache", "x only-async", "x without-async",
                                             "x only-eplb", "x without-eplb"}));
  EXPECT_TRUE(plan.servers[0].flags.empty());
  EXPECT_EQ(plan.servers[1].flags.size(), 2u);
  EXPECT_EQ(ArgsOf(plan.servers[2].flags), std::vector<std::string>{"--no-async-scheduling"});
  EXPECT_EQ(ArgsOf(plan.servers[3].flags), std::vector<std::string>{"--no-enable-prefix-caching"});
  EXPECT_EQ(plan.servers[6].not_yet, "no replicas");
  EXPECT_EQ(plan.servers[7].not_yet, "no replicas");
}

TEST(Plan, ErrorsNameTheirLine) {
  EXPECT_EQ(ErrorOf(kPlan, "repeats: 2", "repeat: 2"),
            "p.yaml:3: unknown key 'repeat' of a plan (did you mean repeats?)");
  EXPECT_EQ(ErrorOf(kPlan, "repeats: 2", "repeats: no"),
            "p.yaml:3: repeats: expected a number above 0");
  EXPECT_EQ(ErrorOf(kPlan, "not-yet: one", "notyet: one"),
            "p.yaml:15: unknown key 'notyet' of a server (did you mean not-yet?)");
  EXPECT_EQ(ErrorOf(kPlan, "loads: [closed]", "loads: [clsed]").substr(0, 10), "p.yaml:10:");
  EXPECT_EQ(ErrorOf(kPlan, "name: moe", "name: plain matrix: 3").substr(0, 7), "p.yaml:");
  EXPECT_NE(ErrorOf(kPlan, "  - name: wide", "  - name: plain").find("there twice"),
            std::string::npos);
  EXPECT_EQ(ErrorOf(kPlan, "[1, 4]", "4").substr(0, 10), "p.yaml:21:");
  EXPECT_NE(ErrorOf("name: x\nservers: []\nloads: [{name: a}]").find("p.yaml:2: servers"),
            std::string::npos);
  EXPECT_NE(ErrorOf("a: [").find("p.yaml:"), std::string::npos);
  EXPECT_NE(ErrorOf("- 1").find("expected a plan to be a map"), std::string::npos);
}

TEST(Plan, TheProgramChecksItsOwnWords) {
  std::vector<std::vector<std::string>> seen;
  const auto plan = ParsePlan(kPlan, "p.yaml", [&](const std::vector<std::string>& words) {
    seen.push_back(words);
    if (words.back() == "--save-detailed") {
      return Status(MakeError(ErrorCode::kInvalidArgument, "unknown flag --save-detailed"));
    }
    return Status();
  });
  ASSERT_FALSE(plan);
  EXPECT_EQ(plan.error().message(), "p.yaml:22: unknown flag --save-detailed");
  EXPECT_EQ(seen.front(),
            (std::vector<std::string>{"serve", "models/demo", "--threads=2", "--max-num-seqs=8"}));
  EXPECT_EQ(seen.size(), 3u + 3);  // neither what there is not yet nor another program's
}

}  // namespace
}  // namespace moebius::load
