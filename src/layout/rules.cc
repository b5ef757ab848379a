#include "layout/rules.h"

#include <algorithm>
#include <array>

#include "layout/rules_table.h"

namespace moebius::layout {
namespace {

void Ask(std::span<const Rule> rules, const RuleInput& in, std::vector<Finding>& findings) {
  for (const Rule& rule : rules) {
    if (rule.speaks(in)) findings.push_back({rule.name, rule.severity, rule.message(in)});
  }
}

bool Breaks(std::span<const Rule> rules, const RuleInput& in) {
  return std::any_of(rules.begin(), rules.end(), [&](const Rule& rule) {
    return rule.severity == Severity::kError && rule.speaks(in);
  });
}

std::array<std::span<const Rule>, 4> Families() {
  return {SizeRules(), ExpertRules(), BackendRules(), MachineRules()};
}

}  // namespace

const char* SeverityName(Severity severity) {
  switch (severity) {
    case Severity::kInfo:
      return "info";
    case Severity::kWarning:
      return "warning";
    case Severity::kError:
      return "error";
  }
  return "unknown";
}

std::vector<Finding> CheckRules(const ParallelConfig& config, const ModelNumbers& model) {
  const RuleInput in{config, model};
  std::vector<Finding> findings;
  Ask(RangeRules(), in, findings);
  if (!findings.empty()) return findings;
  for (const std::span<const Rule> rules : Families()) Ask(rules, in, findings);
  std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
    return static_cast<int>(a.severity) > static_cast<int>(b.severity);
  });
  return findings;
}

bool IsLegal(const std::vector<Finding>& findings) {
  return std::none_of(findings.begin(), findings.end(),
                      [](const Finding& finding) { return finding.severity == Severity::kError; });
}

bool IsLegal(const ParallelConfig& config, const ModelNumbers& model) {
  const RuleInput in{config, model};
  if (Breaks(RangeRules(), in)) return false;
  for (const std::span<const Rule> rules : Families()) {
    if (Breaks(rules, in)) return false;
  }
  return true;
}

std::vector<RuleName> AllRules() {
  std::vector<RuleName> names;
  for (const Rule& rule : RangeRules()) names.push_back({rule.name, rule.severity});
  for (const std::span<const Rule> rules : Families()) {
    for (const Rule& rule : rules) names.push_back({rule.name, rule.severity});
  }
  return names;
}

}  // namespace moebius::layout
