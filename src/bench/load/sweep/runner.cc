#include "bench/load/sweep/runner.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <thread>

#include "bench/load/sweep/process.h"
#include "bench/load/sweep/running_list.h"
#include "bench/load/sweep/server.h"
#include "platform/cpu_features.h"

namespace moebius::load {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string FileName(const std::string& text) {
  std::string name = text;
  for (char& c : name) {
    const bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                          (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '=';
    if (!is_plain) c = '_';
  }
  return name;
}

std::string Machine() {
  utsname system{};
  uname(&system);
  return fmt::format("{}, {} cpus, {} {}", platform::DetectCpu().model,
                     std::thread::hardware_concurrency(), system.sysname, system.release);
}

std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

class Runner {
 public:
  Runner(const SweepPlan& plan, const RunnerOptions& options, std::stop_token stop)
      : plan_(plan), options_(options), stop_(std::move(stop)) {}

  Status Run();

 private:
  std::vector<Cell> Unfinished();
  void RunCells(const std::vector<Cell>& cells);
  void RunCell(const Cell& cell, RunningServer& server);
  tl::expected<std::string, Failure> Load(const Cell& cell, RunningServer& server, SweepRow& row);
  SweepRow RowOf(const Cell& cell) const;
  void Write(const SweepRow& row);
  std::string RowsPath() const { return (fs::path(options_.output_dir) / "rows.jsonl").string(); }
  std::string Path(const char* folder, const std::string& name, const char* suffix) const {
    return (fs::path(options_.output_dir) / folder / (FileName(name) + suffix)).string();
  }

