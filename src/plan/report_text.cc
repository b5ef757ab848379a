// The figures and the shares that all reports print.
#include <fmt/core.h>

#include <algorithm>

#include "plan/report_sections.h"

namespace moebius::plan {

const char* const kLegend =
    "m measured on this device, i interpolated from measurements, r roofline with assumed "
    "efficiency; memory is arithmetic";

std::string Gigabytes(double bytes) {
  const double gb = bytes / 1e9;
  if (gb > 0 && gb < 0.01) return fmt::format("{:.4f}", gb);
  return fmt::format("{:.{}f}", gb, gb >= 1000 ? 0 : gb >= 1 || gb <= -1 ? 1 : 2);
}

std::string Tokens(double count) {
  if (count >= 999.5e6) return fmt::format("{:.2f} G", count / 1e9);
  if (count >= 999.5e3) return fmt::format("{:.2f} M", count / 1e6);
  if (count >= 10e3) return fmt::format("{:.0f} k", count / 1e3);
  return fmt::format("{:.0f}", count);
}

std::string Parameters(int64_t count, int digits) {
  const auto value = static_cast<double>(count);
  if (value < 1e8) return fmt::format("{:.3g} M", value / 1e6);
  return fmt::format("{:.{}g} B", value / 1e9, digits);
}

std::string Milliseconds(double ms) {
  return fmt::format("{:.{}f}", ms, ms >= 99.95 ? 0 : ms >= 9.995 ? 1 : 2);
}

std::string Rate(double value) {
  if (value >= 99950) return fmt::format("{:.0f} k", value / 1e3);
  if (value >= 9999.5) return fmt::format("{:.1f} k", value / 1e3);
  return fmt::format("{:.{}f}", value, value >= 99.95 ? 0 : 1);
}

std::string Tagged(const std::string& figure, Basis basis) {
  return fmt::format("{} {}", figure, BasisName(basis)[0]);
}

// What overlaps (a line below zero) is taken off the collectives, which hide behind computing.
std::vector<StepShare> StepShares(const StepTime& step) {
  std::vector<StepShare> shares;
  std::vector<StepTime> parts;
  for (const OpTime& op : step.ops) {
    const std::string group = OpGroupName(op.us < 0 ? OpGroup::kCollective : op.group);
    auto share = std::find_if(shares.begin(), shares.end(),
                              [&](const StepShare& s) { return s.group == group; });
    if (share == shares.end()) {
      shares.push_back({group, 0, Basis::kMeasured});
      parts.emplace_back();
      share = shares.end() - 1;
    }
    share->us += op.us;
    parts[static_cast<size_t>(share - shares.begin())].ops.push_back(op);
  }
  for (size_t i = 0; i < shares.size(); ++i) shares[i].basis = WeakestBasis(parts[i]);
  return shares;
}

std::vector<MemoryPart> MemoryParts(const MemoryUse& memory) {
  return {{"attention", "attention", memory.attention},
          {"dense FFN", "dense_ffn", memory.dense_ffn},
          {"routed experts", "routed_experts", memory.routed_experts},
          {"redundant slots", "redundant_slots", memory.redundant_slots},
          {"shared experts", "shared_experts", memory.shared_experts},
          {"embedding, head", "embedding_and_head", memory.embedding_and_head},
          {"router, norms", "router_and_norms", memory.router_and_norms},
          {"exchange buffers", "exchange_buffers", memory.exchange_buffers},
          {"activations", "activations", memory.activations}};
}

}  // namespace moebius::plan
