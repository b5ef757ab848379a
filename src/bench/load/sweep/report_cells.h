// What a sweep's reports show of its cells. Used by report*.cc.
#pragma once

#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "bench/load/sweep/runner.h"

namespace moebius::load {

// What the tables show of a result file; NaN: not there.
struct CellFigures {
  double concurrency = NAN;
  double completed = NAN;
  double failed = NAN;
  double request_rate = NAN;
  double goodput = NAN;
  double output_rate = NAN;         // of the whole run
  double steady_output_rate = NAN;  // in the window
  bool is_steady = false;
  double ttft_p50 = NAN, ttft_p99 = NAN, tpot_p50 = NAN, itl_p99 = NAN, e2el_p50 = NAN;
  std::string flags;  // verdicts that are "flag"

  // The window's where there is one worth the name.
  double rate() const { return is_steady ? steady_output_rate : output_rate; }
};

CellFigures FiguresOf(const SweepRow& row);

std::string Shown(double value, int digits = 2);  // empty for NaN

struct Column {
  const char* name;
  std::string (*value)(const SweepRow&, const CellFigures&);
};
std::span<const Column> CommonColumns();
// And the version, where not all rows are of one.
std::vector<Column> ColumnsOf(const std::vector<SweepRow>& rows);

// The machine, the versions, the last date.
std::string Identity(const std::vector<SweepRow>& rows);

// What there is not yet, once a reason: {"tp2", "one rank for now", 6 cells}.
struct Missing {
  std::string server;
  std::string reason;
  int64_t num_cells = 0;
};
std::vector<Missing> MissingOf(const std::vector<SweepRow>& rows);

}  // namespace moebius::load
