// A sweep as tables and one page. Plain functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "bench/load/sweep/runner.h"

namespace moebius::load {

// `state`: how far it came, where that is worth a line; empty: all of it ran.
std::string SweepMarkdown(const SweepPlan& plan, const std::vector<SweepRow>& rows,
                          const std::string& state = "");
std::string SweepCsv(const std::vector<SweepRow>& rows);
std::string SweepHtml(const SweepPlan& plan, const std::vector<SweepRow>& rows,
                      const std::string& state = "");

}  // namespace moebius::load
