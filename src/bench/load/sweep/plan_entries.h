// The parts of a plan file: entries of servers and loads, their matrices and ablations. Used by
// plan_file.cc alone; YAML's exceptions are caught there.
#pragma once

#include <fmt/core.h>

#include <string>
#include <vector>

#include "bench/load/sweep/plan_file.h"

namespace YAML {
class Node;
}

namespace moebius::load {

struct Defaults {
  std::vector<std::string> command;
  FlagList server_flags;
  FlagList load_flags;
  std::vector<std::pair<std::string, std::string>> env;
};

class PlanReader {
 public:
  explicit PlanReader(std::string path) : path_(std::move(path)) {}

  std::string Where(const YAML::Node& node) const;  // FILE:LINE
  template <typename... Args>
  tl::unexpected<Error> Fail(const YAML::Node& node, fmt::format_string<Args...> format,
                             Args&&... args) const {
    return MakeError(ErrorCode::kInvalidArgument, "{}: {}", Where(node),
                     fmt::format(format, std::forward<Args>(args)...));
  }

  // `node` is a map of no other keys than these.
  Status CheckKeys(const YAML::Node& node, const std::string& what,
                   const std::vector<std::string>& keys) const;
  Result<std::string> Text(const YAML::Node& map, const char* key) const;
  Result<std::string> Text(const YAML::Node& map, const char* key, const char* otherwise) const;
  Result<double> Number(const YAML::Node& map, const char* key, double otherwise) const;
  Result<double> Share(const YAML::Node& map, const char* key, double otherwise) const;

  Result<Defaults> ReadDefaults(const YAML::Node& node) const;
  // One entry is several with a `matrix` (every combination) or `ablate` (all switches on, all off,
  // each alone, all but each).
  Status AddServers(const YAML::Node& node, const Defaults& defaults,
                    std::vector<ServerSpec>& servers) const;
  Status AddLoads(const YAML::Node& node, const Defaults& defaults,
                  std::vector<LoadSpec>& loads) const;

 private:
  Result<FlagList> Flags(const YAML::Node& node) const;
  Status SetFlag(const YAML::Node& key, const YAML::Node& value, FlagList& flags) const;
  Result<std::vector<std::string>> Words(const YAML::Node& node, const char* what) const;
  Result<std::vector<std::pair<std::string, FlagList>>> Matrix(const YAML::Node& node) const;
  Status Ablate(const YAML::Node& node, const ServerSpec& base,
                std::vector<ServerSpec>& servers) const;

  std::string path_;
};

}  // namespace moebius::load
