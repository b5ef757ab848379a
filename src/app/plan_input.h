// From the flags that describe a layout to what src/plan reckons with: for `moebius plan`,
// `serve --dry-run` and ranks that run. Plain functions, any thread; errors name the flag.
#pragma once

#include "app/options.h"
#include "base/result.h"
#include "plan/search.h"

namespace moebius::app {

// All but the sizes.
Result<plan::PlanInput> MakePlanInput(const PlanOptions& options, plan::Device device);

// `parallel` with the sizes that the flags name.
Result<layout::ParallelConfig> NamedLayout(const LayoutOptions& options,
                                           layout::ParallelConfig parallel);

}  // namespace moebius::app
