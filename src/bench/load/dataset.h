// The requests of a run: generated, or read from files in their public formats. Nothing is
// downloaded. Made once before the run, by one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace moebius::load {

struct LoadRequest {
  std::string prompt;               // text, or
  std::vector<TokenId> prompt_ids;  // token ids
  std::string messages;             // of a chat: a JSON array; empty: one user message, the prompt
  int64_t prompt_len = 0;           // tokens as far as known before the server counts them; 0: not
  int64_t output_len = 0;           // max_tokens
  std::optional<double> arrival;    // seconds after the start, of a trace
};

// Text to tokens and back, as far as there is somebody to ask.
class PromptCodec {
 public:
  virtual ~PromptCodec() = default;
  // Ids that random prompts are drawn from; never empty.
  virtual std::span<const TokenId> ids() const = 0;
  virtual bool has_text() const = 0;  // else the two below may not be called
  virtual Result<std::vector<TokenId>> Encode(std::string_view text) = 0;
  virtual Result<std::string> Decode(std::span<const TokenId> ids) = 0;
};

struct DatasetOptions {
  // random, prefix_repetition, sharegpt, gsm8k, mmlu, alpaca_eval, custom, trace
  std::string name = "random";
  std::string path;
  int64_t num_prompts = 1000;
  uint64_t seed = 0;
  bool shuffle = true;
  bool oversample = true;  // repeat a file's rows when there are too few
  bool want_ids = true;    // of generated prompts: token ids, where there is a codec; else text
  bool chat = false;       // for chat completions, which take messages and no token ids
  std::optional<int64_t> output_len;  // instead of what the data say
  // random: a prefix that all share, and lengths from (1 - ratio) to (1 + ratio) of these.
  int64_t random_input_len = 1024;
  int64_t random_output_len = 128;
  int64_t random_prefix_len = 0;
  double random_range_ratio = 0;
  // prefix_repetition: each of the prefixes begins as many prompts.
  int64_t prefix_len = 256;
  int64_t suffix_len = 256;
  int64_t num_prefixes = 10;
  int64_t prefix_output_len = 128;
  int64_t trace_block_size = 512;  // tokens that one of a trace's hash_ids stands for
};

// Errors name the flag, or file and line. `codec` may be null: then generated prompts are words,
// about as many as tokens were asked for.
Result<std::vector<LoadRequest>> MakeDataset(const DatasetOptions& options, PromptCodec* codec);

// The names of data sets, those that need --dataset-path apart.
std::vector<std::string> GeneratedDatasets();
std::vector<std::string> FileDatasets();

}  // namespace moebius::load
