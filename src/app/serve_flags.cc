// The flags of `moebius serve`. Names are vLLM's where vLLM has the thing.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "app/flag_kinds.h"
#include "app/flags.h"
#include "app/parallel_flags.h"
#include "app/plan_input.h"
#include "app/vllm_flags.h"
#include "layout/parallel_layout.h"
#include "text/unicode.h"

namespace moebius::app {
namespace {

constexpr const char* kServerFlags = "Server";
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
      ->group(kServerFlags);
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
      ->group(kServerFlags);
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
      ->group(kServerFlags);
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
      ->group(kServerFlags);
}

void AddHttp(CLI::App* app, ServeOptions& options) {
  AddText(app, "--host", options.host, "Address to listen on")
      ->option_text("TEXT=0.0.0.0")
      ->group(kServerFlags);
  AddNumber(app, "--port", options.port, "0: any free one", 0, 65535)->group(kServerFlags);
  AddList(app, "--api-key", options.api_keys,
          "Keys that callers must bring, one of them (also VLLM_API_KEY, MOEBIUS_API_KEY)");
  AddList(app, "--served-model-name", options.served_model_names,
          "Names of the model, the first in answers (default: MODEL)");
  AddList(app, "--allowed-origins", options.allowed_origins,
          "Web pages of other origins that may call (default: *)");
  AddSize(app, "--max-body-bytes", options.max_body_bytes, "Largest request (default 64 MiB)")
      ->group(kServerFlags);
  AddNumber(app, "--http-threads", options.http_threads, "Threads for connections (default 1)", 1,
            64)
      ->group(kServerFlags);
  AddNumber(app, "--text-threads", options.text_threads,
            "Threads for JSON, templates and tokens (default 2)", 1, 256)
      ->group(kServerFlags);
  AddSwitch(app, "page", "", "No page at /", kServerFlags,
            [&options](bool on) { options.page = on; });
}

void AddLimits(CLI::App* app, ServeOptions& options) {
  AddNumber(app, "--max-logprobs", options.max_logprobs,
            "Most log probabilities a token that a request may ask for (default 20)", -1,
            engine::kMaxLogprobs)
      ->group(kServerFlags);
  AddNumber(app, "--max-queued-requests", options.max_queued_requests,
            "Requests that may wait to be read; more get 429 (default 1024)", int64_t{1},
            int64_t{1} << 24)
      ->group(kServerFlags);
  AddNumber(app, "--max-num-waiting", options.open.engine.max_num_waiting,
            "Requests that may wait for the engine; more get 429")
      ->group(kServerFlags);
  AddSeconds(app, "--request-timeout", options.request_timeout,
             "Longest time of a request; 0: no limit (default)");
  AddSeconds(app, "--drain-timeout,--shutdown-timeout", options.drain_timeout,
             "Time for running requests when the server stops (default 30)");
  AddSeconds(app, "--stall-seconds", options.stall_seconds,
             "/health is 503 when no step ends for so long (default 30)");
}

void AddLayout(CLI::App* app, ServeOptions& options) {
  AddParallelFlags(app, options.parallel, /*plans=*/true);
  AddFlag(app, "--dry-run", "Show layout, memory and collectives; read no weight, serve nothing",
          [&options](bool on) { options.dry_run = on; })
      ->group(kRanksGroup);
  AddText(app, "--device", options.device,
          "Where the model runs: cpu (default) or cuda, a GPU a rank; of --dry-run a name or file "
          "of moebius plan "
          "(default: what this machine has)")
      ->group(kRanksGroup);
}

}  // namespace

void AddServeFlags(CLI::App* app, ServeOptions& options, std::vector<std::string>& notes) {
  app->footer("Flags of vLLM that have no meaning here are taken with a line that says so.");
  AddEngineAndModel(app, options.open, options.parallel, notes);
  AddHttp(app, options);
  AddChoice(app, "--generation-config", options.generation_config, {"auto", "vllm"},
            "auto: sampling defaults of the folder's generation_config.json; vllm: neutral ones")
      ->group(kServerFlags);
  AddOverride(app, options);
  AddReasoning(app, options, notes);
  AddLimits(app, options);
  AddText(app, "--step-log", options.step_log, "Append a JSON line a step to this file")
      ->group(kServerFlags);
  AddSwitch(app, "enable-log-requests", "Log a line a request, without what it says", "",
            kServerFlags, [&options](bool on) { options.log_requests = on; });
  AddNumber(app, "--seed", options.open.engine.seed,
            "Of requests that bring none (default: a new one each time)")
      ->group(kServerFlags);
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
  MOEBIUS_TRY(CheckNames(options));
  MOEBIUS_TRY(SettleSizes(options.parallel));
  layout::ParallelConfig named;
  MOEBIUS_TRY(layout::SetBackend(options.parallel.all2all_backend, named));
  if (options.dry_run) {
    // Of a layout that may be another machine's: of what a start settles, the slots alone.
    frontend::OpenOptions start = options.open;
    MOEBIUS_ASSIGN(start.parallel, NamedLayout(options.parallel, named));
    MOEBIUS_TRY(SettleBalance(options.parallel, start, notes));
    options.open.balance = std::move(start.balance);
    if (options.parallel.moe_config) {
      options.open.max_moe_tokens = options.parallel.moe_config->max_num_tokens.value_or(0);
    }
    return {};
  }
  if (options.device && *options.device != "cpu" && *options.device != "cuda") {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--device is '{}', expected cpu or cuda (another name needs --dry-run)",
                     *options.device);
  }
  options.open.device = options.device.value_or("cpu");
  return SettleParallel(options.parallel, options.open, notes);
}

}  // namespace moebius::app
