#include "app/eplb_cost.h"

#include <CLI/CLI.hpp>
#include <utility>

#include "app/flag_kinds.h"

namespace moebius::app {

moe::ExpertCost EplbCostFlags::Cost() const {
  return {.tile_rows = tile_rows,
          .seconds_per_row = us_per_row * 1e-6,
          .seconds_per_active_expert = us_per_active_expert * 1e-6};
}

void AddCostFlags(CLI::App* app, EplbCostFlags& flags) {
  constexpr const char* kCost = "Cost (predicted time of a step's experts, the slowest rank's)";
  AddNumber(app, "--us-per-row", flags.us_per_row, "Microseconds of one token at one expert")
      ->group(kCost);
  AddNumber(app, "--us-per-active-expert", flags.us_per_active_expert,
            "Microseconds of reading the weights of an expert that gets any token")
      ->group(kCost);
  AddNumber(app, "--tile-rows", flags.tile_rows, "Rows are rounded up to as many")->group(kCost);
  AddNumber(app, "--tokens-per-step,--tokens", flags.tokens_per_step,
            "Tokens x experts a token of a step (default: as an iteration or a window has)")
      ->group(kCost);
}

Status CheckCost(const EplbCostFlags& flags) {
  const std::pair<const char*, double> least[] = {
      {"--us-per-row", flags.us_per_row},
      {"--us-per-active-expert", flags.us_per_active_expert},
      {"--tile-rows", flags.tile_rows},
      {"--tokens-per-step", flags.tokens_per_step}};
  for (const auto& [flag, value] : least) {
    if (value >= 0 && value <= 1e9) continue;
    return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected 0 to 1e9", flag, value);
  }
  return {};
}

}  // namespace moebius::app
