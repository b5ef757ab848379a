#include "app/flags.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <functional>
#include <map>
#include <utility>

#include "app/vllm_flags.h"

namespace moebius::app {
namespace {

std::vector<TokenId> ParseIds(const std::string& flag, const std::string& text) {
  std::vector<TokenId> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    TokenId id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0 || (next != end && *next != ',')) {
      throw CLI::ValidationError(
          flag, "'" + text + "' is no list of token ids, expected numbers like 5,6,7");
    }
    ids.push_back(id);
    if (next == end) return ids;
    at = next + 1;
  }
}

// An option whose last occurrence counts: the command line wins over --config.
template <typename T>
CLI::Option* Add(CLI::App* app, const std::string& name, T& target, const std::string& help) {
  return app->add_option(name, target, help)->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

void AddModel(CLI::App* app, std::string& model) {
  app->add_option("MODEL", model, "Folder of the model in the Hugging Face layout");
  // Users of vLLM also write it as a flag (and YAML files can).
  Add(app, "--model", model, "The same")->group("");
}

// A flag that counts at once, so that the last of several wins.
CLI::Option* AddFlag(CLI::App* app, const std::string& name, std::function<void()> set,
                     const std::string& help = "") {
  return app->add_flag_callback(name, std::move(set), help)->trigger_on_parse();
}

// What is on unless --no-NAME turns it off.
void AddSwitch(CLI::App* app, const std::string& name, bool& target, const std::string& help) {
  AddFlag(app, "--" + name, [&target] { target = true; })->group("");
  AddFlag(app, "--no-" + name, [&target] { target = false; }, help)->group("Model and engine");
}

// Which weights, and how they are read.
void AddLoadOptions(CLI::App* app, frontend::OpenOptions& open) {
  const auto choice = [&](const char* name, std::string& target, std::vector<std::string> values,
                          const char* help) {
    Add(app, name, target, help)
        ->check(CLI::IsMember(std::move(values)))
        ->group("Model and engine");
  };
  choice("--dtype", open.dtype, {"auto", "float32", "bfloat16"},
         "Of activations; auto: the checkpoint's");
  choice("--load-format", open.load_format, {"auto", "dummy"},
         "dummy: random weights of the right shapes");
  Add(app, "--hf-overrides", open.hf_overrides, "JSON merged into config.json")
      ->group("Model and engine");
}

void AddOpenOptions(CLI::App* app, frontend::OpenOptions& open) {
  AddModel(app, open.model);
  AddLoadOptions(app, open);
  engine::EngineOptions& engine = open.engine;
  const auto add = [&](const char* name, auto& target, const char* help) {
    return Add(app, name, target, help)->group("Model and engine");
  };
  add("--routing", open.routing, "Of dummy weights: uniform or zipf:A");
  add("--moe-mode", open.moe_mode, "dense: every token visits every expert")
      ->check(CLI::IsMember({"sparse", "dense"}));
  add("--max-model-len", engine.max_model_len,
      "Prompt and answer together (default: the model's, or what fits)");
  add("--block-size", engine.block_size, "Tokens of a KV block");
  add("--max-num-seqs", engine.max_num_seqs, "Requests that run at once");
  add("--max-num-batched-tokens", engine.max_num_batched_tokens, "Tokens of one step");
  add("--num-gpu-blocks-override,--num-kv-blocks", engine.num_kv_blocks,
      "KV blocks, instead of what memory allows");
  add("--kv-cache-memory-bytes", engine.kv_cache_bytes, "Memory of the KV cache");
  add("--threads", open.threads, "CPU threads (default: every cpu allowed)");
  AddSwitch(app, "enable-prefix-caching", engine.enable_prefix_caching,
            "Do not reuse the KV of equal beginnings");
  AddSwitch(app, "async-scheduling", engine.async_scheduling,
            "Plan a step only when the one before is done");
}

void AddSampling(CLI::App* app, GenerateOptions& options) {
  frontend::SamplingFields& sampling = options.sampling;
  const auto add = [&](const char* name, auto& target, const char* help) {
    Add(app, name, target, help)->group("Sampling");
  };
  add("--max-tokens", sampling.max_tokens, "Longest answer (default 512)");
  add("--min-tokens", sampling.min_tokens, "No end before that many tokens");
  add("--temperature", sampling.temperature, "0: always the most likely token");
  add("--top-k", sampling.top_k, "Draw from the k most likely; 0: all");
  add("--top-p", sampling.top_p, "Draw from the most likely that hold this share");
  add("--min-p", sampling.min_p, "Leave out what is less likely than this times the best");
  add("--repetition-penalty", sampling.repetition_penalty, "Over prompt and answer; 1: none");
  add("--presence-penalty", sampling.presence_penalty, "Over the answer; 0: none");
  add("--frequency-penalty", sampling.frequency_penalty, "Over the answer; 0: none");
  add("--seed", sampling.seed, "Same seed, same answer");
  add("--logprobs", sampling.logprobs, "Log probability of each token and of the n best");
  Add(app, "--generation-config", options.generation_config,
      "Sampling defaults of the folder's generation_config.json; vllm: none of them")
      ->check(CLI::IsMember({"auto", "vllm"}))
      ->group("Sampling");
  const auto flag = [&](const char* name, std::optional<bool>& target, bool value,
                        const char* help) {
    app->add_flag_callback(name, [&target, value] { target = value; }, help)->group("Sampling");
  };
  flag("--ignore-eos", sampling.ignore_eos, true, "Go on after the model's end token");
  flag("--include-stop-str-in-output", sampling.include_stop_str_in_output, true,
       "Show the stop string too");
  flag("--no-skip-special-tokens", sampling.skip_special_tokens, false, "Show special tokens");
  app->add_option_function<std::string>(
         "--stop",
         [&sampling](const std::string& text) {
           if (!sampling.stop) sampling.stop.emplace();
           sampling.stop->push_back(text);
         },
         "End before this text; may be given several times")
      ->trigger_on_parse()
      ->group("Sampling");
  app->add_option_function<std::string>(
         "--stop-token-ids",
         [&sampling](const std::string& text) {
           const std::vector<TokenId> ids = ParseIds("--stop-token-ids", text);
           if (!sampling.stop_token_ids) sampling.stop_token_ids.emplace();
           sampling.stop_token_ids->insert(sampling.stop_token_ids->end(), ids.begin(), ids.end());
         },
         "End after one of these tokens: 7,8")
      ->trigger_on_parse()
      ->group("Sampling");
  Add(app, "--system", options.system, "System message of the conversation");
}

}  // namespace

