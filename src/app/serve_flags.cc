// The flags of `moebius serve`. Names are vLLM's where vLLM has the thing.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>

#include "app/flag_kinds.h"
#include "app/flags.h"
#include "app/vllm_flags.h"
#include "layout/parallel_layout.h"
#include "text/unicode.h"

namespace moebius::app {
namespace {

constexpr const char* kServer = "Server";
constexpr const char* kLayout = "Layout (of --dry-run; one rank serves for now)";
constexpr double kMostSeconds = 1e7;

// Several values behind one flag, or the flag several times, or a JSON list, which CLI11 takes
// apart at its commas.
void AddList(CLI::App* app, const std::string& name, std::vector<std::string>& target,
             const std::string& help) {
  const auto take = [&target](const std::vector<std::string>& values) {
    for (std::string value : values) {
      value = CLI::detail::trim_copy(value);
      if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
        value = value.substr(1, value.size() - 2);
      }
      if (!value.empty()) target.push_back(std::move(value));
    }
  };
  app->add_option_function<std::vector<std::string>>(name, take, help)
      ->type_name("TEXT")
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->group(kServer);
}

void AddSeconds(CLI::App* app, const std::string& names, std::optional<double>& target,
                const std::string& help) {
  AddValue(
      app, names, help,
      [&target, name = NameOf(names)](const std::string& text) -> Status {
        MOEBIUS_ASSIGN(const double seconds, ParseReal<double>(name, text));
        if (!(seconds >= 0 && seconds <= kMostSeconds)) {
          return MakeError(ErrorCode::kInvalidArgument,
                           "{} is {}, expected seconds from 0 to {:.0f}", name, text, kMostSeconds);
        }
        target = seconds;
        return {};
      },
      "SECONDS")
      ->group(kServer);
}

// Those of vLLM. Only the ones whose models write <think> ... </think> are understood as such.
struct ReasoningParser {
  std::string_view name;
  bool thinks_in_tags;
};
constexpr std::array kReasoningParsers = std::to_array<ReasoningParser>({
    {"deepseek_r1", true},
    {"deepseek_v3", true},
    {"qwen3", true},
    {"glm45", true},
    {"ernie45", true},
    {"minimax_m2", true},
    {"holo2", true},
    {"kimi_k2", true},
    {"minimax_m2_append_think", true},
    {"nano_v3", true},
    {"olmo3", true},
    {"granite", false},
    {"gptoss", false},
    {"openai_gptoss", false},
    {"hunyuan_a13b", false},
    {"mistral", false},
    {"seed_oss", false},
    {"step3", false},
});

void AddReasoning(CLI::App* app, ServeOptions& options, std::vector<std::string>& notes) {
  const auto take = [&](const std::string& name) -> Status {
    if (name == "auto" || name == "none" || name.empty()) {
      options.reasoning_parser = name == "auto" ? "auto" : "";
      return {};
    }
    const auto found = std::find_if(kReasoningParsers.begin(), kReasoningParsers.end(),
                                    [&](const ReasoningParser& p) { return p.name == name; });
    if (found == kReasoningParsers.end()) {
      std::string known = "auto, none";
      for (const ReasoningParser& parser : kReasoningParsers) {
        known += fmt::format(", {}", parser.name);
      }
      return MakeError(ErrorCode::kInvalidArgument,
                       "--reasoning-parser is '{}', expected one of {}", name, known);
    }
    options.reasoning_parser = found->thinks_in_tags ? name : "";
    notes.push_back(
        found->thinks_in_tags
            ? fmt::format("--reasoning-parser {}: what stands before </think> is reasoning", name)
            : fmt::format(
                  "--reasoning-parser {} is ignored: only <think> is understood, what these "
                  "models think stays in the content",
                  name));
    return {};
  };
  AddValue(app, "--reasoning-parser",
           "Text before </think> apart from the answer: auto, none, or a name of vLLM's", take)
      ->option_text("NAME=auto")
      ->group(kServer);
}

void AddOverride(CLI::App* app, ServeOptions& options) {
  const auto take = [&options](const std::string& text) -> Status {
    auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--override-generation-config is '{}', expected a JSON object such as "
                       "{{\"temperature\": 0.6}}",
                       text);
    }
    // generation_config.json's own word for it.
    if (json.contains("max_new_tokens") && !json.contains("max_tokens")) {
      json["max_tokens"] = json["max_new_tokens"];
    }
    MOEBIUS_ASSIGN(options.sampling,
                   frontend::ParseSamplingFields(json, "--override-generation-config"));
    return {};
  };
  AddValue(app, "--override-generation-config", "Sampling defaults over all others", take, "JSON")
      ->group(kServer);
}

