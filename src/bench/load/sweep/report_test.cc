#include "bench/load/sweep/report.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "bench/load/rows.h"

namespace moebius::load {
namespace {

SweepRow Row(const std::string& load, int64_t repeat, double rate, double tpot) {
  SweepRow row;
  row.server = "a|b";
  row.load = load;
  row.repeat = repeat;
  row.cell = "a|b / " + load + (repeat > 0 ? " #" + std::to_string(repeat + 1) : "");
  row.hash = "0123456789abcdef";
  row.result = fmt::format(
      R"({{"max_concurrency": 4, "completed": 8, "failed": 0, "request_throughput": 2,
         "request_goodput": {}, "output_throughput": {},
         "moebius": {{"steady": {{"is_steady": true, "output_throughput": {}, "drift_verdict": "flag"}},
                      "latencies_ms": {{"tpot": {{"p50": {}}}}}}}}})",
      tpot < 15 ? 1.9 : 0.1, rate, rate, tpot);
  return row;
}

SweepRow NotYet() {
  SweepRow row;
  row.server = "c";
  row.load = "l";
  row.cell = "c / l";
  row.status = CellStatus::kNotYet;
  row.reason = "one rank, for now";
  return row;
}

std::vector<SweepRow> Rows() {
  return {Row("x", 0, 100, 10), Row("x", 1, 110, 10), Row("x", 2, 120, 10),
          Row("y max-concurrency=4", 0, 300, 20), NotYet()};
}

TEST(SweepReport, MarkdownShowsCellsRepeatsAndTheBestWithinLimits) {
  SweepPlan plan;
  plan.name = "p";
  const std::string text = SweepMarkdown(plan, Rows());
  EXPECT_NE(text.find("| a\\|b / x | ok | 8 | 0 | 2.00 |"), std::string::npos) << text;
  EXPECT_NE(text.find("| c | 1 | one rank, for now |"), std::string::npos);
  // Mean 110, standard deviation 10, t of two degrees 4.303: 24.8.
  EXPECT_NE(text.find("| a\\|b / x | 3 | 110.0 | +-24.8 |"), std::string::npos) << text;
  // y has more tokens, but its requests miss the limits.
  EXPECT_NE(text.find("| a\\|b | 120.0 | x |"), std::string::npos) << text;
}

TEST(SweepReport, WhatIsNotThereLeavesNoBlankLines) {
  SweepPlan plan;
  plan.name = "p";
  EXPECT_EQ(SweepMarkdown(plan, Rows()).find("\n\n\n"), std::string::npos);
  plan.about = "about";
  EXPECT_EQ(SweepMarkdown(plan, Rows()).find("# Sweep p\n\nabout\n\n"), 0u);
  EXPECT_EQ(SweepMarkdown(plan, {}).find("\n\n\n"), std::string::npos);
  EXPECT_NE(SweepMarkdown(plan, Rows(), "Interrupted: 1").find("\n\nInterrupted: 1\n\n"),
            std::string::npos);
  EXPECT_NE(SweepHtml(plan, Rows(), "a<b").find("<b>a&lt;b</b>"), std::string::npos);
}

TEST(SweepReport, VersionsThatDifferAreShownByRow) {
  std::vector<SweepRow> rows = Rows();
  for (SweepRow& row : rows) row.version = "aaa";
  EXPECT_EQ(SweepMarkdown({}, rows).find("| version |"), std::string::npos);
  EXPECT_NE(SweepMarkdown({}, rows).find("; moebius aaa;"), std::string::npos);
  rows[3].version = "bbb";
  const std::string text = SweepMarkdown({}, rows);
  EXPECT_NE(text.find("| version |"), std::string::npos);
  EXPECT_NE(text.find("; moebius aaa, bbb;"), std::string::npos);
  EXPECT_NE(text.find("| bbb |"), std::string::npos);
  EXPECT_NE(SweepHtml({}, rows).find("bbb</td>"), std::string::npos);
}

TEST(SweepRows, ACellWhoseRequestsFailedHasFailed) {
  const std::string result = R"({"completed": 2, "failed": 28, "moebius": {"first_error":
      "HTTP 429: full", "outcomes": {"ok": 2, "rate_limited": 28, "timeout": 0}}})";
  EXPECT_EQ(TooManyFailed(result, 0.01),
            "28 of 30 requests failed (28 rate_limited; the first: HTTP 429: full)");
  EXPECT_EQ(TooManyFailed(result, 0.95), "");
  EXPECT_EQ(TooManyFailed(R"({"completed": 99, "failed": 1})", 0.01), "");
  EXPECT_EQ(TooManyFailed(R"({"completed": 99, "failed": 2})", 0.01), "2 of 101 requests failed");

  SweepPlan plan;
  plan.servers.emplace_back().name = "s";
  plan.loads.emplace_back().name = "l";
  SweepRow row;
  row.cell = CellsOf(plan).front().name;
  row.hash = CellsOf(plan).front().hash;
  row.result = result;
  ASSERT_EQ(RowsOfPlan(plan, {row}).size(), 1u);
  EXPECT_EQ(RowsOfPlan(plan, {row})[0].status, CellStatus::kFailed);
  EXPECT_EQ(RowsOfPlan(plan, {row})[0].reason.find("28 of 30"), 0u);
  plan.max_failed_share = 1;
  EXPECT_EQ(RowsOfPlan(plan, {row})[0].status, CellStatus::kOk);
}

