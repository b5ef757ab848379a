// Runs a plan: starts each server, sends each load, stops it, and writes one row a cell. What
// fails is marked and the sweep goes on; what has a finished row is skipped. One thread.
#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/load/sweep/plan_file.h"

namespace moebius::load {

struct RunnerOptions {
  std::string program;                          // this program's path
  std::string output_dir;                       // rows.jsonl, logs/ and results/ go there
  std::string only;                             // cells whose name holds it; empty: all
  bool fresh = false;                           // finished cells, too
  std::function<void(const std::string&)> say;  // a line of progress
};

enum class CellStatus { kOk, kFailed, kNotYet };
const char* CellStatusName(CellStatus status);

// A cell's outcome. `result` is the whole result file of `moebius bench serve`.
struct SweepRow {
  std::string cell;
  std::string server;
  std::string load;
  int64_t repeat = 0;
  std::string hash;
  CellStatus status = CellStatus::kOk;
  std::string reason;  // of a cell that is not ok
  std::string server_command;
  std::string bench_command;
  std::string git;  // commit of the working folder; empty: none
  std::string machine;
  std::string date;
  std::string result;  // JSON text; empty: none
};
std::string ToJsonLine(const SweepRow& row);
// Rows of a file in order; lines that are no rows (a cut last one) are left out.
std::vector<SweepRow> ReadRows(const std::string& path);

// The last row of each of the plan's cells, in the plan's order; cells without one are left out.
std::vector<SweepRow> RowsOfPlan(const SweepPlan& plan, const std::vector<SweepRow>& rows);

// Runs what has no finished row, appends to OUTPUT_DIR/rows.jsonl. kCancelled: stopped.
Status RunSweep(const SweepPlan& plan, const RunnerOptions& options, std::stop_token stop);

}  // namespace moebius::load
