// What the command line asks for, one struct a subcommand. Plain values: parse.cc fills them, the
// subcommands read them.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/ids.h"
#include "base/log.h"
#include "frontend/open.h"
#include "frontend/sampling_fields.h"

namespace moebius::app {

struct GenerateOptions {
  frontend::OpenOptions open;
  frontend::SamplingFields sampling;  // what the flags set
  std::string generation_config =
      "auto";          // auto: the folder's generation_config.json; vllm: neutral defaults
  std::string system;  // the system message; empty: none
};

// Exactly one of the prompts is set.
struct RunOptions : GenerateOptions {
  std::optional<std::string> prompt;
  std::optional<std::vector<TokenId>> prompt_ids;
  std::string prompts_file;
  std::string input_file;
  std::string output_file;   // of input_file; empty: standard output
  std::optional<bool> chat;  // none: with the chat template if the folder has one
  bool print_ids = false;
};

struct ChatOptions : GenerateOptions {};

struct InspectOptions {
  frontend::OpenOptions open;  // model, dtype, load_format and hf_overrides count
  bool json = false;
};

struct BenchOptions {
  frontend::OpenOptions open;
  bool throughput = false;  // else latency
  int input_len = 32;
  int output_len = 128;
  int batch_size = 8;        // latency: requests of one iteration
  int num_iters_warmup = 2;  // latency
  int num_iters = 5;
  int num_prompts = 64;  // throughput
  uint64_t seed = 0;     // of the random prompts
  std::string output_json;
};

struct DoctorCommand {};

struct Help {
  std::string text;
};

struct CommandLine {
  std::variant<Help, RunOptions, ChatOptions, InspectOptions, BenchOptions, DoctorCommand> command;
  LogLevel log_level = LogLevel::kWarning;
  // One line for each flag that was accepted and means nothing here.
  std::vector<std::string> notes;
  std::vector<std::string> debug_notes;
};

}  // namespace moebius::app
