#include "bench/load/dataset.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/suggest.h"
#include "bench/load/dataset_parts.h"

namespace moebius::load {
namespace {

// As many rows as were asked for: shuffled, repeated where there are too few.
std::vector<LoadRequest> Choose(std::vector<LoadRequest> rows, const DatasetOptions& options) {
  Random random(options.seed);
  if (options.shuffle) std::shuffle(rows.begin(), rows.end(), random);
  const auto wanted = static_cast<size_t>(options.num_prompts);
  const size_t num_rows = rows.size();
  if (num_rows >= wanted) {
    rows.resize(wanted);
  } else if (options.oversample) {
    for (size_t i = 0; rows.size() < wanted; ++i) rows.push_back(rows[i % num_rows]);
  }
  return rows;
}

Result<std::vector<LoadRequest>> MakeGenerated(const DatasetOptions& options, PromptCodec* codec) {
  if (!options.path.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--dataset-path is {}, but --dataset-name {} reads no file", options.path,
                     options.name);
  }
  const PromptMaker prompts(options, codec);
  return options.name == "random" ? MakeRandom(options, prompts)
                                  : MakePrefixRepetition(options, prompts);
}

}  // namespace

std::vector<std::string> GeneratedDatasets() { return {"random", "prefix_repetition"}; }

std::vector<std::string> FileDatasets() {
  return {"sharegpt", "gsm8k", "mmlu", "alpaca_eval", "custom", "trace"};
}

Result<std::vector<LoadRequest>> MakeDataset(const DatasetOptions& options, PromptCodec* codec) {
  std::vector<std::string> names = GeneratedDatasets();
  if (std::ranges::count(names, options.name) > 0) return MakeGenerated(options, codec);
  names = FileDatasets();
  if (std::ranges::count(names, options.name) == 0) {
    const std::vector<std::string> generated = GeneratedDatasets();
    names.insert(names.end(), generated.begin(), generated.end());
    return MakeError(ErrorCode::kInvalidArgument, "--dataset-name is '{}', expected one of {}{}",
                     options.name, fmt::join(names, ", "), DidYouMean(options.name, names));
  }
  if (options.path.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--dataset-name {} needs --dataset-path FILE (nothing is downloaded)",
                     options.name);
  }
  if (options.name == "trace") return ReadTrace(options, PromptMaker(options, codec));
  MOEBIUS_ASSIGN(std::vector<LoadRequest> rows, ReadPromptFile(options, codec));
  if (rows.empty()) {
    return MakeError(ErrorCode::kCorrupt, "{}: no row of it can be used as {}", options.path,
                     options.name);
  }
  return Choose(std::move(rows), options);
}

}  // namespace moebius::load
