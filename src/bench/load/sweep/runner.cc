#include "bench/load/sweep/runner.h"

#include <fmt/format.h>
#include <sys/utsname.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "bench/load/sweep/process.h"
#include "net/http_client.h"
#include "platform/cpu_features.h"

namespace moebius::load {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

// A program that was asked for something it does not take ends so (as most do, ours included).
constexpr int kUsageExitCode = 2;

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A log's last word: the last line that speaks of an error, else the last one.
std::string LastWords(const std::string& path) {
  std::istringstream lines(ReadFile(path));
  std::string last;
  std::string error;
  for (std::string line; std::getline(lines, line);) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    last = line;
    if (line.find("rror") != std::string::npos) error = line;
  }
  constexpr size_t kMostShown = 300;
  constexpr std::string_view kOurs = "moebius: error: ";
  std::string text = error.empty() ? last : error;
  if (text.starts_with(kOurs)) text.erase(0, kOurs.size());
  return text.substr(0, kMostShown);
}

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

// What the log of one part ends a cell with.
struct Failure {
  CellStatus status = CellStatus::kFailed;
  std::string reason;
};

class Runner {
 public:
  Runner(const SweepPlan& plan, const RunnerOptions& options, std::stop_token stop)
      : plan_(plan), options_(options), stop_(std::move(stop)) {}

  Status Run();

 private:
  struct RunningServer {
    std::string url;
    std::string command;
    std::string log;
    std::optional<Process> process;  // none: it ran already
  };

  std::vector<Cell> Unfinished() const;
  void RunCells(const std::vector<Cell>& cells);
  tl::expected<RunningServer, Failure> StartServer(const ServerSpec& spec);
  tl::expected<void, Failure> WaitUntilReady(RunningServer& server);
  bool IsReady(const std::string& url) const;
  void RunCell(const Cell& cell, RunningServer& server);
  tl::expected<std::string, Failure> Load(const Cell& cell, RunningServer& server, SweepRow& row);
  SweepRow RowOf(const Cell& cell) const;
  void Write(const SweepRow& row);
  std::string Path(const char* folder, const std::string& name, const char* suffix) const {
    return (fs::path(options_.output_dir) / folder / (FileName(name) + suffix)).string();
  }

  const SweepPlan& plan_;
  const RunnerOptions& options_;
  const std::stop_token stop_;
  std::string git_;
  std::string machine_;
  std::ofstream rows_;
};

std::vector<Cell> Runner::Unfinished() const {
  const std::vector<SweepRow> rows =
      options_.fresh ? std::vector<SweepRow>()
                     : ReadRows((fs::path(options_.output_dir) / "rows.jsonl").string());
  std::vector<Cell> cells = CellsOf(plan_);
  std::erase_if(cells, [&](const Cell& cell) {
    if (cell.name.find(options_.only) == std::string::npos) return true;
    return std::ranges::any_of(rows, [&](const SweepRow& row) {
      return row.cell == cell.name && row.hash == cell.hash && row.status == CellStatus::kOk;
    });
  });
  return cells;
}

SweepRow Runner::RowOf(const Cell& cell) const {
  SweepRow row;
  row.cell = cell.name;
  row.server = plan_.servers[cell.server].name;
  row.load = plan_.loads[cell.load].name;
  row.repeat = cell.repeat;
  row.hash = cell.hash;
  row.git = git_;
  row.machine = machine_;
  row.date = Now();
  return row;
}

void Runner::Write(const SweepRow& row) {
  rows_ << ToJsonLine(row) << std::endl;  // at once: a sweep may be ended at any time
  options_.say(fmt::format("{}: {}{}{}", row.cell, CellStatusName(row.status),
                           row.reason.empty() ? "" : ": ", row.reason));
}

bool Runner::IsReady(const std::string& url) const {
  net::HttpClientOptions http;
  http.base_url = url;
  http.connect_timeout = std::chrono::milliseconds(1000);
  http.total_timeout = std::chrono::milliseconds(5000);
  const auto client = net::HttpClient::Create(http);
  if (!client) return false;
  for (const char* target : {"/health/ready", "/v1/models"}) {
    net::HttpRequest request;
    request.target = target;
    const auto answer = (*client)->Fetch(std::move(request));
    if (!answer || answer->status == 200) return answer.has_value();
    if (answer->status != 404) return false;  // it knows the question, and says no
  }
  return false;
}