void AddRunFlags(CLI::App* app, RunOptions& options) {
  AddOpenOptions(app, options.open);
  AddSampling(app, options);
  Add(app, "-p,--prompt", options.prompt, "The question; - reads it from standard input");
  app->add_option_function<std::string>(
         "--prompt-ids",
         [&options](const std::string& text) {
           options.prompt_ids = ParseIds("--prompt-ids", text);
         },
         "Token ids instead of text: 5,6,7")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  Add(app, "--prompts-file", options.prompts_file,
      "Answer the lines of a text file one by one (# begins a comment)");
  Add(app, "--input-file", options.input_file, "Answer the requests of a JSONL file together");
  Add(app, "--output-file", options.output_file,
      "Where their answers go (default: standard output)");
  AddFlag(
      app, "--chat", [&options] { options.chat = true; },
      "Apply the chat template (default if there is one)");
  AddFlag(
      app, "--no-chat", [&options] { options.chat = false; }, "Continue the prompt as it stands");
  app->add_flag("--print-ids", options.print_ids, "The answer's token ids on the last line");
}

void AddBenchFlags(CLI::App* app, BenchOptions& options) {
  AddOpenOptions(app, options.open);
  Add(app, "--input-len", options.input_len, "Tokens of a prompt");
  Add(app, "--output-len", options.output_len, "Tokens of an answer");
  Add(app, "--num-iters", options.num_iters, "Measured repeats");
  Add(app, "--seed", options.seed, "Of the random prompts");
  Add(app, "--output-json", options.output_json, "Write the figures to this file");
  if (options.throughput) {
    Add(app, "--num-prompts", options.num_prompts, "Requests, all submitted at once");
    options.num_iters = 1;
  } else {
    Add(app, "--batch-size", options.batch_size, "Requests of one iteration");
    Add(app, "--num-iters-warmup", options.num_iters_warmup, "Repeats before measuring");
  }
}

void AddChatFlags(CLI::App* app, ChatOptions& options) {
  AddOpenOptions(app, options.open);
  AddSampling(app, options);
}

void AddInspectFlags(CLI::App* app, InspectOptions& options) {
  AddModel(app, options.open.model);
  AddLoadOptions(app, options.open);
  app->add_flag("--json", options.json, "As JSON");
}

void AddLogLevel(CLI::App* app, LogLevel& level) {
  const std::map<std::string, LogLevel> names = {{"debug", LogLevel::kDebug},
                                                 {"info", LogLevel::kInfo},
                                                 {"warning", LogLevel::kWarning},
                                                 {"error", LogLevel::kError}};
  app->add_option("--log-level", level, "What goes to standard error: debug, info, warning, error")
      ->transform(CLI::CheckedTransformer(names))
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->option_text("LEVEL");
}

void AddVllmFlags(CLI::App* app, std::vector<std::string>& notes) {
  for (const NeutralFlag& flag : NeutralFlags()) {
    const auto note = [&notes, &flag] {
      notes.push_back(fmt::format("{} is ignored: {}", flag.name, flag.why));
    };
    if (flag.takes_value) {
      app->add_option_function<std::string>(flag.name, [note](const std::string&) { note(); })
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
          ->group("");
    } else {
      app->add_flag_callback(flag.name, note)->group("");
    }
  }
  for (const char* name : ParallelFlags()) {
    app->add_option_function<int>(
           name,
           [name](int size) {
             if (size == 1) return;
             throw CLI::ValidationError(
                 name,
                 fmt::format("is {}, but this build runs one rank for now: expected 1", size));
           })
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
        ->group("");
  }
}

}  // namespace moebius::app
