#include "bench/load/sweep/plan_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "base/suggest.h"
#include "bench/load/sweep/plan_entries.h"

namespace moebius::load {
namespace {

// FNV-1a: any difference shows, and a plan needs no more than that.
std::string Hash(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  return fmt::format("{:016x}", hash);
}

std::string TextOf(const ServerSpec& server, const LoadSpec& load, int64_t repeat) {
  std::string text = fmt::format("{}\n{}\n{}\n", fmt::join(server.command, "\n"), server.url,
                                 fmt::join(ArgsOf(server.flags), "\n"));
  for (const auto& [name, value] : server.env) text += fmt::format("{}={}\n", name, value);
  return text + fmt::format("load\n{}\n{}", fmt::join(ArgsOf(load.flags), "\n"), repeat);
}

Status CheckNames(const SweepPlan& plan) {
  std::set<std::string> servers;
  std::set<std::string> loads;
  for (const LoadSpec& load : plan.loads) {
    if (loads.insert(load.name).second) continue;
    return MakeError(ErrorCode::kInvalidArgument, "{}: load '{}' is there twice", load.where,
                     load.name);
  }
  for (const ServerSpec& server : plan.servers) {
    if (!servers.insert(server.name).second) {
      return MakeError(ErrorCode::kInvalidArgument, "{}: server '{}' is there twice", server.where,
                       server.name);
    }
    for (const std::string& wanted : server.loads) {
      if (std::ranges::any_of(loads, [&](const std::string& load) {
            return load == wanted || load.starts_with(wanted + " ");
          })) {
        continue;
      }
      return MakeError(ErrorCode::kInvalidArgument, "{}: loads holds '{}', which is none{}",
                       server.where, wanted,
                       DidYouMean(wanted, std::vector<std::string>(loads.begin(), loads.end())));
    }
  }
  return {};
}

// What the program itself says to the words, before hours of a sweep.
Status CheckCommands(const SweepPlan& plan, const CheckWords& check) {
  if (!check) return {};
  const auto at = [](const Status& status, const std::string& where) {
    return status ? status : Status(tl::unexpected<Error>(status.error().WithContext(where)));
  };
  for (const ServerSpec& server : plan.servers) {
    if (!server.not_yet.empty() || server.command.empty() || server.command[0] != "moebius") {
      continue;
    }
    std::vector<std::string> words(server.command.begin() + 1, server.command.end());
    for (std::string& arg : ArgsOf(server.flags)) words.push_back(std::move(arg));
    MOEBIUS_TRY(at(check(words), server.where));
  }
  for (const LoadSpec& load : plan.loads) {
    if (!load.not_yet.empty()) continue;
    std::vector<std::string> words = {"bench", "serve"};
    for (std::string& arg : ArgsOf(load.flags)) words.push_back(std::move(arg));
    MOEBIUS_TRY(at(check(words), load.where));
  }
  return {};
}

Result<SweepPlan> ReadRoot(const YAML::Node& root, const PlanReader& reader) {
  MOEBIUS_TRY(reader.CheckKeys(root, "a plan",
                               {"name", "about", "repeats", "start-timeout-sec", "cell-timeout-sec",
                                "max-failed-share", "defaults", "servers", "loads"}));
  SweepPlan plan;
  MOEBIUS_ASSIGN(plan.name, reader.Text(root, "name"));
  if (plan.name.empty() || plan.name.find('/') != std::string::npos) {
    return reader.Fail(root, "name is '{}', expected a plain word", plan.name);
  }
  MOEBIUS_ASSIGN(plan.about, reader.Text(root, "about", ""));
  MOEBIUS_ASSIGN(const double repeats, reader.Number(root, "repeats", 1));
  plan.repeats = static_cast<int64_t>(repeats);
  if (plan.repeats < 1 || plan.repeats > 100) {
    return reader.Fail(root["repeats"], "repeats is {}, expected 1 to 100", repeats);
  }
  MOEBIUS_ASSIGN(plan.start_timeout_sec, reader.Number(root, "start-timeout-sec", 120));
  MOEBIUS_ASSIGN(plan.cell_timeout_sec, reader.Number(root, "cell-timeout-sec", 600));
  MOEBIUS_ASSIGN(plan.max_failed_share, reader.Share(root, "max-failed-share", 0.01));
  MOEBIUS_ASSIGN(const Defaults defaults, reader.ReadDefaults(root["defaults"]));
  for (const char* key : {"servers", "loads"}) {
    if (!root[key] || !root[key].IsSequence() || root[key].size() == 0) {
      return reader.Fail(root[key] ? root[key] : root, "{}: expected a list of at least one", key);
    }
  }
  for (const YAML::Node& node : root["servers"]) {
    MOEBIUS_TRY(reader.AddServers(node, defaults, plan.servers));
  }
  for (const YAML::Node& node : root["loads"]) {
    MOEBIUS_TRY(reader.AddLoads(node, defaults, plan.loads));
  }
  return plan;
}

}  // namespace

std::vector<std::string> ArgsOf(const FlagList& flags) {
  std::vector<std::string> args;
  for (const auto& [name, value] : flags) {
    args.push_back(value.empty() ? fmt::format("--{}", name) : fmt::format("--{}={}", name, value));
  }
  return args;
}

std::vector<Cell> CellsOf(const SweepPlan& plan) {
  std::vector<Cell> cells;
  for (size_t s = 0; s < plan.servers.size(); ++s) {
    const ServerSpec& server = plan.servers[s];
    for (size_t l = 0; l < plan.loads.size(); ++l) {
      const LoadSpec& load = plan.loads[l];
      // "serial" takes all that a matrix made of it, too.
      if (!server.loads.empty() &&
          std::ranges::none_of(server.loads, [&](const std::string& wanted) {
            return load.name == wanted || load.name.starts_with(wanted + " ");
          })) {
        continue;
      }
      for (int64_t repeat = 0; repeat < plan.repeats; ++repeat) {
        std::string name = server.name + " / " + load.name;
        if (repeat > 0) name += fmt::format(" #{}", repeat + 1);
        cells.push_back({std::move(name), s, l, repeat, Hash(TextOf(server, load, repeat))});
      }
    }
  }
  return cells;
}

Result<SweepPlan> ParsePlan(const std::string& text, const std::string& path,
                            const CheckWords& check) {
  try {
    const YAML::Node root = YAML::Load(text);
    MOEBIUS_ASSIGN(SweepPlan plan, ReadRoot(root, PlanReader(path)));
    MOEBIUS_TRY(CheckNames(plan));
    MOEBIUS_TRY(CheckCommands(plan, check));
    return plan;
  } catch (const YAML::Exception& error) {
    return MakeError(ErrorCode::kCorrupt, "{}:{}: {}", path, error.mark.line + 1, error.msg);
  }
}

Result<SweepPlan> ReadPlan(const std::string& path, const CheckWords& check) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return MakeError(ErrorCode::kNotFound, "the plan {} cannot be read", path);
  return ParsePlan(text.str(), path, check);
}

}  // namespace moebius::load
