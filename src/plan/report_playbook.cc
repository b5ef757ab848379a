// The playbook's memory table in a report: as printed, from true sizes, and what differs.
#include "plan/playbook_memory.h"
#include "plan/report_sections.h"

namespace moebius::plan {

std::vector<Section> PlaybookMemorySections(const PlanReport& report) {
  if (!PlaybookTableIsOf(report.input.model)) return {};
  Section printed{"Its memory table, GB a GPU, FP8 on 8 GPUs, 512 tokens, as printed",
                  {},
                  {{"layout", "non-MoE", "routed", "shared", "KV", "total", "parts add to"}, {}},
                  {}};
  Section own{"The same from the model's configuration",
              {},
              {{"layout", "non-MoE", "routed", "shared", "KV", "total without KV"}, {}},
              {}};
  for (const PlaybookRow& row : PlaybookTable()) {
    const RecomputedRow real = RecomputeRow(row, report.input.model);
    printed.grid.rows.push_back({row.layout, fmt::format("{}", row.non_moe),
                                 fmt::format("{}", row.routed), fmt::format("{}", row.shared),
                                 fmt::format("{}", row.kv), fmt::format("{}", row.printed_total),
                                 fmt::format("{:.2f}", row.Sum())});
    own.grid.rows.push_back({real.layout, fmt::format("{:.2f}", real.non_moe),
                             fmt::format("{:.2f}", real.routed), fmt::format("{:.2f}", real.shared),
                             fmt::format("{:.4f}", real.kv), fmt::format("{:.1f}", real.Total())});
  }
  Section slips{"Where the two differ", {}, {}, {}};
  for (const PlaybookSlip& slip : PlaybookSlips()) {
    slips.lines.push_back(fmt::format("Printed: {}. Correct: {}.", slip.printed, slip.correct));
  }
  return {printed, own, slips};
}

}  // namespace moebius::plan
