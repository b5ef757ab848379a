#include "plan/balance/statistics_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <utility>

#include "base/suggest.h"
#include "model/safetensors.h"

namespace moebius::plan {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMetaFile = "meta_info.json";
constexpr int64_t kMostExperts = 1 << 20;
constexpr int64_t kMostIterations = int64_t{1} << 53;

using IterationLayer = std::pair<int64_t, int>;
using Counts = std::map<IterationLayer, std::vector<int64_t>>;

template <typename T>
bool ParseAll(std::string_view text, T& value) {
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size() && value >= 0;
}

// The number of "rank<r>.safetensors"; nothing for other files, rank<r>_raw.safetensors among them.
std::optional<int> RankOf(const std::string& name) {
  constexpr std::string_view kBegin = "rank";
  constexpr std::string_view kEnd = ".safetensors";
  int rank = 0;
  if (!name.starts_with(kBegin) || !name.ends_with(kEnd) ||
      name.size() <= kBegin.size() + kEnd.size()) {
    return std::nullopt;
  }
  const std::string_view digits =
      std::string_view(name).substr(kBegin.size(), name.size() - kBegin.size() - kEnd.size());
  return ParseAll(digits, rank) ? std::optional(rank) : std::nullopt;
}

// The files of ranks by their number.
Result<std::map<int, std::string>> RankFiles(const std::string& folder) {
  std::map<int, std::string> files;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    if (const std::optional<int> rank = RankOf(name)) files[*rank] = at->path().string();
  }
  if (error) {
    return MakeError(ErrorCode::kNotFound,
                     "{}: {}, expected a folder with meta_info.json and rank<r>.safetensors",
                     folder, error.message());
  }
  if (files.empty()) {
    return MakeError(ErrorCode::kNotFound, "{}: no rank<r>.safetensors, expected one or more",
                     folder);
  }
  return files;
}

Result<IterationLayer> ParseKey(const std::string& where, const std::string& key) {
  IterationLayer parsed;
  const size_t line = key.find('_');
  if (line != std::string::npos && ParseAll(std::string_view(key).substr(0, line), parsed.first) &&
      ParseAll(std::string_view(key).substr(line + 1), parsed.second) &&
      parsed.first < kMostIterations) {
    return parsed;
  }
  return MakeError(ErrorCode::kCorrupt, "{}: key '{}', expected <iteration>_<layer> as in 100_3",
                   where, key);
}

// Adds what one rank counted.
Status AddRank(const std::string& path, int64_t num_entries, const char* what, Counts& counts) {
  MOEBIUS_ASSIGN(const auto file, model::SafetensorsFile::Open(path));
  for (const model::TensorInfo& tensor : file.tensors()) {
    MOEBIUS_ASSIGN(const IterationLayer key, ParseKey(path, tensor.name));
    if (tensor.dtype_name != "I64" || tensor.shape.size() != 1) {
      return MakeError(ErrorCode::kCorrupt, "{}: {} is {} {}, expected a vector of I64", path,
                       tensor.name, tensor.dtype_name, model::ShapeText(tensor.shape));
    }
    if (tensor.shape[0] != num_entries) {
      return MakeError(ErrorCode::kCorrupt,
                       "{}: {} has {} counts, expected {}, one {}; where balancing was on, slots "
                       "are counted: name the placement that was in use",
                       path, tensor.name, tensor.shape[0], num_entries, what);
    }
    std::vector<int64_t>& sum = counts[key];
    sum.resize(static_cast<size_t>(num_entries));
    for (size_t i = 0; i < sum.size(); ++i) {
      int64_t count = 0;
      std::memcpy(&count, file.Data(tensor) + i * sizeof(count), sizeof(count));
      if (count < 0 || count > std::numeric_limits<int64_t>::max() - sum[i]) {
        return MakeError(ErrorCode::kCorrupt, "{}: {}: count {} is {}, expected tokens", path,
                         tensor.name, i, count);
      }
      sum[i] += count;
    }
  }
  return {};
}

