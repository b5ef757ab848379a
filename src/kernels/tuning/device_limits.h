// What the GPU's kernels take of a model: a start refuses the rest before it reads weights.
#pragma once

#include <cstdint>

namespace moebius::kernels {

// The router (cuda/moe/held_experts.cuh): a warp has a row's experts in registers, each group in
// lanes of its own, and as many lanes as choices keep one each.
inline constexpr int64_t kMaxRouterExperts = 512;
inline constexpr int64_t kMaxRouterGroups = 32;
inline constexpr int64_t kMaxRouterChoices = 32;
inline constexpr int64_t kMaxLaneExperts = 16;

// num_groups: 1 to kMaxRouterGroups, divides num_experts.
constexpr int64_t LaneExperts(int64_t num_experts, int64_t num_groups) {
  const int64_t lanes = 32 / num_groups;
  return (num_experts / num_groups + lanes - 1) / lanes;
}

constexpr int64_t MaxGroupExperts(int64_t num_groups) {
  return kMaxLaneExperts * (32 / num_groups);
}

constexpr bool FitsRouter(int64_t num_experts, int64_t num_groups, int64_t choices) {
  return num_experts >= 1 && num_experts <= kMaxRouterExperts && num_groups >= 1 &&
         num_groups <= kMaxRouterGroups && num_experts % num_groups == 0 &&
         num_experts / num_groups <= MaxGroupExperts(num_groups) && choices >= 1 &&
         choices <= kMaxRouterChoices && choices <= num_experts;
}

// Sampling (cuda/rows/sample_row.cuh): eighths of a row lie in shared memory.
inline constexpr int64_t kMaxSampleVocab = int64_t{8} * 48 * 1024;

}  // namespace moebius::kernels
