// The program: one subcommand, its exit code. 0 ok, 1 failure, 2 usage.
#include <fmt/core.h>
#include <unistd.h>

#include <exception>
#include <memory>
#include <string>
#include <system_error>
#include <variant>
#include <vector>

#include "app/commands.h"
#include "app/doctor.h"
#include "app/eplb.h"
#include "app/interrupt.h"
#include "app/parse.h"
#include "app/session.h"
#include "app/standard_output.h"
#include "base/log.h"
#include "rank/rank_process.h"

namespace moebius::app {
namespace {

struct Dispatch {
  Interrupt& interrupt;

  Result<int> operator()(const Help& help) const {
    fmt::print("{}", help.text);
    return kExitOk;
  }
  Result<int> operator()(const RunOptions& options) const { return RunCommand(options, interrupt); }
  Result<int> operator()(const ChatOptions& options) const {
    return ChatCommand(options, interrupt);
  }
  Result<int> operator()(const InspectOptions& options) const { return InspectCommand(options); }
  Result<int> operator()(const BenchOptions& options) const { return BenchCommand(options); }
  Result<int> operator()(const BenchServeOptions& options) const {
    return BenchServeCommand(options, interrupt);
  }
  Result<int> operator()(const BenchSweepOptions& options) const {
    return BenchSweepCommand(options, interrupt);
  }
  Result<int> operator()(const BenchKernelsOptions& options) const {
    return BenchKernelsCommand(options);
  }
  Result<int> operator()(const BenchExchangeOptions& options) const {
    return BenchExchangeCommand(options);
  }
  Result<int> operator()(const PlanOptions& options) const { return PlanCommand(options); }
  Result<int> operator()(const ServeOptions& options) const {
    return ServeCommand(options, interrupt);
  }
  Result<int> operator()(const std::shared_ptr<EplbVerb>& verb) const {
    return verb->Run(interrupt);
  }
  Result<int> operator()(const DoctorCommand&) const {
    MOEBIUS_TRY(RunDoctor(stdout));
    return kExitOk;
  }
};

std::vector<std::string> Environment() {
  std::vector<std::string> entries;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    entries.emplace_back(*entry);
  }
  return entries;
}

// An error that begins with a flag, or with a key of a block, is one of its value, though it took
// the model to see it; one of what a flag's file says has a colon there.
int ExitCodeOf(const Error& error) {
  const std::string& message = error.message();
  const size_t end = message.find_first_of(" :");
  const bool is_wish =
      error.code() == ErrorCode::kInvalidArgument || error.code() == ErrorCode::kUnsupported;
  const bool is_flag = message.starts_with("--") && end != std::string::npos && message[end] == ' ';
  return is_wish && (is_flag || message.starts_with("moe_config.")) ? kExitUsage : kExitFailure;
}

int Main(const std::vector<std::string>& args) {
  // A deployment's own, not in the help.
  if (!args.empty() && args[0] == rank::kRankProcessCommand) return rank::RankProcessMain(args);
  // A sweep ends the servers that it started, too.
  const bool terminate_too =
      (!args.empty() && args[0] == "serve") || (args.size() > 1 && args[1] == "sweep");
  Interrupt interrupt(terminate_too);
  const Result<CommandLine> line = ParseCommandLine(args, Environment());
  if (!line) {
    PrintError(line.error());
    return kExitUsage;
  }
  SetLogLevel(line->log_level);
  for (const std::string& note : line->notes) fmt::print(stderr, "moebius: {}\n", note);
  for (const std::string& note : line->debug_notes) LogDebug("{}", note);
  const Result<int> code = std::visit(Dispatch{interrupt}, line->command);
  if (!code) {
    PrintError(code.error());
    return ExitCodeOf(code.error());
  }
  const Status written = CheckStandardOutput();
  if (written) return *code;
  PrintError(written.error());
  return *code == kExitOk ? kExitFailure : *code;
}

}  // namespace
}  // namespace moebius::app

int main(int argc, char** argv) {
  try {
    return moebius::app::Main(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const std::system_error& error) {
    // fmt's, of more than the output's buffer holds.
    const char* where = std::ferror(stdout) != 0 ? "standard output: " : "";
    fmt::print(stderr, "moebius: error: {}{}\n", where,
               *where == '\0' ? error.what() : error.code().message());
    return moebius::app::kExitFailure;
  } catch (const std::exception& error) {
    // Ours are values; this is a library's, or no memory left.
    fmt::print(stderr, "moebius: error: {}\n", error.what());
    return moebius::app::kExitFailure;
  }
}