TEST(SweepCells, EachStandsWhereItsRowOrThePlanSays) {
  SweepPlan plan;
  plan.servers.resize(2);
  plan.servers[0].name = "s";
  plan.servers[1].name = "planned";
  plan.servers[1].not_yet = "later";
  plan.loads.resize(4);
  for (size_t i = 0; i < 4; ++i) plan.loads[i].name = std::string(1, static_cast<char>('a' + i));
  std::vector<SweepRow> rows;
  for (const CellStatus status : {CellStatus::kOk, CellStatus::kFailed, CellStatus::kNotYet}) {
    const Cell cell = CellsOf(plan)[rows.size()];
    SweepRow& row = rows.emplace_back();
    row.cell = cell.name;
    row.hash = cell.hash;
    row.status = status;
    row.reason = status == CellStatus::kOk ? "" : "why";
  }
  const auto states = [&](const std::string& only, bool fresh) {
    std::string text;
    for (const CellView& view : ViewCells(plan, rows, only, fresh)) {
      text += std::string(CellStateName(view.state)) + (view.reason.empty() ? "" : ": ") +
              view.reason + "\n";
    }
    return text;
  };
  EXPECT_EQ(states("s /", false), "done\nfailed: why\ncannot yet: why\nto run\n");
  EXPECT_EQ(states("s / a", true), "to run\n");
  EXPECT_EQ(states("planned / b", false), "cannot yet: later\n");
  EXPECT_EQ(states("nobody", false), "");
  EXPECT_EQ(CountCells(ViewCells(plan, rows, "", false)), "1 done, 3 to run, 4 cannot yet");
  EXPECT_EQ(CountCells(ViewCells(plan, rows, "s /", true)), "0 done, 4 to run");
  // A row of other words than the plan's is none.
  plan.loads[0].flags = {{"num-prompts", "3"}};
  EXPECT_EQ(states("s / a", false), "to run\n");
}

TEST(SweepRows, OneRowACell) {
  std::vector<SweepRow> rows = {Row("x", 0, 1, 10), NotYet(), Row("x", 0, 2, 10)};
  SweepRow next = Row("x", 0, 3, 10);
  next.date = "later";
  PutRow(next, rows);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].date, "later");
  PutRow(Row("y", 0, 3, 10), rows);
  ASSERT_EQ(rows.size(), 3u);
  const std::string path =
      testing::TempDir() + "moebius_rows_" + std::to_string(getpid()) + "_w.jsonl";
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(WriteRows(path, rows));
    EXPECT_EQ(ReadRows(path).size(), 3u);
  }
  EXPECT_FALSE(std::filesystem::exists(path + ".next"));
  std::filesystem::remove(path);
  EXPECT_FALSE(WriteRows("/nowhere/rows.jsonl", rows));
}

TEST(SweepReport, CsvAndHtmlAreWhole) {
  const auto rows = ParseCsv(SweepCsv(Rows()));
  ASSERT_TRUE(rows);
  ASSERT_EQ(rows->size(), 6u);
  for (const auto& row : *rows) EXPECT_EQ(row.size(), rows->front().size());
  const std::string page = SweepHtml({}, Rows());
  EXPECT_NE(page.find("<polyline"), std::string::npos);
  EXPECT_NE(page.find("one rank, for now"), std::string::npos);
  EXPECT_EQ(page.find("nan"), std::string::npos);
}

TEST(SweepRows, ComeBackAsTheyWereAndCutOnesAreLeftOut) {
  const std::string path =
      testing::TempDir() + "moebius_rows_" + std::to_string(getpid()) + ".jsonl";
  std::ofstream(path) << ToJsonLine(Row("x", 0, 100, 10)) << "\n"
                      << ToJsonLine(NotYet()) << "\n{\"cell\": \"cu";
  const std::vector<SweepRow> rows = ReadRows(path);
  std::filesystem::remove(path);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].cell, "a|b / x");
  EXPECT_EQ(rows[0].hash, "0123456789abcdef");
  EXPECT_EQ(rows[0].status, CellStatus::kOk);
  EXPECT_FALSE(rows[0].result.empty());
  EXPECT_EQ(rows[1].status, CellStatus::kNotYet);
  EXPECT_EQ(rows[1].reason, "one rank, for now");
  EXPECT_TRUE(ReadRows("/nowhere").empty());
}

}  // namespace
}  // namespace moebius::load
