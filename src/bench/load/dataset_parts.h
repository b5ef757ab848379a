// What the data sets are made of; each kind in its own .cc. Used by dataset.cc alone.
#pragma once

#include <random>

#include "bench/load/dataset.h"

namespace moebius::load {

using Random = std::mt19937_64;

// Prompts of `codec`'s ids, as ids or as text that encodes to about as many.
class PromptMaker {
 public:
  PromptMaker(const DatasetOptions& options, PromptCodec* codec)
      : options_(options), codec_(codec) {}

  std::vector<TokenId> DrawIds(int64_t count, Random& random) const;
  // Into `request`: ids, or their text, or words.
  Status SetPrompt(std::vector<TokenId> ids, Random& random, LoadRequest& request) const;

 private:
  const DatasetOptions& options_;
  PromptCodec* codec_;
};

Result<std::vector<LoadRequest>> MakeRandom(const DatasetOptions& options,
                                            const PromptMaker& prompts);
Result<std::vector<LoadRequest>> MakePrefixRepetition(const DatasetOptions& options,
                                                      const PromptMaker& prompts);
// Mooncake's traces: {"timestamp": ms, "input_length", "output_length", "hash_ids": [...]} a line.
Result<std::vector<LoadRequest>> ReadTrace(const DatasetOptions& options,
                                           const PromptMaker& prompts);
// All of a file's rows, in order.
Result<std::vector<LoadRequest>> ReadPromptFile(const DatasetOptions& options, PromptCodec* codec);

}  // namespace moebius::load
