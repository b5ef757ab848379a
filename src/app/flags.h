// Which flags a subcommand has and where their values go. CLI11 stays in this file's .cc,
// flag_kinds.cc and parse.cc.
#pragma once

#include <string>
#include <vector>

#include "app/options.h"
#include "base/result.h"

namespace CLI {
class App;
}

namespace moebius::app {

// Each adds its flags to `app`; the targets must outlive the parse.
void AddRunFlags(CLI::App* app, RunOptions& options, std::vector<std::string>& notes);
void AddChatFlags(CLI::App* app, ChatOptions& options, std::vector<std::string>& notes);
void AddInspectFlags(CLI::App* app, InspectOptions& options, std::vector<std::string>& notes);
void AddBenchFlags(CLI::App* app, BenchOptions& options, std::vector<std::string>& notes);
void AddPlanFlags(CLI::App* app, PlanOptions& options);  // plan_flags.cc

// serve_flags.cc
void AddServeFlags(CLI::App* app, ServeOptions& options, std::vector<std::string>& notes);

// MODEL, how it is loaded and how the engine runs it.
void AddEngineAndModel(CLI::App* app, frontend::OpenOptions& open, ParallelOptions& parallel,
                       std::vector<std::string>& notes);

// What flags alone cannot say of serve's options, into `options.open`; `notes` as of
// SettleParallel.
Status CheckServeOptions(ServeOptions& options, std::vector<std::string>& notes);

// What flags alone cannot say of a plan's options: missing ones and values out of range.
Status CheckPlanOptions(const PlanOptions& options);

// Refuses what says how a model is loaded and run: with --url that is the server's.
Status CheckRemoteFlags(const CLI::App& app);

void AddLogLevel(CLI::App* app, LogLevel& level);

// Flags of vLLM that say nothing new here (a note each), all that `app` does not have itself.
// `serves`: the notes speak to a server's user.
void AddVllmFlags(CLI::App* app, std::vector<std::string>& notes, bool serves = false);

}  // namespace moebius::app
