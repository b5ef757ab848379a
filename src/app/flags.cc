#include "app/flags.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "app/flag_kinds.h"
#include "app/parallel_flags.h"
#include "app/vllm_flags.h"

namespace moebius::app {
namespace {

Result<std::vector<TokenId>> ParseIds(const std::string& flag, const std::string& text) {
  std::vector<TokenId> ids;
  const char* at = text.data();
  const char* end = at + text.size();
  while (true) {
    TokenId id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || id < 0 || (next != end && *next != ',')) {
      return MakeError(ErrorCode::kInvalidArgument, "{} is '{}', expected token ids such as 5,6,7",
                       flag, text);
    }
    ids.push_back(id);
    if (next == end) return ids;
    at = next + 1;
  }
}

void AddModel(CLI::App* app, std::string& model) {
  // Users of vLLM also write it as a flag (and YAML files can, over which MODEL wins: it is filled
  // after the flag).
  AddText(app, "--model", model, "The same")->group("");
  app->add_option("MODEL", model, "Folder of the model in the Hugging Face layout");
}

constexpr const char* kModel = "Model";
constexpr const char* kEngine = "Engine";

// Which weights, and how they are read.
void AddLoadOptions(CLI::App* app, frontend::OpenOptions& open) {
  AddModel(app, open.model);
  AddChoice(app, "--dtype", open.dtype, {"auto", "float32", "bfloat16"},
            "Of activations; auto: the checkpoint's")
      ->group(kModel)
      ->transform([](const std::string& text) -> std::string {
        if (text == "half" || text == "float16") {
          throw CLI::ValidationError(text + " is not computed here, use bfloat16 or float32");
        }
        return text == "float" ? "float32" : text;  // vLLM's other name
      });
  AddChoice(app, "--kv-cache-dtype", open.kv_cache_dtype, {"auto", "bfloat16", "fp8"},
            "auto: as activations; fp8: what MLA caches, with a scale for each 128 numbers")
      ->group(kModel)
      ->transform([](const std::string& text) { return text == "fp8_e4m3" ? "fp8" : text; });
  AddChoice(app, "--load-format", open.load_format, {"auto", "dummy"},
            "auto: safetensors; dummy: random weights of the right shapes")
      ->group(kModel)
      ->transform([](const std::string& text) { return text == "safetensors" ? "auto" : text; });
  AddValue(
      app, "--hf-overrides", "Merged into config.json",
      [&open](const std::string& text) -> Status {
        if (!nlohmann::json::parse(text, nullptr, false).is_object()) {
          return MakeError(ErrorCode::kInvalidArgument,
                           "--hf-overrides is '{}', expected a JSON object such as "
                           "{{\"num_hidden_layers\": 4}}",
                           text);
        }
        open.hf_overrides = text;
        return {};
      },
      "JSON")
      ->group(kModel);
}

void AddDevice(CLI::App* app, frontend::OpenOptions& open) {
  AddChoice(app, "--device", open.device, {"cpu", "cuda"},
            "Where the model runs; on GPUs each rank has one")
      ->group(kEngine);
}

void AddStepTimeout(CLI::App* app, engine::EngineOptions& engine) {
  const auto take = [&engine](const std::string& text) -> Status {
    constexpr double kMostSeconds = 1e7;
    MOEBIUS_ASSIGN(const double seconds, ParseReal<double>("--step-timeout", text));
    if (!(seconds >= 0.001 && seconds <= kMostSeconds)) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--step-timeout is {}, expected seconds from 0.001 to {:.0f}", text,
                       kMostSeconds);
    }
    engine.step_timeout =
        std::chrono::round<std::chrono::milliseconds>(std::chrono::duration<double>(seconds));
    return {};
  };
  AddValue(app, "--step-timeout", "A step that takes longer has failed (default 600)", take,
           "SECONDS")
      ->group(kEngine);
}

