#include "bench/load/sweep/server.h"

#include <fmt/format.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

#include "bench/load/client.h"

namespace moebius::load {
namespace {

using Clock = std::chrono::steady_clock;

// A program that was asked for something it does not take ends so (as most do, ours included), be
// it a mistake or what there is not yet.
constexpr int kUsageExitCode = 2;

bool IsReady(const std::string& url) {
  ClientOptions options;
  options.base_url = url;
  const Result<int> status = ReadyStatus(options);
  return status && *status == 200;
}

tl::expected<void, Failure> WaitUntilReady(RunningServer& server, double timeout_sec,
                                           const std::stop_token& stop) {
  const auto deadline = Clock::now() + std::chrono::duration<double>(timeout_sec);
  while (!IsReady(server.url)) {
    if (server.process) {
      if (const auto code = server.process->Poll()) {
        const bool refused = *code == kUsageExitCode && IsNotYet(LastWords(server.log));
        return tl::unexpected(
            Failure{refused ? CellStatus::kNotYet : CellStatus::kFailed,
                    fmt::format("{}{}", refused ? "" : fmt::format("exit code {}: ", *code),
                                LastWords(server.log))});
      }
    }
    if (stop.stop_requested() || Clock::now() >= deadline) {
      return tl::unexpected(Failure{
          CellStatus::kFailed, fmt::format("the server was not ready within {:g} s", timeout_sec)});
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  return {};
}

}  // namespace

tl::expected<RunningServer, Failure> StartServer(const ServerSpec& spec, const ServerStart& start,
                                                 const std::stop_token& stop) {
  RunningServer server;
  server.url = ServerRoot(spec.url);
  if (spec.command.empty()) {
    if (auto ready = WaitUntilReady(server, start.timeout_sec, stop); !ready)
      return tl::unexpected(ready.error());
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
  if (words[0] == "moebius") words[0] = start.program;
  server.log = start.log;
  start.say(fmt::format("starting {}", server.command));
  std::error_code ignored;
  std::filesystem::remove(server.log,
                          ignored);  // of an earlier run, whose last words are not this one's
  auto process = Process::Start(words, spec.env, server.log);
  if (!process) return tl::unexpected(Failure{CellStatus::kFailed, process.error().message()});
  server.process.emplace(std::move(*process));
  start.started(server.process->pid());
  if (auto ready = WaitUntilReady(server, start.timeout_sec, stop); !ready)
    return tl::unexpected(ready.error());
  return server;
}

bool IsNotYet(std::string_view words) {
  return words.find(" for now") != words.npos || words.find(" not supported") != words.npos;
}

std::string ReadWholeFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::string LastWords(const std::string& path) {
  std::istringstream lines(ReadWholeFile(path));
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

}  // namespace moebius::load
