// Recorded loads of experts in TensorRT-LLM's format: a folder with
//
//   meta_info.json         {"num_experts": 256, "num_experts_per_token": 8}
//   rank<r>.safetensors    int64 vectors "<iteration>_<layer>": tokens of each expert, or, where
//                          balancing was on, of each slot
//
// Layers are the model's indices; iterations follow each other without holes. Plain functions, one
// thread a folder.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "plan/balance/placement_file.h"

namespace moebius::plan {

struct StatisticsMeta {
  int num_experts = 0;
  int num_experts_per_token = 0;
};

using LayerCounts = std::vector<std::vector<int64_t>>;  // [layer][expert]

struct ExpertStatistics {
  StatisticsMeta meta;
  std::vector<int> layers;  // the model's indices, ascending
  int64_t first_iteration = 0;
  std::vector<LayerCounts> iterations;
};

struct ReadStatisticsOptions {
  // Iterations [start, stop), which must be there; none: all.
  std::optional<int64_t> iter_start = std::nullopt;
  std::optional<int64_t> iter_stop = std::nullopt;
  // The placement that counted slots belong to; null: experts were counted.
  const PlacementFile* placement = nullptr;
};

// The sum over ranks, which need not have the same layers. kNotFound: no such folder or no file of
// a rank; kCorrupt names file, key, value and what was expected.
Result<ExpertStatistics> ReadStatistics(const std::string& folder,
                                        const ReadStatisticsOptions& options = {});

Result<StatisticsMeta> ParseStatisticsMeta(const std::string& text, const std::string& where);

// Makes the folder. kInvalidArgument: it holds something, which would be summed with what is
// written.
Status MakeStatisticsFolder(const std::string& folder);
// What rank r counted is ranks[r]; the first one's meta counts.
Status WriteStatistics(const std::string& folder, std::span<const ExpertStatistics> ranks);

}  // namespace moebius::plan
