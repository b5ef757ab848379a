// A sweep's plan: servers and loads, and the cells that their product makes. Read from YAML; every
// error names FILE:LINE. Plain values.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace moebius::load {

// Flags by name without dashes; values as they were written. An empty value is a switch.
using FlagList = std::vector<std::pair<std::string, std::string>>;
// "--name=value", or "--name" of a switch.
std::vector<std::string> ArgsOf(const FlagList& flags);

struct ServerSpec {
  std::string name;
  // The words before the flags; "moebius" is this program; "{port}" is where the port goes (without
  // one, --port is added). Empty: `url` is a server that runs already.
  std::vector<std::string> command;
  FlagList flags;
  std::vector<std::pair<std::string, std::string>> env;
  std::string url;
  std::vector<std::string> loads;  // names of those it gets; empty: all
  std::string not_yet;             // why it cannot run; empty: it can
  std::string where;               // FILE:LINE
};

struct LoadSpec {
  std::string name;
  FlagList flags;  // of `moebius bench serve`
  std::string not_yet;
  std::string where;
};

struct SweepPlan {
  std::string name;
  std::string about;
  int64_t repeats = 1;
  double start_timeout_sec = 120;
  double cell_timeout_sec = 600;
  double max_failed_share = 0.01;   // of a cell's requests; more, and the cell has failed
  std::vector<ServerSpec> servers;  // matrices and ablations expanded
  std::vector<LoadSpec> loads;
};

struct Cell {
  std::string name;  // "server / load", " #2" of a repeat
  size_t server = 0;
  size_t load = 0;
  int64_t repeat = 0;
  std::string hash;  // of all that decides its result, 16 hex digits
};
std::vector<Cell> CellsOf(const SweepPlan& plan);

// What is wrong with the words of a command ("serve", "--x=1"), where somebody knows.
using CheckWords = std::function<Status(const std::vector<std::string>& words)>;

Result<SweepPlan> ReadPlan(const std::string& path, const CheckWords& check);
Result<SweepPlan> ParsePlan(const std::string& text, const std::string& path,
                            const CheckWords& check);

}  // namespace moebius::load