// Counts of slots as those of the experts in them.
Status Fold(const std::string& folder, const PlacementFile& placement, int num_experts,
            Counts& counts) {
  for (auto& [key, slots] : counts) {
    const auto assignment = placement.assignments.find(key.second);
    if (assignment == placement.assignments.end()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "{}: layer {} was counted, but the placement has none such", folder,
                       key.second);
    }
    std::vector<int64_t> experts(static_cast<size_t>(num_experts));
    for (size_t slot = 0; slot < slots.size(); ++slot) {
      const int32_t expert = assignment->second[slot];
      if (expert >= num_experts) {
        return MakeError(ErrorCode::kInvalidArgument,
                         "{}: the placement has expert {} in slot {} of layer {}, expected 0 to {}",
                         folder, expert, slot, key.second, num_experts - 1);
      }
      int64_t& sum = experts[static_cast<size_t>(expert)];
      if (slots[slot] > std::numeric_limits<int64_t>::max() - sum) {
        return MakeError(ErrorCode::kCorrupt, "{}: {}_{}: the counts of expert {} overflow", folder,
                         key.first, key.second, expert);
      }
      sum += slots[slot];
    }
    slots = std::move(experts);
  }
  return {};
}

// Every iteration from the first to the last has every layer.
Result<ExpertStatistics> Arrange(const std::string& folder, Counts counts,
                                 const ReadStatisticsOptions& options) {
  if (counts.empty()) {
    return MakeError(ErrorCode::kCorrupt, "{}: nothing was counted, expected <iteration>_<layer>",
                     folder);
  }
  ExpertStatistics statistics;
  std::set<int> layers;
  for (const auto& [key, experts] : counts) layers.insert(key.second);
  statistics.layers.assign(layers.begin(), layers.end());
  const int64_t first = counts.begin()->first.first;
  const int64_t last = counts.rbegin()->first.first;
  statistics.first_iteration = options.iter_start.value_or(first);
  const int64_t stop = options.iter_stop.value_or(last + 1);
  if (statistics.first_iteration < first || stop > last + 1 || statistics.first_iteration >= stop) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{}: iterations {} up to {} are asked for, expected some of {} up to {}",
                     folder, statistics.first_iteration, stop, first, last + 1);
  }
  // Holes first: their number is bounded by the entries, that of the iterations is not.
  int64_t expected = first;
  auto layer = statistics.layers.begin();
  for (const auto& [key, experts] : counts) {
    if (key != IterationLayer(expected, *layer)) {
      return MakeError(ErrorCode::kCorrupt,
                       "{}: {}_{} is missing: expected each of iterations {} to {} to have the "
                       "same {} layers",
                       folder, expected, *layer, first, last, layers.size());
    }
    if (++layer != statistics.layers.end()) continue;
    layer = statistics.layers.begin();
    ++expected;
  }
  if (layer != statistics.layers.begin()) {
    return MakeError(ErrorCode::kCorrupt, "{}: {}_{} is missing: iteration {} has fewer layers",
                     folder, last, *layer, last);
  }
  for (auto& [key, experts] : counts) {
    if (key.first < statistics.first_iteration || key.first >= stop) continue;
    if (key.second == statistics.layers.front()) statistics.iterations.emplace_back();
    statistics.iterations.back().push_back(std::move(experts));
  }
  return statistics;
}

Status WriteText(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (file) return {};
  return MakeError(ErrorCode::kUnavailable, "{} cannot be written", path.string());
}

std::string RankBytes(const ExpertStatistics& rank) {
  std::string header = R"({"__metadata__":{"format":"pt"})";
  std::string data;
  for (size_t i = 0; i < rank.iterations.size(); ++i) {
    for (size_t layer = 0; layer < rank.layers.size(); ++layer) {
      const std::vector<int64_t>& counts = rank.iterations[i][layer];
      const size_t num_bytes = counts.size() * sizeof(int64_t);
      header += fmt::format(R"(,"{}_{}":{{"dtype":"I64","shape":[{}],"data_offsets":[{},{}]}})",
                            rank.first_iteration + static_cast<int64_t>(i), rank.layers[layer],
                            counts.size(), data.size(), data.size() + num_bytes);
      data.append(reinterpret_cast<const char*>(counts.data()), num_bytes);
    }
  }
  header += "}";
  // The counts begin at a multiple of their size.
  header.append((8 - header.size() % 8) % 8, ' ');
  const uint64_t length = header.size();
  std::string bytes(sizeof(length), '\0');
  std::memcpy(bytes.data(), &length, sizeof(length));
  return bytes + header + data;
}

}  // namespace

