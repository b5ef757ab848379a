// moebius bench kernels | exchange: parts of the engine alone. A result that is not right is an
// error, after all rows.
#include <fmt/core.h>

#include <optional>

#include "app/bench_micro.h"
#include "app/commands.h"
#include "app/output_file.h"
#include "app/standard_output.h"

namespace moebius::app {
namespace {

// bench(json): whether all was right.
template <typename Bench>
Result<int> RunMicroBench(const std::string& path, const Bench& bench) {
  std::optional<OutputFile> file;
  if (!path.empty()) {
    MOEBIUS_ASSIGN(file, OutputFile::Open("--json", path));
  }
  MOEBIUS_ASSIGN(const bool right, bench(file ? file->Begin() : nullptr));
  FlushStandardOutput();
  if (file) MOEBIUS_TRY(file->Finish());
  if (right) return kExitOk;
  return MakeError(ErrorCode::kInternal, "some results are wrong: see the rows that say so");
}

Status CheckOnce(const std::string& device, bool once) {
  if (!once || device == "cuda") return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "--once is of GPUs, expected --device cuda with it");
}

}  // namespace

Result<int> BenchKernelsCommand(const BenchKernelsOptions& options) {
  MOEBIUS_TRY(CheckOnce(options.device, options.bench.once));
  return RunMicroBench(options.json, [&](std::FILE* json) {
    return options.device == "cuda" ? bench::BenchDeviceKernels(options.bench, json)
                                    : bench::BenchKernels(options.bench, json);
  });
}

Result<int> BenchExchangeCommand(const BenchExchangeOptions& options) {
  MOEBIUS_TRY(CheckOnce(options.device, options.bench.once));
  return RunMicroBench(options.json, [&](std::FILE* json) {
    return options.device == "cuda" ? bench::BenchDeviceExchange(options.bench, json)
                                    : bench::BenchExchange(options.bench, json);
  });
}

}  // namespace moebius::app