void AddHttp(CLI::App* app, ServeOptions& options) {
  AddText(app, "--host", options.host, "Address to listen on")
      ->option_text("TEXT=0.0.0.0")
      ->group(kServer);
  AddNumber(app, "--port", options.port, "0: any free one", 0, 65535)->group(kServer);
  AddList(app, "--api-key", options.api_keys,
          "Keys that callers must bring, one of them (also VLLM_API_KEY, MOEBIUS_API_KEY)");
  AddList(app, "--served-model-name", options.served_model_names,
          "Names of the model, the first in answers (default: MODEL)");
  AddList(app, "--allowed-origins", options.allowed_origins,
          "Web pages of other origins that may call (default: *)");
  AddSize(app, "--max-body-bytes", options.max_body_bytes, "Largest request (default 64 MiB)")
      ->group(kServer);
  AddNumber(app, "--http-threads", options.http_threads, "Threads for connections (default 1)", 1,
            64)
      ->group(kServer);
  AddNumber(app, "--text-threads", options.text_threads,
            "Threads for JSON, templates and tokens (default 2)", 1, 256)
      ->group(kServer);
  AddSwitch(app, "page", "", "No page at /", kServer, [&options](bool on) { options.page = on; });
}

void AddLimits(CLI::App* app, ServeOptions& options) {
  AddNumber(app, "--max-logprobs", options.max_logprobs,
            "Most log probabilities a token that a request may ask for (default 20)", -1,
            engine::kMaxLogprobs)
      ->group(kServer);
  AddNumber(app, "--max-queued-requests", options.max_queued_requests,
            "Requests that may wait to be read; more get 429 (default 1024)", int64_t{1},
            int64_t{1} << 24)
      ->group(kServer);
  AddNumber(app, "--max-num-waiting", options.open.engine.max_num_waiting,
            "Requests that may wait for the engine; more get 429")
      ->group(kServer);
  AddSeconds(app, "--request-timeout", options.request_timeout,
             "Longest time of a request; 0: no limit (default)");
  AddSeconds(app, "--drain-timeout,--shutdown-timeout", options.drain_timeout,
             "Time for running requests when the server stops (default 30)");
  AddSeconds(app, "--stall-seconds", options.stall_seconds,
             "/health is 503 when no step ends for so long (default 30)");
}

