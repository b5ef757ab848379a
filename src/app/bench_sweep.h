// moebius bench sweep: what its flags ask for.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace CLI {
class App;
}

namespace moebius::app {

struct BenchSweepOptions {
  std::string plan;        // YAML file
  std::string output_dir;  // empty: sweeps/ and the plan's name
  std::string only;        // cells whose name holds this; empty: all
  bool list = false;       // says what would run, and runs nothing
  bool fresh = false;      // runs finished cells again
};

// bench_sweep_flags.cc
void AddBenchSweepFlags(CLI::App* app, BenchSweepOptions& options);

}  // namespace moebius::app
