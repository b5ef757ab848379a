// Questions to CLI11's tree of subcommands and flags, and better words for what does not fit it.
// Plain functions; one thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace CLI {
class App;
}

namespace moebius::app {

// The flags of `app` that are not hidden.
std::vector<std::string> FlagNames(const CLI::App& app);

// Where the words of a command, which are known, lead in the tree.
CLI::App* FindCommand(CLI::App& main, const std::vector<std::string>& words);

// Of `app` or any of its subcommands.
bool HasFlag(const CLI::App& app, const std::string& flag);

// What the parse of `app` has left over.
Status CheckLeftOver(const CLI::App& app);

// The first word that names no subcommand, before CLI11 takes it for something else.
Status CheckCommandWord(const CLI::App& app, const std::vector<std::string>& args, size_t at);

// A flag that wants a value and has none, or another flag: CLI11 takes whatever comes next, and
// names no flag that is hidden. What really is to begin like a flag is joined by '='.
Status CheckValues(const CLI::App& app, const std::vector<std::string>& args);

}  // namespace moebius::app
