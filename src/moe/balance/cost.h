// What a placement costs in time, predicted from loads: a rank's experts wait for whole tiles and
// for the weights of every expert that gets a row at all. Pure, and without the C library's
// functions, so that plans made by it are the same on every machine. Any thread.
#pragma once

#include <span>
#include <vector>

#include "moe/balance/policy.h"

namespace moebius::moe {

struct ExpertCost {
  double tile_rows =
      1;  // an expert's rows are rounded up to a multiple of this; at most 1: are not
  double seconds_per_row = 0;
  double seconds_per_active_expert = 0;
};

// With the time of a row as its unit, where only ratios count: the weights of an expert, so many
// bytes, are read in the time of that many rows. flops_of_row: operations that one row takes there;
// flops_per_byte: operations that the device does while it reads a byte. 0 of either: rows alone.
ExpertCost CostInRows(double expert_bytes, double flops_of_row, double flops_per_byte);

// That a slot gets a row at all of which `rows` are expected: 1 - exp(-rows).
double ProbabilityActive(double rows);

// Expected time of a slot that expects so many rows in a step.
double SlotSeconds(const ExpertCost& cost, double rows);

// By rank; a slot's rows are tokens (tokens x top_k of a step, all ranks together) x its expert's
// share of the load / its copies.
std::vector<double> RankSeconds(const ExpertCost& cost, const SlotShape& shape,
                                std::span<const double> load, std::span<const int32_t> experts,
                                double tokens);

// The step of a layer ends with its slowest rank.
double LayerSeconds(const ExpertCost& cost, const SlotShape& shape, std::span<const double> load,
                    std::span<const int32_t> experts, double tokens);

}  // namespace moebius::moe