  const SweepPlan& plan_;
  const RunnerOptions& options_;
  const std::stop_token stop_;
  std::string machine_;
  std::vector<SweepRow> rows_;
  Status written_;  // the first failure to
  std::optional<RunningList> running_;
};

// What is to be run, and rows for what cannot be; said.
std::vector<Cell> Runner::Unfinished() {
  const std::vector<CellView> views = ViewCells(plan_, rows_, options_.only, options_.fresh);
  options_.say(fmt::format("{}: {}", plan_.name, CountCells(views)));
  std::vector<Cell> cells;
  for (const CellView& view : views) {
    if (view.state != CellState::kDone) cells.push_back(view.cell);
  }
  return cells;
}

SweepRow Runner::RowOf(const Cell& cell) const {
  SweepRow row;
  row.cell = cell.name;
  row.server = plan_.servers[cell.server].name;
  row.load = plan_.loads[cell.load].name;
  row.repeat = cell.repeat;
  row.hash = cell.hash;
  row.version = options_.version;
  row.machine = machine_;
  row.date = Now();
  return row;
}

void Runner::Write(const SweepRow& row) {
  PutRow(row, rows_);  // and out at once: a sweep may be ended at any time
  if (Status status = WriteRows(RowsPath(), rows_); !status && written_) written_ = status;
  options_.say(fmt::format("{}: {}{}{}", row.cell, CellStatusName(row.status),
                           row.reason.empty() ? "" : ": ", row.reason));
}

tl::expected<std::string, Failure> Runner::Load(const Cell& cell, RunningServer& server,
                                                SweepRow& row) {
  const std::string result = Path("results", cell.name, ".json");
  const std::string log = Path("logs", cell.name, ".bench.log");
  std::error_code ignored;
  fs::remove(result, ignored);
  fs::remove(log, ignored);
  std::vector<std::string> words = {"moebius", "bench", "serve"};
  const FlagList& flags = plan_.loads[cell.load].flags;
  // Prompts of an earlier cell may be in the server's cache, so each has its own.
  const bool has_seed = std::ranges::any_of(flags, [](const auto& f) { return f.first == "seed"; });
  if (!has_seed) {
    words.push_back(fmt::format("--seed={}", std::stoull(cell.hash.substr(0, 7), nullptr, 16)));
  }
  for (std::string& arg : ArgsOf(flags)) words.push_back(std::move(arg));
  row.bench_command = fmt::format("{}", fmt::join(words, " "));
  words[0] = options_.program;
  words.push_back("--base-url=" + server.url);
  words.push_back("--save-result");
  words.push_back("--result-filename=" + result);
  auto process = Process::Start(words, {}, log);
  if (!process) return tl::unexpected(Failure{CellStatus::kFailed, process.error().message()});
  running_->Note("bench", process->pid());
  const auto deadline = Clock::now() + std::chrono::duration<double>(plan_.cell_timeout_sec);
  while (!process->Wait(std::chrono::milliseconds(100))) {
    if (!stop_.stop_requested() && Clock::now() < deadline) continue;
    process->Kill();
    return tl::unexpected(Failure{
        CellStatus::kFailed, stop_.stop_requested()
                                 ? std::string("stopped")
                                 : fmt::format("not done within {:g} s", plan_.cell_timeout_sec)});
  }
  if (server.process && server.process->Poll()) {
    return tl::unexpected(
        Failure{CellStatus::kFailed, fmt::format("the server ended (exit code {}): {}",
                                                 *server.process->Poll(), LastWords(server.log))});
  }
  if (*process->Poll() != 0) {
    return tl::unexpected(Failure{CellStatus::kFailed, fmt::format("bench: {}", LastWords(log))});
  }
  return ReadWholeFile(result);
}

void Runner::RunCell(const Cell& cell, RunningServer& server) {
  SweepRow row = RowOf(cell);
  row.server_command = server.command;
  auto result = Load(cell, server, row);
  if (stop_.stop_requested()) return;  // no verdict: it runs the next time
  if (result) {
    row.result = std::move(*result);
    row.reason = TooManyFailed(row.result, plan_.max_failed_share);
    if (!row.reason.empty()) row.status = CellStatus::kFailed;
  } else {
    row.status = result.error().status;
    row.reason = result.error().reason;
  }
  Write(row);
}

// All cells of one server, which are one after another.
void Runner::RunCells(const std::vector<Cell>& cells) {
  const ServerSpec& spec = plan_.servers[cells.front().server];
  std::optional<RunningServer> server;
  std::optional<Failure> cannot_start;  // the same for all of them
  for (const Cell& cell : cells) {
    if (stop_.stop_requested()) return;
    SweepRow row = RowOf(cell);
    row.status = CellStatus::kNotYet;
    row.reason = spec.not_yet.empty() ? plan_.loads[cell.load].not_yet : spec.not_yet;
    if (!row.reason.empty()) {
      Write(row);
      continue;
    }
    if (server && server->process && server->process->Poll()) server.reset();
    if (!server && !cannot_start) {
      ServerStart start{options_.program, Path("logs", spec.name, ".server.log"),
                        plan_.start_timeout_sec, options_.say,
                        [this](pid_t pid) { running_->Note("server", pid); }};
      auto started = StartServer(spec, start, stop_);
      if (stop_.stop_requested()) return;
      if (started) {
        server.emplace(std::move(*started));
      } else {
        cannot_start = started.error();
      }
    }
    if (server) {
      RunCell(cell, *server);
      continue;
    }
    row.status = cannot_start->status;
    row.reason = cannot_start->reason;
    Write(row);
  }
}

Status Runner::Run() {
  std::error_code error;
  for (const char* folder : {"logs", "results"}) {
    fs::create_directories(fs::path(options_.output_dir) / folder, error);
  }
  MOEBIUS_ASSIGN(RunningList running,
                 RunningList::Take((fs::path(options_.output_dir) / "running").string()));
  running_.emplace(std::move(running));
  if (running_->num_ended() > 0) {
    options_.say(
        fmt::format("ended {} of an earlier sweep that was killed", running_->num_ended()));
  }
  for (const SweepRow& row : ReadRows(RowsPath())) PutRow(row, rows_);
  MOEBIUS_TRY(WriteRows(RowsPath(), rows_));  // or nobody need measure
  const std::vector<Cell> cells = Unfinished();
  machine_ = Machine();
  for (size_t at = 0; at < cells.size() && !stop_.stop_requested();) {
    std::vector<Cell> of_server;
    const size_t server = cells[at].server;
    while (at < cells.size() && cells[at].server == server) of_server.push_back(cells[at++]);
    RunCells(of_server);
  }
  MOEBIUS_TRY(written_);
  if (stop_.stop_requested()) return MakeError(ErrorCode::kCancelled, "the sweep was stopped");
  return {};
}

}  // namespace

Status RunSweep(const SweepPlan& plan, const RunnerOptions& options, std::stop_token stop) {
  return Runner(plan, options, std::move(stop)).Run();
}

}  // namespace moebius::load
