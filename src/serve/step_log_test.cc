#include "serve/step_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <thread>

namespace moebius::serve {
namespace {

using nlohmann::json;

std::string TempPath(const std::string& name) {
  return testing::TempDir() + "step_log_" + std::to_string(::getpid()) + "_" + name;
}

std::vector<json> Lines(const std::string& path) {
  std::ifstream file(path);
  std::vector<json> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(json::parse(line));
  return lines;
}

engine::StepRecord Record(int64_t step_id) {
  engine::StepRecord record;
  record.step_id = step_id;
  record.unix_time = 1700000000.25;
  record.num_prefill_tokens = 7;
  record.num_decode_tokens = 3;
  record.num_requests = 4;
  record.num_running = 4;
  record.num_waiting = 2;
  record.num_kv_blocks = 100;
  record.num_used_kv_blocks = 11;
  record.num_preemptions = 1;
  record.schedule = 1e-5;
  record.wait = 2e-3;
  record.device = 3e-3;
  record.parts = {.attention = 1e-3,
                  .dispatch = 0.25e-3,
                  .experts = 0.75e-3,
                  .combine = 0.375e-3,
                  .wait = 0.125e-3,
                  .head = 0.125e-3,
                  .sampling = 0.125e-3,
                  .other = 0.25e-3};
  return record;
}

TEST(StepLog, ALineHoldsTheRecord) {
  const std::vector<int32_t> counts = {1, 2, 3, 4, 5, 6};
  engine::StepRecord record = Record(42);
  record.expert_counts = counts;
  record.num_experts = 3;
  record.experts_per_token = 1;
  std::string line;
  AppendStepLine(record, 9, line);
  ASSERT_EQ(line.back(), '\n');
  EXPECT_EQ(json::parse(line), json({{"step", 42},
                                     {"dp_rank", 0},
                                     {"time", 1700000000.25},
                                     {"prefill_tokens", 7},
                                     {"decode_tokens", 3},
                                     {"requests", 4},
                                     {"running", 4},
                                     {"waiting", 2},
                                     {"kv_blocks", 100},
                                     {"kv_blocks_used", 11},
                                     {"preemptions", 1},
                                     {"schedule_s", 1e-5},
                                     {"wait_s", 2e-3},
                                     {"device_s", 3e-3},
                                     {"attention_s", 1e-3},
                                     {"dispatch_s", 0.25e-3},
                                     {"experts_s", 0.75e-3},
                                     {"combine_s", 0.375e-3},
                                     {"peers_s", 0.125e-3},
                                     {"other_s", 0.25e-3},
                                     {"head_s", 0.125e-3},
                                     {"sampling_s", 0.125e-3},
                                     {"dropped", 9},
                                     {"experts", {{1, 2, 3}, {4, 5, 6}}},
                                     {"effective_ratio", {1, 1}},
                                     {"effective_ratio_expected", 0.9122}}));
}

TEST(StepLog, AStepThatRanksTookTogether) {
  const std::vector<int64_t> rows = {10, 0, 3};
  engine::StepRecord record = Record(42);
  record.dp_rank = 2;
  record.exchange_mode = 2;
  record.dispatch_bytes = 4096;
  record.combine_bytes = 2048;
  record.dp_rows = rows;
  std::string text;
  AppendStepLine(record, 0, text);
  const json line = json::parse(text);
  EXPECT_EQ(line["dp_rank"], 2);
  EXPECT_EQ(line["exchange_mode"], "throughput");
  EXPECT_EQ(line["dispatch_bytes"], 4096);
  EXPECT_EQ(line["combine_bytes"], 2048);
  EXPECT_EQ(line["rank_tokens"], rows);
  EXPECT_FALSE(line.contains("experts"));
}

TEST(StepLog, HowEvenlyRanksGotIt) {
  // 5 experts on 2 ranks: 3 and 2 of them.
  const std::vector<int32_t> counts = {1, 2, 3, 1, 1, 0, 0, 0, 0, 0};
  engine::StepRecord record = Record(1);
  record.expert_counts = counts;
  record.num_experts = 5;
  record.num_expert_ranks = 2;
  record.epoch = 7;
  std::string line;
  AppendStepLine(record, 0, line);
  EXPECT_EQ(json::parse(line)["epoch"], 7);
  EXPECT_FALSE(json::parse(line).contains("rank_imbalance")) << "nobody knows that placement now";
  EXPECT_EQ(json::parse(line)["effective_ratio"], json({1, 0}));
  record.placement = std::make_shared<const moe::PlacementState>();  // in order
  line.clear();
  AppendStepLine(record, 0, line);
  EXPECT_EQ(json::parse(line)["rank_imbalance"], json({1.5, 0}));
  EXPECT_EQ(json::parse(line)["rank_balancedness"], json({0.6667, 0}));
  // Expert 2 has a copy on each.
  moe::PlacementState placement{
      .epoch = 7, .slots = {.num_slots = 6, .layers = {{0, 1, 2, 3, 4, 2}}}, .moves = {}};
  record.placement = std::make_shared<const moe::PlacementState>(placement);
  line.clear();
  AppendStepLine(record, 0, line);
  EXPECT_EQ(json::parse(line)["rank_imbalance"][0], 1.25);
}

TEST(StepLog, UncountedExpertsAreAbsent) {
  std::string line;
  AppendStepLine(Record(1), 0, line);
  EXPECT_FALSE(json::parse(line).contains("experts"));
}

TEST(StepLog, WhatWasAddedIsInTheFileAtTheEnd) {
  const std::string path = TempPath("end");
  {
    auto log = StepLog::Open(path);
    ASSERT_TRUE(log) << log.error().message();
    const engine::StepObserver observer = StepLog::Observer(*log);
    for (int step = 0; step < 500; ++step) {
      // The span dies with the call, as the engine's does.
      const std::vector<int32_t> counts = {step, step + 1};
      engine::StepRecord record = Record(step);
      record.expert_counts = counts;
      record.num_experts = 2;
      observer(record);
    }
  }
  const std::vector<json> lines = Lines(path);
  ASSERT_EQ(lines.size(), 500u);
  for (int step = 0; step < 500; ++step) {
    EXPECT_EQ(lines[step]["step"], step);
    EXPECT_EQ(lines[step]["experts"], json({{step, step + 1}}));
  }
  ::unlink(path.c_str());
}

TEST(StepLog, IsFlushedWithinASecondOrSo) {
  const std::string path = TempPath("flush");
  const auto log = StepLog::Open(path);
  ASSERT_TRUE(log);
  (*log)->Add(Record(1));
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (Lines(path).empty() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(Lines(path).size(), 1u);
  EXPECT_EQ((*log)->num_written(), 1);
  ::unlink(path.c_str());
}

// The file is a pipe that nobody reads: the writer hangs, the engine must not.
TEST(StepLog, AFullRingDropsAndCounts) {
  constexpr int kNumSteps = 20000;
  const std::string path = TempPath("pipe");
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const int reader = ::open(path.c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reader, 0);
  auto log = StepLog::Open(path, /*num_slots=*/8);
  ASSERT_TRUE(log) << log.error().message();
  for (int step = 0; step < kNumSteps; ++step) (*log)->Add(Record(step));
  EXPECT_GT((*log)->num_dropped(), 0);

  std::string read;
  std::thread drain([&] {
    ::fcntl(reader, F_SETFL, 0);
    char buffer[4096];
    for (ssize_t n = 0; (n = ::read(reader, buffer, sizeof buffer)) > 0;) read.append(buffer, n);
  });
  // What follows says how many are missing.
  while ((*log)->num_written() + (*log)->num_dropped() < kNumSteps) std::this_thread::yield();
  const int64_t num_dropped = (*log)->num_dropped();
  const int64_t num_written = (*log)->num_written();
  (*log)->Add(Record(kNumSteps));
  log->reset();
  drain.join();
  ::close(reader);
  ::unlink(path.c_str());

  std::istringstream lines(read);
  int64_t num_lines = 0;
  json last;
  for (std::string line; std::getline(lines, line); ++num_lines) last = json::parse(line);
  EXPECT_EQ(num_lines, num_written + 1);
  EXPECT_EQ(last["step"], kNumSteps);
  EXPECT_EQ(last["dropped"], num_dropped);
}

TEST(StepLog, AFullDiskIsCountedAndStopsNobody) {
  auto log = StepLog::Open("/dev/full");
  ASSERT_TRUE(log);
  for (int step = 0; step < 20000; ++step) {
    (*log)->Add(Record(step));
    if ((*log)->num_dropped() > 0) break;
    if (step % 500 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_GT((*log)->num_dropped(), 0);
}

TEST(StepLog, AFolderThatIsNotThereIsNamed) {
  const auto log = StepLog::Open("/nowhere/at/all.jsonl");
  ASSERT_FALSE(log);
  EXPECT_EQ(log.error().code(), ErrorCode::kUnavailable);
  EXPECT_EQ(log.error().message(), "--step-log /nowhere/at/all.jsonl: No such file or directory");
}

}  // namespace
}  // namespace moebius::serve
