// moebius bench sweep: a plan of servers and loads, cell by cell.
#include "app/bench_sweep.h"

#include <fmt/core.h>

#include <filesystem>
#include <fstream>

#include "app/commands.h"
#include "app/parse.h"
#include "app/session.h"
#include "app/standard_output.h"
#include "bench/load/sweep/report.h"
#include "bench/load/sweep/runner.h"
#include "bench/load/sweep/server.h"

namespace moebius::app {
namespace {

// What this program's own parser says. A refusal of what there is not yet is no mistake of the
// plan: the server says it again, and its cells are marked.
Status CheckOwnWords(const std::vector<std::string>& words) {
  const auto line = ParseCommandLine(words);
  if (line) return {};
  const bool is_mistake = words.front() == "bench" || !load::IsNotYet(line.error().message());
  return is_mistake ? Status(tl::unexpected<Error>(line.error())) : Status();
}

void List(const std::vector<load::CellView>& cells) {
  for (const load::CellView& view : cells) {
    fmt::print("{}  {:<10}  {}{}\n", view.cell.hash, load::CellStateName(view.state),
               view.cell.name, view.reason.empty() ? "" : fmt::format("  ({})", view.reason));
  }
}

Error NoSuchCell(const load::SweepPlan& plan, const std::string& only) {
  constexpr size_t kMostShown = 30;
  std::string known;
  const std::vector<load::Cell> cells = load::CellsOf(plan);
  for (size_t i = 0; i < cells.size() && i < kMostShown; ++i) {
    known += fmt::format("\n  {}", cells[i].name);
  }
  if (cells.size() > kMostShown) {
    known += fmt::format("\n  and {} more (--list shows them)", cells.size() - kMostShown);
  }
  return {ErrorCode::kInvalidArgument,
          fmt::format("--only '{}' is in no cell's name; the plan's cells are:{}", only, known)};
}

Status WriteFile(const std::filesystem::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  if (file) return {};
  return MakeError(ErrorCode::kUnavailable, "{} cannot be written", path.string());
}

Status WriteReports(const load::SweepPlan& plan, const std::filesystem::path& folder,
                    bool was_stopped) {
  const std::vector<load::SweepRow> all = load::ReadRows((folder / "rows.jsonl").string());
  const std::vector<load::SweepRow> rows = load::RowsOfPlan(plan, all);
  std::string state;
  if (was_stopped) {
    state = fmt::format("Interrupted: {}; the same command goes on.",
                        load::CountCells(load::ViewCells(plan, all, "", false)));
  }
  const std::string markdown = load::SweepMarkdown(plan, rows, state);
  MOEBIUS_TRY(WriteFile(folder / "report.md", markdown));
  MOEBIUS_TRY(WriteFile(folder / "report.csv", load::SweepCsv(rows)));
  MOEBIUS_TRY(WriteFile(folder / "report.html", load::SweepHtml(plan, rows, state)));
  fmt::print("{}\nreports: {}\n", markdown, (folder / "report.{md,csv,html}").string());
  return {};
}

}  // namespace

Result<int> BenchSweepCommand(const BenchSweepOptions& options, Interrupt& interrupt) {
  MOEBIUS_ASSIGN(const load::SweepPlan plan, load::ReadPlan(options.plan, CheckOwnWords));
  const std::filesystem::path folder = options.output_dir.empty()
                                           ? std::filesystem::path("sweeps") / plan.name
                                           : std::filesystem::path(options.output_dir);
  const std::vector<load::CellView> cells = load::ViewCells(
      plan, load::ReadRows((folder / "rows.jsonl").string()), options.only, options.fresh);
  if (cells.empty()) {
    PrintError(NoSuchCell(plan, options.only));
    return kExitUsage;
  }
  if (options.list) {
    List(cells);
    return kExitOk;
  }
  load::RunnerOptions runner;
  std::error_code error;
  runner.program = std::filesystem::read_symlink("/proc/self/exe", error).string();
  runner.version = MOEBIUS_VERSION;
  runner.output_dir = folder.string();
  runner.only = options.only;
  runner.fresh = options.fresh;
  runner.say = [](const std::string& line) { fmt::print(stderr, "{}\n", line); };
  const std::stop_token stop = interrupt.Begin();
  const Status status = load::RunSweep(plan, runner, stop);
  interrupt.End();
  const bool was_stopped = !status && status.error().code() == ErrorCode::kCancelled;
  if (!status && !was_stopped) return tl::unexpected<Error>(status.error());
  MOEBIUS_TRY(WriteReports(plan, folder, was_stopped));
  if (was_stopped) {
    fmt::print(stderr, "moebius: interrupted; the same command goes on\n");
    return Interrupt::kExitCode;
  }
  // Like a test run: failed cells are seen by scripts, too.
  for (const load::SweepRow& row :
       load::RowsOfPlan(plan, load::ReadRows((folder / "rows.jsonl").string()))) {
    if (row.status == load::CellStatus::kFailed) return kExitFailure;
  }
  return kExitOk;
}

}  // namespace moebius::app
