// Flags of moebius eplb that say what time the experts of a step take. Used by the main thread.
#pragma once

#include "base/result.h"
#include "moe/balance/cost.h"

namespace CLI {
class App;
}

namespace moebius::app {

struct EplbCostFlags {
  double us_per_row = 0;
  double us_per_active_expert = 0;
  double tile_rows = 1;
  double tokens_per_step = 0;  // times experts a token; 0: as a window of the loads has

  bool is_given() const { return us_per_row > 0 || us_per_active_expert > 0; }
  moe::ExpertCost Cost() const;
};

void AddCostFlags(CLI::App* app, EplbCostFlags& flags);
// kInvalidArgument names the flag.
Status CheckCost(const EplbCostFlags& flags);

}  // namespace moebius::app
