// The two pictures of the HTML report, as inline SVG. Inside plan/ only.
#pragma once

#include <string>
#include <vector>

#include "plan/decide.h"

namespace moebius::plan {

std::string EscapedHtml(const std::string& text);

// One bar a layout: what fills a GPU's memory, in proportion, and what stays unused.
std::string MemoryBars(const PlanInput& input, const std::vector<Estimate>& estimates);

// Both axes logarithmic. The mark of a point says its basis: a disc measured, a ring interpolated,
// a square roofline.
std::string CurveDrawing(const std::vector<Curve>& curves);

}  // namespace moebius::plan
