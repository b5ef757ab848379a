// Which layouts are legal, as a table: a condition, a severity, a message. Pure, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "layout/parallel_layout.h"

namespace moebius::layout {

enum class Severity : uint8_t { kInfo, kWarning, kError };
const char* SeverityName(Severity severity);

struct Finding {
  std::string rule;  // a stable short name: "heads-divisible", "ep-inactive", ...
  Severity severity = Severity::kError;
  std::string message;
};

// Every rule that speaks, errors first.
std::vector<Finding> CheckRules(const ParallelConfig& config, const ModelNumbers& model);
bool IsLegal(const std::vector<Finding>& findings);
// The same without writing messages, for searches.
bool IsLegal(const ParallelConfig& config, const ModelNumbers& model);

// Every rule there is.
struct RuleName {
  const char* name;
  Severity severity;
};
std::vector<RuleName> AllRules();

// The legal choice for the same number of GPUs (or, where none is, fewer) that changes least.
std::optional<ParallelConfig> NearestLegal(const ParallelConfig& config, const ModelNumbers& model);

// Every legal choice of TP x DP x PP = num_gpus, with and without EP where it has an effect.
std::vector<ParallelConfig> LegalConfigs(int num_gpus, int gpus_per_node,
                                         const ModelNumbers& model);

}  // namespace moebius::layout