// How the model is run, but for the device, whose flag says more where a server is planned.
void AddEngineOptions(CLI::App* app, frontend::OpenOptions& open) {
  engine::EngineOptions& engine = open.engine;
  AddText(app, "--routing", open.routing, "Of dummy weights: uniform, zipf:A or hot:F")
      ->group(kModel);
  AddChoice(app, "--moe-mode", open.moe_mode, {"sparse", "dense"},
            "dense: every token visits every expert")
      ->group(kModel);
  AddText(app, "--chat-template", open.chat_template, "File of a template instead of the folder's")
      ->group(kModel);
  // Their ranges are checked by Validate(EngineOptions).
  AddSize(app, "--max-model-len", engine.max_model_len,
          "Prompt and answer together (default, auto, -1: the model's, or what fits)")
      ->group(kEngine)
      ->transform([](const std::string& text) -> std::string {
        return text == "auto" || text == "-1" ? "0" : text;
      });
  AddNumber(app, "--block-size", engine.block_size, "Tokens of a KV block")->group(kEngine);
  AddNumber(app, "--max-num-seqs", engine.max_num_seqs, "Requests that run at once")
      ->group(kEngine);
  AddSize(app, "--max-num-batched-tokens", engine.max_num_batched_tokens, "Tokens of one step")
      ->group(kEngine);
  AddNumber(app, "--num-gpu-blocks-override,--num-kv-blocks", engine.num_kv_blocks,
            "KV blocks (default: what memory allows)")
      ->group(kEngine);
  AddSize(app, "--kv-cache-memory-bytes", engine.kv_cache_bytes,
          "Memory of the KV cache: 4G (default: what memory allows)")
      ->group(kEngine);
  AddNumber(app, "--gpu-memory-utilization", engine.memory_fraction,
            "Share of the available memory that KV cache and workspace may take")
      ->group(kEngine);
  AddFlag(app, "--enforce-eager", "On a GPU: no CUDA graphs", [&engine](bool on) {
    engine.device_graphs = !on;
  })->group(kEngine);
  AddNumber(app, "--threads", open.threads,
            "CPU threads of a rank; 0: every cpu allowed, shared out to the ranks", 0)
      ->group(kEngine);
  AddSwitch(app, "enable-prefix-caching", "", "Do not reuse the KV of equal beginnings", kEngine,
            [&engine](bool on) { engine.enable_prefix_caching = on; });
  AddNumber(app, "--prefill-interval", engine.prefill_interval,
            "Compute prompts in one of so many steps, the others stay short")
      ->group(kEngine);
  AddStepTimeout(app, engine);
  AddSwitch(app, "expert-statistics", "", "Do not count tokens by expert", kEngine,
            [&engine](bool on) { engine.expert_statistics = on; });
  AddText(app, "--trace", open.trace, "File of a trace for Perfetto or chrome://tracing")
      ->group(kEngine);
  AddSwitch(app, "async-scheduling", "", "Plan a step only when the one before is done", kEngine,
            [&engine](bool on) { engine.async_scheduling = on; });
}

// Where --stop and --stop-token-ids go: they add up.
template <typename T>
void Append(std::optional<std::vector<T>>& list, const std::vector<T>& more) {
  if (!list) list.emplace();
  list->insert(list->end(), more.begin(), more.end());
}

void AddStops(CLI::App* app, frontend::SamplingFields& sampling) {
  const auto stop = [&sampling](const std::string& text) -> Status {
    Append(sampling.stop, {text});
    return {};
  };
  AddEach(app, "--stop", "End before this text; may be given several times", stop)
      ->group("Sampling");
  const auto stop_ids = [&sampling](const std::string& text) -> Status {
    MOEBIUS_ASSIGN(const std::vector<TokenId> ids, ParseIds("--stop-token-ids", text));
    Append(sampling.stop_token_ids, ids);
    return {};
  };
  AddEach(app, "--stop-token-ids", "End after one of these tokens: 7,8", stop_ids)
      ->group("Sampling");
}

void AddSampling(CLI::App* app, GenerateOptions& options) {
  frontend::SamplingFields& sampling = options.sampling;
  const auto add = [&](const char* name, auto& target, const char* help, auto... range) {
    AddNumber(app, name, target, help, range...)->group("Sampling");
  };
  add("--max-tokens", sampling.max_tokens, "Longest answer (default 512)", 1);
  add("--min-tokens", sampling.min_tokens, "No end before that many tokens (default 0)", 0);
  add("--temperature", sampling.temperature, "0: always the most likely token (default 1)");
  add("--top-k", sampling.top_k, "Draw from the k most likely (default 0: all)", -1);
  add("--top-p", sampling.top_p, "Draw from the most likely that hold this share (default 1)");
  add("--min-p", sampling.min_p,
      "Leave out what is less likely than this times the best (default 0)");
  add("--repetition-penalty", sampling.repetition_penalty,
      "Over prompt and answer (default 1: none)");
  add("--presence-penalty", sampling.presence_penalty, "Over the answer (default 0: none)");
  add("--frequency-penalty", sampling.frequency_penalty, "Over the answer (default 0: none)");
  add("--seed", sampling.seed, "Same seed, same answer (default: a new one each time)");
  add("--logprobs", sampling.logprobs, "Log probability of each token and of the n best", 0,
      engine::kMaxLogprobs);
  AddChoice(app, "--generation-config", options.generation_config, {"auto", "vllm"},
            "auto: the folder's generation_config.json comes before the defaults named here")
      ->group("Sampling");
  const auto flag = [&](const char* name, const char* help_yes, const char* help_no,
                        std::optional<bool>& target) {
    AddSwitch(app, name, help_yes, help_no, "Sampling", [&target](bool on) { target = on; });
  };
  flag("ignore-eos", "Go on after the model's end token", "", sampling.ignore_eos);
  flag("include-stop-str-in-output", "Show the stop string too", "",
       sampling.include_stop_str_in_output);
  flag("skip-special-tokens", "", "Show special tokens", sampling.skip_special_tokens);
  AddStops(app, sampling);
  AddText(app, "--system", options.system, "System message of the conversation");
}