tl::expected<void, Failure> Runner::WaitUntilReady(RunningServer& server) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(plan_.start_timeout_sec);
  while (!IsReady(server.url)) {
    if (server.process) {
      if (const auto code = server.process->Poll()) {
        const bool refused = *code == kUsageExitCode;
        return tl::unexpected(
            Failure{refused ? CellStatus::kNotYet : CellStatus::kFailed,
                    fmt::format("{}{}", refused ? "" : fmt::format("exit code {}: ", *code),
                                LastWords(server.log))});
      }
    }
    if (stop_.stop_requested() || Clock::now() >= deadline) {
      return tl::unexpected(
          Failure{CellStatus::kFailed,
                  fmt::format("the server was not ready within {:g} s", plan_.start_timeout_sec)});
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return {};
}

tl::expected<Runner::RunningServer, Failure> Runner::StartServer(const ServerSpec& spec) {
  RunningServer server;
  server.url = spec.url;
  if (spec.command.empty()) {
    if (auto ready = WaitUntilReady(server); !ready) return tl::unexpected(ready.error());
    return server;
  }
  const auto port = FreePort();
  if (!port) return tl::unexpected(Failure{CellStatus::kFailed, port.error().message()});
  server.url = fmt::format("http://127.0.0.1:{}", *port);
  std::vector<std::string> words = spec.command;
  for (std::string& arg : ArgsOf(spec.flags)) words.push_back(std::move(arg));
  bool has_port = false;
  for (std::string& word : words) {
    const size_t at = word.find("{port}");
    if (at == std::string::npos) continue;
    word.replace(at, 6, std::to_string(*port));
    has_port = true;
  }
  if (!has_port) words.push_back(fmt::format("--port={}", *port));
  server.command = fmt::format("{}", fmt::join(words, " "));
  if (words[0] == "moebius") words[0] = options_.program;
  server.log = Path("logs", spec.name, ".server.log");
  options_.say(fmt::format("starting {}", server.command));
  std::error_code ignored;
  fs::remove(server.log, ignored);  // of an earlier run, whose last words are not this one's
  auto process = Process::Start(words, spec.env, server.log);
  if (!process) return tl::unexpected(Failure{CellStatus::kFailed, process.error().message()});
  server.process.emplace(std::move(*process));
  if (auto ready = WaitUntilReady(server); !ready) return tl::unexpected(ready.error());
  return server;
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
  return ReadFile(result);
}

void Runner::RunCell(const Cell& cell, RunningServer& server) {
  SweepRow row = RowOf(cell);
  row.server_command = server.command;
  auto result = Load(cell, server, row);
  if (stop_.stop_requested()) return;  // no verdict: it runs the next time
  if (result) {
    row.result = std::move(*result);
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
      auto started = StartServer(spec);
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
  const std::string path = (fs::path(options_.output_dir) / "rows.jsonl").string();
  const std::vector<Cell> cells = Unfinished();
  const bool is_cut = [&] {
    const std::string text = ReadFile(path);
    return !text.empty() && text.back() != '\n';
  }();
  rows_.open(path, std::ios::app);
  if (!rows_) return MakeError(ErrorCode::kUnavailable, "{} cannot be written", path);
  if (is_cut) rows_ << "\n";
  git_ = OutputOf({"git", "rev-parse", "--short=12", "HEAD"});
  machine_ = Machine();
  for (size_t at = 0; at < cells.size() && !stop_.stop_requested();) {
    std::vector<Cell> of_server;
    const size_t server = cells[at].server;
    while (at < cells.size() && cells[at].server == server) of_server.push_back(cells[at++]);
    RunCells(of_server);
  }
  if (!rows_) return MakeError(ErrorCode::kUnavailable, "{} could not be written", path);
  if (stop_.stop_requested()) return MakeError(ErrorCode::kCancelled, "the sweep was stopped");
  return {};
}

}  // namespace

Status RunSweep(const SweepPlan& plan, const RunnerOptions& options, std::stop_token stop) {
  return Runner(plan, options, std::move(stop)).Run();
}

}  // namespace moebius::load
