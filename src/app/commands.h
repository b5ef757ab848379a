// The subcommands. Each runs on the main thread, prints its answer to standard output and gives the
// exit code, or the error that main prints.
#pragma once

#include "app/interrupt.h"
#include "app/options.h"
#include "base/result.h"

namespace moebius::app {

constexpr int kExitOk = 0;
constexpr int kExitFailure = 1;
constexpr int kExitUsage = 2;

Result<int> RunCommand(const RunOptions& options, Interrupt& interrupt);
Result<int> RunBatch(const RunOptions& options, Interrupt& interrupt);  // run --input-file
Result<int> ChatCommand(const ChatOptions& options, Interrupt& interrupt);
Result<int> InspectCommand(const InspectOptions& options);
Result<int> BenchCommand(const BenchOptions& options);
Result<int> BenchServeCommand(const BenchServeOptions& options, Interrupt& interrupt);
Result<int> BenchSweepCommand(const BenchSweepOptions& options, Interrupt& interrupt);
Result<int> BenchKernelsCommand(const BenchKernelsOptions& options);
Result<int> BenchExchangeCommand(const BenchExchangeOptions& options);
Result<int> PlanCommand(const PlanOptions& options);
Result<int> ServeCommand(const ServeOptions& options, Interrupt& interrupt);
Result<int> DryRun(const ServeOptions& options);  // serve --dry-run

}  // namespace moebius::app
