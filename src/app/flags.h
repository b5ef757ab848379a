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
void AddRunFlags(CLI::App* app, RunOptions& options);
void AddChatFlags(CLI::App* app, ChatOptions& options);
void AddInspectFlags(CLI::App* app, InspectOptions& options, std::vector<std::string>& notes);
void AddBenchFlags(CLI::App* app, BenchOptions& options);
void AddPlanFlags(CLI::App* app, PlanOptions& options);  // plan_flags.cc

// What flags alone cannot say of a plan's options: missing ones and values out of range.
Status CheckPlanOptions(const PlanOptions& options);

void AddLogLevel(CLI::App* app, LogLevel& level);

// Flags of vLLM that say nothing new here (a note each), and parallel sizes, of which only 1 is
// right.
void AddVllmFlags(CLI::App* app, std::vector<std::string>& notes);

}  // namespace moebius::app