// A server instead of a model in this process.
void AddRemote(CLI::App* app, RemoteOptions& remote) {
  AddText(app, "--url", remote.url,
          "Ask this server of OpenAI's API instead, such as http://localhost:8000; MODEL may then "
          "name one of its models");
  AddText(app, "--api-key", remote.api_key, "The server's key (also MOEBIUS_API_KEY)");
}

}  // namespace

void AddEngineAndModel(CLI::App* app, frontend::OpenOptions& open, ParallelOptions& parallel,
                       std::vector<std::string>& notes) {
  AddTrtllmFlags(app, parallel, open, notes);
  AddLoadOptions(app, open);
  AddEngineOptions(app, open);
}

void AddRunFlags(CLI::App* app, RunOptions& options, std::vector<std::string>& notes) {
  app->footer(
      "Lines of --input-file (sampling fields are named as the flags, with _):\n"
      "  {\"id\": \"a\", \"prompt\": \"What is 2 + 3?\", \"max_tokens\": 20}\n"
      "  {\"id\": \"b\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}], "
      "\"temperature\": 0}\n"
      "OpenAI's batch lines ({\"custom_id\": ..., \"body\": {...}}) are taken, too.");
  AddEngineAndModel(app, options.open, options.parallel, notes);
  AddDevice(app, options.open);
  AddParallelFlags(app, options.parallel);
  AddSampling(app, options);
  AddText(app, "-p,--prompt", options.prompt, "The question; - reads it from standard input");
  AddValue(app, "--prompt-ids", "Token ids instead of text: 5,6,7",
           [&options](const std::string& text) -> Status {
             MOEBIUS_ASSIGN(options.prompt_ids, ParseIds("--prompt-ids", text));
             return {};
           });
  AddText(app, "--prompts-file", options.prompts_file,
          "Answer the lines of a text file one by one (# begins a comment)");
  AddText(app, "--input-file", options.input_file, "Answer the requests of a JSONL file together");
  AddText(app, "--output-file", options.output_file,
          "Where their answers go (default: standard output)");
  AddSwitch(app, "chat", "Apply the chat template (default if there is one)",
            "Continue the prompt as it stands", "Options",
            [&options](bool on) { options.chat = on; });
  AddFlag(app, "--print-ids", "The answer's token ids on the last line",
          [&options](bool on) { options.print_ids = on; });
  AddRemote(app, options.remote);
}

void AddBenchFlags(CLI::App* app, BenchOptions& options, std::vector<std::string>& notes) {
  constexpr int kMaxTokens = 1 << 24;
  constexpr int kMaxRequests = 1 << 20;
  constexpr int kMaxRepeats = 1 << 20;
  if (options.throughput) options.num_iters = 1;
  AddEngineAndModel(app, options.open, options.parallel, notes);
  AddDevice(app, options.open);
  AddParallelFlags(app, options.parallel);
  AddNumber(app, "--input-len", options.input_len, "Tokens of a prompt", 1, kMaxTokens);
  AddNumber(app, "--output-len", options.output_len, "Tokens of an answer", 1, kMaxTokens);
  AddNumber(app, "--num-iters", options.num_iters, "Measured repeats", 1, kMaxRepeats);
  AddNumber(app, "--seed", options.seed, "Of the random prompts");
  AddText(app, "--output-json", options.output_json, "Write the figures to this file");
  if (options.throughput) {
    AddNumber(app, "--num-prompts", options.num_prompts, "Requests, all submitted at once", 1,
              kMaxRequests);
  } else {
    AddNumber(app, "--batch-size", options.batch_size, "Requests of one iteration", 1,
              kMaxRequests);
    AddNumber(app, "--num-iters-warmup", options.num_iters_warmup, "Repeats before measuring", 0,
              kMaxRepeats);
  }
}