void AddLayout(CLI::App* app, ServeOptions& options) {
  PlanOptions& plan = options.plan;
  const auto size = [&](const char* name, std::optional<int64_t>& target, const char* help) {
    AddNumber(app, name, target, help, int64_t{1}, int64_t{layout::kMaxGpus})->group(kLayout);
  };
  AddFlag(app, "--dry-run", "Show layout, memory and collectives; read no weight, serve nothing",
          [&options](bool on) { options.dry_run = on; })
      ->group(kLayout);
  AddText(
      app, "--device", options.device,
      "Where the model runs: cpu (default) or cuda; of --dry-run a name or file of moebius plan "
      "(default: what this machine has)")
      ->group(kLayout);
  size("--tensor-parallel-size", plan.tensor_parallel_size, "Ranks that cut every layer");
  size("--data-parallel-size", plan.data_parallel_size, "Groups with requests of their own");
  size("--pipeline-parallel-size", plan.pipeline_parallel_size, "Stages of layers");
  AddNumber(app, "--decode-context-parallel-size", plan.decode_context_parallel_size, "",
            int64_t{1}, int64_t{layout::kMaxGpus})
      ->group(kLayout);
  AddNumber(app, "--nnodes", options.num_nodes, "Nodes that hold the ranks", int64_t{1},
            int64_t{layout::kMaxGpus})
      ->group(kLayout);
  AddNumber(app, "--data-parallel-size-local", options.data_parallel_size_local, "", int64_t{1},
            int64_t{layout::kMaxGpus})
      ->group("");
  AddFlag(app, "--headless", "", [&options](bool on) { options.headless = on; })->group("");
  AddSwitch(app, "enable-expert-parallel", "Whole experts on ranks", "", kLayout,
            [&plan](bool on) { plan.enable_expert_parallel = on; });
  AddText(app, "--all2all-backend", plan.all2all_backend,
          "auto, all2all, allgather_reducescatter or a name of vLLM's")
      ->group(kLayout);
  AddSwitch(app, "enable-eplb", "Balance experts by their load", "", kLayout,
            [&plan](bool on) { plan.enable_eplb = on; });
  AddNumber(app, "--num-redundant-experts", plan.num_redundant_experts, "Second copies, with EPLB",
            int64_t{0}, int64_t{layout::kMaxRedundantExperts})
      ->group(kLayout);
  const auto eplb = [&plan](const std::string& text) -> Status {
    const auto json = nlohmann::json::parse(text, nullptr, false);
    const auto number = json.is_object() ? json.find("num_redundant_experts") : json.end();
    if (!json.is_object() || (number != json.end() && !number->is_number_unsigned())) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--eplb-config is '{}', expected a JSON object such as "
                       "{{\"num_redundant_experts\": 32}}",
                       text);
    }
    if (number == json.end()) return {};
    MOEBIUS_ASSIGN(plan.num_redundant_experts,
                   ParseWhole<int64_t>("--eplb-config: num_redundant_experts", number->dump(), 0,
                                       layout::kMaxRedundantExperts));
    return {};
  };
  AddValue(app, "--eplb-config", "The same as JSON; other keys are the balancer's", eplb, "JSON")
      ->group(kLayout);
  AddSwitch(app, "enable-dbo", "Overlap two halves of a batch", "", kLayout,
            [&plan](bool on) { plan.enable_dbo = on; });
  AddText(app, "--dense-ffn", plan.dense_ffn, "Under DP: auto, tp or dp")->group(kLayout);
  AddText(app, "--lm-head", plan.lm_head, "Under DP: auto, tp or dp")->group(kLayout);
  AddText(app, "--kv-cache-dtype", plan.kv_cache_dtype, "auto; of --dry-run also bfloat16, fp8")
      ->group(kLayout);
}

}  // namespace

void AddServeFlags(CLI::App* app, ServeOptions& options, std::vector<std::string>& notes) {
  app->footer("Flags of vLLM that have no meaning here are taken with a line that says so.");
  AddEngineAndModel(app, options.open);
  AddHttp(app, options);
  AddChoice(app, "--generation-config", options.generation_config, {"auto", "vllm"},
            "auto: sampling defaults of the folder's generation_config.json; vllm: neutral ones")
      ->group(kServer);
  AddOverride(app, options);
  AddReasoning(app, options, notes);
  AddLimits(app, options);
  AddText(app, "--step-log", options.step_log, "Append a JSON line a step to this file")
      ->group(kServer);
  AddSwitch(app, "enable-log-requests", "Log a line a request, without what it says", "", kServer,
            [&options](bool on) { options.log_requests = on; });
  AddNumber(app, "--seed", options.open.engine.seed,
            "Of requests that bring none (default: a new one each time)")
      ->group(kServer);
  AddLayout(app, options);
  for (const RefusedFlag& flag : RefusedFlags()) {
    // Whatever value it has, and with none.
    app->add_option_function<std::string>(flag.name,
                                          [&flag](const std::string&) {
                                            throw CLI::ValidationError(fmt::format(
                                                "{} is not supported: {}", flag.name, flag.why));
                                          })
        ->expected(0, 1)
        ->trigger_on_parse()
        ->group("");
  }
}

