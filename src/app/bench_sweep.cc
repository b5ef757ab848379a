// moebius bench sweep: a plan of servers and loads, cell by cell.
#include "app/bench_sweep.h"

#include <fmt/core.h>

#include <filesystem>
#include <fstream>

#include "app/commands.h"
#include "app/parse.h"
#include "app/standard_output.h"
#include "bench/load/sweep/report.h"
#include "bench/load/sweep/runner.h"

namespace moebius::app {
namespace {

// What this program's own parser says. A refusal of what there is not yet is no mistake of the
// plan: the server says it again, and its cells are marked.
Status CheckOwnWords(const std::vector<std::string>& words) {
  const auto line = ParseCommandLine(words);
  if (line) return {};
  const std::string& message = line.error().message();
  const bool is_mistake = message.find("unknown flag") != std::string::npos ||
                          message.find("unknown command") != std::string::npos ||
                          words.front() == "bench";
  return is_mistake ? Status(tl::unexpected<Error>(line.error())) : Status();
}

void List(const load::SweepPlan& plan, const std::string& only) {
  for (const load::Cell& cell : load::CellsOf(plan)) {
    if (cell.name.find(only) == std::string::npos) continue;
    const load::ServerSpec& server = plan.servers[cell.server];
    const load::LoadSpec& load = plan.loads[cell.load];
    const std::string& reason = server.not_yet.empty() ? load.not_yet : server.not_yet;
    fmt::print("{}  {}{}{}\n", cell.hash, cell.name, reason.empty() ? "" : "  not yet: ", reason);
  }
}

Status WriteFile(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  if (file) return {};
  return MakeError(ErrorCode::kUnavailable, "{} cannot be written", path.string());
}

Status WriteReports(const load::SweepPlan& plan, const std::filesystem::path& folder) {
  const std::vector<load::SweepRow> rows =
      load::RowsOfPlan(plan, load::ReadRows((folder / "rows.jsonl").string()));
  const std::string markdown = load::SweepMarkdown(plan, rows);
  MOEBIUS_TRY(WriteFile(folder / "report.md", markdown));
  MOEBIUS_TRY(WriteFile(folder / "report.csv", load::SweepCsv(rows)));
  MOEBIUS_TRY(WriteFile(folder / "report.html", load::SweepHtml(plan, rows)));
  fmt::print("{}\nreports: {}\n", markdown, (folder / "report.{md,csv,html}").string());
  return {};
}

}  // namespace

Result<int> BenchSweepCommand(const BenchSweepOptions& options, Interrupt& interrupt) {
  MOEBIUS_ASSIGN(const load::SweepPlan plan, load::ReadPlan(options.plan, CheckOwnWords));
  if (options.list) {
    List(plan, options.only);
    return kExitOk;
  }
  const std::filesystem::path folder = options.output_dir.empty()
                                           ? std::filesystem::path("sweeps") / plan.name
                                           : std::filesystem::path(options.output_dir);
  load::RunnerOptions runner;
  std::error_code error;
  runner.program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  runner.output_dir = folder.string();
  runner.only = options.only;
  runner.fresh = options.fresh;
  runner.say = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  const std::stop_token stop = interrupt.Begin();
  const Status status = load::RunSweep(plan, runner, stop);
  interrupt.End();
  const bool was_stopped = !status && status.error().code() == ErrorCode::kCancelled;
  if (!status && !was_stopped) return tl::unexpected<Error>(status.error());
  MOEBIUS_TRY(WriteReports(plan, folder));
  if (was_stopped) return Interrupt::kExitCode;
  // Like a test run: failed cells are seen by scripts, too.
  for (const load::SweepRow& row :
       load::RowsOfPlan(plan, load::ReadRows((folder / "rows.jsonl").string()))) {
    if (row.status == load::CellStatus::kFailed) return kExitFailure;
  }
  return kExitOk;
}

}  // namespace moebius::app