void AddChatFlags(CLI::App* app, ChatOptions& options, std::vector<std::string>& notes) {
  AddEngineAndModel(app, options.open, options.parallel, notes);
  AddDevice(app, options.open);
  AddParallelFlags(app, options.parallel);
  AddSampling(app, options);
  AddRemote(app, options.remote);
}

void AddInspectFlags(CLI::App* app, InspectOptions& options, std::vector<std::string>& notes) {
  AddLoadOptions(app, options.open);
  AddFlag(app, "--json", "As JSON", [&options](bool on) { options.json = on; });
  // A recipe's other flags, which say how a model is run.
  CLI::App engine;
  engine.set_help_flag();
  frontend::OpenOptions unused;
  ParallelOptions unused_parallel;
  AddEngineOptions(&engine, unused);
  AddDevice(&engine, unused);
  AddTrtllmFlags(&engine, unused_parallel, unused, notes);
  AddParallelFlags(&engine, unused_parallel);
  for (const CLI::Option* option : engine.get_options()) {
    std::string names;  // CLI11 names no hidden one
    for (const std::string& name : option->get_lnames()) {
      names += fmt::format("{}--{}", names.empty() ? "" : ",", name);
    }
    const auto note = [&notes, name = NameOf(names)] {
      notes.push_back(fmt::format("{} is ignored: inspect runs no engine", name));
    };
    if (option->get_items_expected_max() == 0) {
      AddFlag(app, names, "", [note](bool) { note(); })->group("");
    } else {
      AddValue(app, names, "", [note](const std::string&) -> Status {
        note();
        return {};
      })->group("");
    }
  }
}

Status CheckRemoteFlags(const CLI::App& app) {
  for (const CLI::Option* option : app.get_options()) {
    const std::string& group = option->get_group();
    const bool is_local = group == kModel || group == kEngine || group == kRanksGroup ||
                          option->check_lname("generation-config");
    if (!is_local || option->count() == 0) continue;
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} goes with a model that is loaded here, but --url asks a server, which has "
                     "its own: leave one of the two out",
                     option->get_name());
  }
  return {};
}

void AddLogLevel(CLI::App* app, LogLevel& level) {
  const std::map<std::string, LogLevel> names = {{"debug", LogLevel::kDebug},
                                                 {"info", LogLevel::kInfo},
                                                 {"warning", LogLevel::kWarning},
                                                 {"error", LogLevel::kError}};
  const auto take = [names, &level](const std::string& text) -> Status {
    const auto found = names.find(text);
    if (found == names.end()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--log-level is '{}', expected one of debug, info, warning, error", text);
    }
    level = found->second;
    return {};
  };
  AddValue(app, "--log-level", "What goes to standard error: debug, info, warning, error", take)
      ->option_text("LEVEL=warning");
}

void AddVllmFlags(CLI::App* app, std::vector<std::string>& notes, bool serves) {
  const auto has = [app](const std::string& name) {
    return app->get_option_no_throw(name) != nullptr;
  };
  for (const NeutralFlag& flag : NeutralFlags()) {
    if (has(flag.name)) continue;
    const char* why = serves && flag.server_why != nullptr ? flag.server_why : flag.why;
    const auto note = [&notes, why](const std::string& name) {
      notes.push_back(fmt::format("{} is ignored: {}", name, why));
    };
    if (flag.kind == NeutralKind::kValue) {
      AddValue(app, flag.name, "", [note, why, &flag](const std::string& text) -> Status {
        if (!IsAccepted(flag, text)) {
          return MakeError(ErrorCode::kInvalidArgument, "{} is '{}', expected one of {}: {}",
                           flag.name, text, flag.only, why);
        }
        note(flag.name);
        return {};
      })->group("");
      continue;
    }
    // A false one is one that was not given; --no-NAME is said by somebody.
    const std::string twin = "--no-" + std::string(flag.name).substr(2);
    for (const std::string& name : {std::string(flag.name), twin}) {
      AddFlag(app, name, "", [note, name](bool on) {
        if (on) note(name);
      })->group("");
    }
  }
}

}  // namespace moebius::app
