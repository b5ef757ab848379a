// A sweep as tables and one page. Plain functions, any thread.
#pragma once

#include <string>
#include <vector>

#include "bench/load/sweep/runner.h"

namespace moebius::load {

std::string SweepMarkdown(const SweepPlan& plan, const std::vector<SweepRow>& rows);
std::string SweepCsv(const std::vector<SweepRow>& rows);
std::string SweepHtml(const SweepPlan& plan, const std::vector<SweepRow>& rows);

}  // namespace moebius::load
