// What the ranks of a model have done, as a table for people: --print-load. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "frontend/open.h"
#include "layout/parallel_layout.h"
#include "moe/placement.h"

namespace moebius::app {

struct LoadTable {
  int64_t num_moe_layers = 0;
  int64_t top_k = 0;
  std::vector<int64_t> expert_tokens;        // by expert, of all layers
  std::vector<layout::ExpertRange> experts;  // by rank; empty: not whole ones on each
  std::vector<int64_t> rows;                 // by rank: tokens of its own requests; empty: unknown
  // Where experts have other slots than one each, in order: by rank, how many slots it has and the
  // tokens that they got. `experts` is empty then.
  std::vector<int64_t> slots;
  std::vector<int64_t> slot_tokens;
  // Where experts have moved: the same tokens as the first and the last placement share them out,
  // and what that means for the busiest rank (max / mean - 1, the mean of all layers).
  struct Shares {
    std::vector<double> tokens;  // by rank
    double imbalance = 0;
  };
  std::optional<Shares> before;
  std::optional<Shares> after;
  std::optional<moe::BalanceStatus> moves;  // none: experts stay where they are
};

// By rank a line: the tokens it brought, its experts, what came to them in all and to each. Where
// experts move, a last one of that.
std::string FormatLoad(const LoadTable& table);

// Of all that the engine has done since the start. Ranks of other processes say it a moment later:
// this waits for that.
LoadTable ReadLoad(const frontend::OpenedModel& opened);
void PrintLoad(const frontend::OpenedModel& opened);  // on standard output

}  // namespace moebius::app
