// The flags of `moebius bench sweep`.
#include <CLI/CLI.hpp>

#include "app/bench_sweep.h"
#include "app/flag_kinds.h"

namespace moebius::app {

void AddBenchSweepFlags(CLI::App* app, BenchSweepOptions& options) {
  app->add_option("PLAN", options.plan, "YAML file of servers, cells and flags (docs/benchmarking)")
      ->required();
  AddText(app, "--output-dir", options.output_dir,
          "Where rows, reports and logs go (default: sweeps/ and the plan's name)");
  AddText(app, "--only", options.only, "Only cells whose name holds this text");
  AddFlag(app, "--list",
          "Name the cells and where each stands (done, failed, to run, cannot yet); run nothing",
          [&options](bool on) { options.list = on; });
  AddFlag(app, "--fresh", "Run finished cells again", [&options](bool on) { options.fresh = on; });
}

}  // namespace moebius::app