namespace {

// Sizes of more than one rank, and what belongs to them.
Status CheckOneRank(const ServeOptions& options) {
  const PlanOptions& plan = options.plan;
  const std::pair<const char*, int64_t> sizes[] = {
      {"--tensor-parallel-size", plan.tensor_parallel_size.value_or(1)},
      {"--data-parallel-size", plan.data_parallel_size.value_or(1)},
      {"--pipeline-parallel-size", plan.pipeline_parallel_size.value_or(1)},
      {"--decode-context-parallel-size", plan.decode_context_parallel_size},
      {"--data-parallel-size-local", options.data_parallel_size_local},
      {"--nnodes", options.num_nodes},
  };
  for (const auto& [name, size] : sizes) {
    if (size == 1) continue;
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} is {}, but this build runs one rank for now: expected 1 (--dry-run shows "
                     "the layout without serving)",
                     name, size);
  }
  if (options.headless) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--headless is a node that computes for another one's server, but this build "
                     "runs one rank for now");
  }
  if (plan.kv_cache_dtype != "auto") {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--kv-cache-dtype is '{}', expected auto: the KV cache has the dtype of "
                     "activations (--dtype)",
                     plan.kv_cache_dtype);
  }
  return {};
}

// They stand in every answer, which is UTF-8.
Status CheckNames(const ServeOptions& options) {
  for (const std::string& name : options.served_model_names) {
    const size_t valid = text::ValidPrefix(name);
    if (valid == name.size()) continue;
    return MakeError(ErrorCode::kInvalidArgument,
                     "--served-model-name is '{}', expected UTF-8: it is not from byte {} on", name,
                     valid);
  }
  const std::string& model = options.open.model;
  if (!options.served_model_names.empty() || text::ValidPrefix(model) == model.size()) return {};
  return MakeError(ErrorCode::kInvalidArgument,
                   "MODEL is '{}', which is not UTF-8: expected a --served-model-name that is",
                   model);
}

}  // namespace

Status CheckServeOptions(ServeOptions& options, std::vector<std::string>& notes) {
  PlanOptions& plan = options.plan;
  MOEBIUS_TRY(CheckNames(options));
  layout::ParallelConfig parallel;
  MOEBIUS_TRY(layout::SetBackend(plan.all2all_backend, parallel));
  if (options.dry_run) return {};
  MOEBIUS_TRY(CheckOneRank(options));
  const auto ignored = [&](bool given, const char* name, const char* why) {
    if (given) notes.push_back(fmt::format("{} is ignored: {}", name, why));
  };
  constexpr const char* kAllHere = "one rank holds every expert";
  constexpr const char* kOneRank = "this build runs one rank";
  ignored(plan.enable_expert_parallel.value_or(false), "--enable-expert-parallel", kAllHere);
  ignored(plan.enable_eplb.value_or(false), "--enable-eplb", kAllHere);
  ignored(plan.num_redundant_experts > 0, "--num-redundant-experts", kAllHere);
  ignored(plan.enable_dbo.value_or(false), "--enable-dbo",
          "one rank has no exchange to hide behind computation");
  ignored(plan.all2all_backend != "auto", "--all2all-backend", kOneRank);
  ignored(plan.dense_ffn != "auto", "--dense-ffn", kOneRank);
  ignored(plan.lm_head != "auto", "--lm-head", kOneRank);
  if (options.device && *options.device != "cpu" && *options.device != "cuda") {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--device is '{}', expected cpu or cuda (another name needs --dry-run)",
                     *options.device);
  }
  options.open.device = options.device.value_or("cpu");
  return {};
}

}  // namespace moebius::app