Result<StatisticsMeta> ParseStatisticsMeta(const std::string& text, const std::string& where) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object()) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: no JSON object, expected {{\"num_experts\": 256, "
                     "\"num_experts_per_token\": 8}}",
                     where);
  }
  StatisticsMeta meta;
  for (const auto& [key, target] :
       {std::pair("num_experts", &meta.num_experts),
        std::pair("num_experts_per_token", &meta.num_experts_per_token)}) {
    const auto value = json.find(key);
    if (value == json.end()) {
      std::vector<std::string> there;
      for (const auto& item : json.items()) there.push_back(item.key());
      return MakeError(ErrorCode::kCorrupt, "{}: {} is missing{}", where, key,
                       DidYouMean(key, there));
    }
    if (!value->is_number_unsigned() || value->get<uint64_t>() < 1 ||
        value->get<uint64_t>() > kMostExperts) {
      return MakeError(ErrorCode::kCorrupt, "{}: {} is {}, expected 1 to {}", where, key,
                       value->dump(-1, ' ', true, nlohmann::json::error_handler_t::replace),
                       kMostExperts);
    }
    *target = value->get<int>();
  }
  if (meta.num_experts_per_token > meta.num_experts) {
    return MakeError(ErrorCode::kCorrupt,
                     "{}: num_experts_per_token is {}, expected at most num_experts, which is {}",
                     where, meta.num_experts_per_token, meta.num_experts);
  }
  return meta;
}

Result<ExpertStatistics> ReadStatistics(const std::string& folder,
                                        const ReadStatisticsOptions& options) {
  MOEBIUS_ASSIGN(const auto files, RankFiles(folder));
  const std::string meta_path = (fs::path(folder) / kMetaFile).string();
  std::ifstream meta_file(meta_path);
  std::ostringstream text;
  if (!meta_file || !(text << meta_file.rdbuf())) {
    return MakeError(ErrorCode::kNotFound, "{}: cannot be read, expected num_experts in it",
                     meta_path);
  }
  MOEBIUS_ASSIGN(const StatisticsMeta meta, ParseStatisticsMeta(text.str(), meta_path));
  const bool folds = options.placement != nullptr;
  const int num_entries = folds ? options.placement->num_slots : meta.num_experts;
  Counts counts;
  for (const auto& [rank, path] : files) {
    MOEBIUS_TRY(
        AddRank(path, num_entries, folds ? "a slot of the placement" : "an expert", counts));
  }
  if (folds) MOEBIUS_TRY(Fold(folder, *options.placement, meta.num_experts, counts));
  MOEBIUS_ASSIGN(ExpertStatistics statistics, Arrange(folder, std::move(counts), options));
  statistics.meta = meta;
  return statistics;
}

Status MakeStatisticsFolder(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error && fs::is_empty(folder, error)) return {};
  if (error) {
    return MakeError(ErrorCode::kUnavailable, "{} cannot be made: {}", folder, error.message());
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "{} holds something, expected a new folder or an empty one", folder);
}

Status WriteStatistics(const std::string& folder, std::span<const ExpertStatistics> ranks) {
  const nlohmann::ordered_json meta = {
      {"num_experts", ranks.front().meta.num_experts},
      {"num_experts_per_token", ranks.front().meta.num_experts_per_token}};
  MOEBIUS_TRY(WriteText(fs::path(folder) / kMetaFile, meta.dump() + "\n"));
  for (size_t rank = 0; rank < ranks.size(); ++rank) {
    const std::string name = fmt::format("rank{}.safetensors", rank);
    MOEBIUS_TRY(WriteText(fs::path(folder) / name, RankBytes(ranks[rank])));
  }
  return {};
}

}  // namespace moebius::plan
