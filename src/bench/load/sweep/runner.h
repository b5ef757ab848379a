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
  std::string version;                          // and version
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
  std::string version;  // of this program; empty: unknown
  std::string machine;
  std::string date;
  std::string result;  // JSON text; empty: none
};
std::string ToJsonLine(const SweepRow& row);
// Rows of a file in order; lines that are no rows (a cut last one) are left out.
std::vector<SweepRow> ReadRows(const std::string& path);
// All of them at once: whoever reads the file finds the old rows or the new ones.
Status WriteRows(const std::string& path, const std::vector<SweepRow>& rows);
// `row` in the place of all that `rows` has of its cell, or at the end.
void PutRow(const SweepRow& row, std::vector<SweepRow>& rows);

// "28 of 30 requests failed (28 rate_limited; the first: HTTP 429: ...)" of a result file; empty:
// no more than `max_share` of them did.
std::string TooManyFailed(const std::string& result, double max_share);

// The last row of each of the plan's cells, in the plan's order; cells without one are left out.
// One whose requests failed beyond the plan's limit is failed, whatever the limit was when it ran.
std::vector<SweepRow> RowsOfPlan(const SweepPlan& plan, const std::vector<SweepRow>& rows);

// Where a cell stands, and what the next run would do with it.
enum class CellState {
  kDone,       // left as it is
  kFailed,     // has a row, and runs again
  kToRun,      // has none
  kCannotYet,  // the plan says so, or its server did, which is asked again
};
const char* CellStateName(CellState state);  // "done", "failed", "to run", "cannot yet"
struct CellView {
  Cell cell;
  CellState state = CellState::kToRun;
  std::string reason;       // of what failed or cannot be
  bool is_planned = false;  // the plan says that it cannot be yet
};
// The plan's cells whose name holds `only`, in order. `fresh`: as if there were no finished rows.
std::vector<CellView> ViewCells(const SweepPlan& plan, const std::vector<SweepRow>& rows,
                                const std::string& only, bool fresh);
// "3 done, 5 to run, 2 cannot yet": those to run are all that the next run would try.
std::string CountCells(const std::vector<CellView>& cells);

// Runs what has no finished row and keeps OUTPUT_DIR/rows.jsonl, one row a cell. What a runner that
// was killed outright left running there is ended first. kCancelled: stopped. kUnavailable: another
// sweep writes there, or nobody can.
Status RunSweep(const SweepPlan& plan, const RunnerOptions& options, std::stop_token stop);

}  // namespace moebius::load
