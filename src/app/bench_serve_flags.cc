// The flags of `moebius bench serve`, named as those of `vllm bench serve`.
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <sstream>

#include "app/bench_serve.h"
#include "app/flag_kinds.h"
#include "app/numbers.h"

namespace moebius::app {
namespace {

constexpr int64_t kMostRequests = int64_t{1} << 24;

constexpr const char* kServer = "Server";
constexpr const char* kLoad = "Load";
constexpr const char* kData = "Data";
constexpr const char* kRequests = "Requests";
constexpr const char* kReport = "Report";

// One flag with one or more values ("--goodput ttft:200 tpot:50"), and several of them.
void AddList(CLI::App* app, const char* name, const char* help, const char* group,
             std::function<Status(const std::string&)> take) {
  const auto take_all = [take = std::move(take)](const std::vector<std::string>& texts) {
    for (const std::string& text : texts) {
      const Status status = take(text);
      if (!status) throw CLI::ValidationError(status.error().message());
    }
  };
  app->add_option_function<std::vector<std::string>>(name, take_all, help)
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->type_name("TEXT")
      ->group(group);
}

// "key=value"
Result<std::pair<std::string, std::string>> ParsePair(const char* flag, const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) {
    return MakeError(ErrorCode::kInvalidArgument, "{} is '{}', expected KEY=VALUE", flag, text);
  }
  return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

Status SetLimit(const std::string& text, load::Limits& limits) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  std::optional<double>* limit = name == "ttft"   ? &limits.ttft_ms
                                 : name == "tpot" ? &limits.tpot_ms
                                 : name == "e2el" ? &limits.e2el_ms
                                                  : nullptr;
  if (limit == nullptr || colon == std::string::npos) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--goodput is '{}', expected ttft:MS, tpot:MS or e2el:MS", text);
  }
  MOEBIUS_ASSIGN(*limit, ParseReal<double>("--goodput", text.substr(colon + 1)));
  if (**limit >= 0) return {};
  return MakeError(ErrorCode::kInvalidArgument, "--goodput is '{}', expected 0 ms or more", text);
}

std::vector<std::string> SplitByCommas(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

Status SetMetrics(const std::string& text, std::vector<std::string>& metrics) {
  metrics = SplitByCommas(text);
  const std::vector<std::string> known = load::MetricNames();
  for (const std::string& metric : metrics) {
    if (std::find(known.begin(), known.end(), metric) != known.end()) continue;
    return MakeError(ErrorCode::kInvalidArgument, "--percentile-metrics holds '{}', expected of {}",
                     metric, CLI::detail::join(known, ", "));
  }
  return {};
}

Status SetPercentiles(const std::string& text, std::vector<double>& percentiles) {
  percentiles.clear();
  for (const std::string& part : SplitByCommas(text)) {
    MOEBIUS_ASSIGN(const double value, ParseReal<double>("--metric-percentiles", part));
    if (!(value >= 0 && value <= 100)) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--metric-percentiles holds {}, expected 0 to 100", value);
    }
    percentiles.push_back(value);
  }
  return {};
}

void AddServer(CLI::App* app, BenchServeOptions& options, std::vector<std::string>& notes) {
  AddChoice(app, "--backend", options.bench.backend, {"openai", "openai-chat", "vllm"},
            "openai and vllm: completions; openai-chat: chat completions")
      ->group(kServer);
  AddText(app, "--base-url", options.base_url, "http://host:port, instead of the next two")
      ->group(kServer);
  AddText(app, "--host", options.host, "Of the server")->group(kServer);
  AddNumber(app, "--port", options.port, "Of the server", 1, 65535)->group(kServer);
  AddText(app, "--endpoint", options.endpoint, "Path (default: the backend's)")->group(kServer);
  AddText(app, "--model", options.bench.model,
          "Its name at the server, or a folder with its tokenizer (default: the server's first)")
      ->group(kServer);
  AddText(app, "--served-model-name", options.bench.served_model_name,
          "Its name at the server, where --model is a folder")
      ->group(kServer);
  AddText(app, "--tokenizer", options.bench.tokenizer,
          "Folder with tokenizer.json (default: --model's, the server's own folder, or the "
          "server's /tokenize)")
      ->group(kServer);
  AddText(app, "--api-key", options.api_key, "Default: the variable OPENAI_API_KEY")
      ->group(kServer);
  AddList(app, "--header", "KEY=VALUE, of every request", kServer, [&](const std::string& text) {
    auto pair = ParsePair("--header", text);
    if (!pair) return Status(tl::unexpected<Error>(pair.error()));
    options.bench.client.headers.push_back({pair->first, pair->second});
    return Status();
  });
  AddNumber(app, "--ready-check-timeout-sec", options.bench.ready_check_timeout_sec,
            "Wait so long until a trial request succeeds (default: it must at once); 0: none")
      ->group(kServer);
  AddValue(app, "--request-timeout-sec", "Of one request (default 6 hours)",
           [&options](const std::string& text) -> Status {
             MOEBIUS_ASSIGN(const double seconds, ParseReal<double>("--request-timeout-sec", text));
             if (!(seconds > 0 && seconds < 1e9)) {
               return MakeError(ErrorCode::kInvalidArgument,
                                "--request-timeout-sec is {}, expected more than 0", text);
             }
             options.bench.client.timeout =
                 std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
             return {};
           })
      ->group(kServer);
  AddFlag(app, "--insecure", "https: do not check the certificate", [&options](bool on) {
    options.bench.client.verify_peer = !on;
  })->group(kServer);
  for (const char* name : {"--disable-tqdm", "--skip-tokenizer-init", "--trust-remote-code"}) {
    AddFlag(app, name, "", [&notes, name](bool on) {
      if (on) notes.push_back(fmt::format("{} is ignored: nothing of it is here", name));
    })->group("");
  }
}

void AddLoad(CLI::App* app, BenchServeOptions& options) {
  load::LoadShape& shape = options.bench.shape;
  load::ArrivalOptions& arrivals = shape.arrivals;
  AddNumber(app, "--num-prompts", options.bench.dataset.num_prompts, "Requests", 1, kMostRequests)
      ->group(kLoad);
  AddNumber(app, "--duration", shape.duration,
            "Send for so many seconds instead, the requests anew when they run out")
      ->group(kLoad);
  AddNumber(app, "--request-rate", arrivals.request_rate, "Requests a second; inf: all at once")
      ->group(kLoad);
  AddNumber(app, "--burstiness", arrivals.burstiness,
            "Shape of the gamma distribution of gaps: 1 Poisson, less is burstier, inf even")
      ->group(kLoad);
  AddNumber(app, "--max-concurrency", shape.max_concurrency, "Requests in flight at most", 1,
            kMostRequests)
      ->group(kLoad);
  AddNumber(app, "--concurrency-ramp-sec", shape.concurrency_ramp_seconds,
            "From 1 in flight to --max-concurrency in so many seconds")
      ->group(kLoad);
  AddValue(app, "--ramp-up-strategy", "linear or exponential, instead of --request-rate",
           [&arrivals](const std::string& text) -> Status {
             if (text == "linear") {
               arrivals.ramp_up = load::RampUp::kLinear;
             } else if (text == "exponential") {
               arrivals.ramp_up = load::RampUp::kExponential;
             } else {
               return MakeError(ErrorCode::kInvalidArgument,
                                "--ramp-up-strategy is '{}', expected linear or exponential", text);
             }
             return {};
           })
      ->group(kLoad);
  AddNumber(app, "--ramp-up-start-rps", arrivals.ramp_up_start_rps, "Requests a second")
      ->group(kLoad);
  AddNumber(app, "--ramp-up-end-rps", arrivals.ramp_up_end_rps, "Requests a second")->group(kLoad);
  AddNumber(app, "--num-warmups", options.bench.num_warmups, "Requests before the measurement", 0)
      ->group(kLoad);
  AddNumber(app, "--probe-request-rate", options.bench.probe_request_rate,
            "Single-token requests a second beside the load, reported apart")
      ->group(kLoad);
  AddNumber(app, "--seed", options.bench.dataset.seed, "Of data and arrivals")->group(kLoad);
  AddSwitch(app, "self-timed", "A trace's own times", "A trace at --request-rate", kLoad,
            [&options](bool on) { options.bench.self_timed = on; });
}

void AddData(CLI::App* app, BenchServeOptions& options) {
  load::DatasetOptions& data = options.bench.dataset;
  const auto tokens = [&](const char* name, int64_t& target, const char* help, int64_t least = 1) {
    AddNumber(app, name, target, help, least, kMostTokens)->group(kData);
  };
  AddText(app, "--dataset-name", data.name,
          "random, prefix_repetition, sharegpt, gsm8k, mmlu, alpaca_eval, custom or trace")
      ->group(kData);
  AddText(app, "--dataset-path", data.path, "File (JSON lines, JSON or CSV)")->group(kData);
  tokens("--input-len,--random-input-len", data.random_input_len, "random: tokens of a prompt");
  tokens("--random-output-len", data.random_output_len, "random: tokens of an answer");
  tokens("--random-prefix-len", data.random_prefix_len, "random: tokens that all prompts share", 0);
  AddNumber(app, "--random-range-ratio", data.random_range_ratio,
            "random: lengths from 1 - this to 1 + this")
      ->group(kData);
  AddNumber(app, "--random-vocab-size", options.bench.random_vocab_size,
            "Ids of prompts, where no tokenizer says them", 1, kMostTokens)
      ->group(kData);
  tokens("--prefix-repetition-prefix-len", data.prefix_len, "Tokens that prompts share");
  tokens("--prefix-repetition-suffix-len", data.suffix_len, "Tokens of their own");
  tokens("--prefix-repetition-num-prefixes", data.num_prefixes, "Prefixes");
  tokens("--prefix-repetition-output-len", data.prefix_output_len, "Tokens of an answer");
  AddNumber(app, "--output-len,--custom-output-len,--sharegpt-output-len,--hf-output-len",
            data.output_len, "Tokens of an answer, whatever the data say", 1, kMostTokens)
      ->group(kData);
  tokens("--trace-block-size", data.trace_block_size, "Tokens that one of hash_ids stands for");
  AddChoice(app, "--prompt-format", options.bench.prompt_format, {"auto", "ids", "text"},
            "Of generated prompts; auto: token ids for completions, text for a chat")
      ->group(kData);
  AddFlag(app, "--disable-shuffle", "Rows of a file in their order", [&data](bool on) {
    data.shuffle = !on;
  })->group(kData);
  AddFlag(app, "--no-oversample", "No row of a file twice", [&data](bool on) {
    data.oversample = !on;
  })->group(kData);
}

void AddRequests(CLI::App* app, BenchServeOptions& options) {
  load::BodyOptions& body = options.bench.body;
  AddSwitch(app, "ignore-eos", "Answers go on to their full length (default for random data)",
            "They end where the model ends them", kRequests,
            [&options](bool on) { options.ignore_eos = on; });
  AddFlag(app, "--continuous-usage",
          "Ask for usage with every chunk: exact tokens of each (vLLM and moebius know it)",
          [&body](bool on) { body.continuous_usage = on; })
      ->group(kRequests);
  AddNumber(app, "--logprobs", body.logprobs, "Log probabilities of each token", 0)
      ->group(kRequests);
  AddValue(app, "--extra-body", "JSON object merged into every request",
           [&body](const std::string& text) -> Status {
             if (!nlohmann::json::parse(text, nullptr, false).is_object()) {
               return MakeError(ErrorCode::kInvalidArgument,
                                "--extra-body is '{}', expected a JSON object", text);
             }
             body.extra_body = text;
             return {};
           })
      ->group(kRequests);
  AddText(app, "--request-id-prefix", options.bench.client.request_id_prefix,
          "X-Request-Id is this and a number")
      ->group(kRequests);
  for (const char* name : {"temperature", "top-p", "top-k", "min-p", "frequency-penalty",
                           "presence-penalty", "repetition-penalty"}) {
    const std::string flag = std::string("--") + name;
    const auto take = [&options, flag](const std::string& text) -> Status {
      MOEBIUS_ASSIGN(const double value, ParseReal<double>(flag, text));
      std::string key = flag.substr(2);
      std::replace(key.begin(), key.end(), '-', '_');
      options.sampling +=
          fmt::format("{}\"{}\": {}", options.sampling.empty() ? "" : ", ", key, value);
      return {};
    };
    AddValue(app, flag, "Sampling (default: the server's)", take, "FLOAT")->group(kRequests);
  }
}

void AddReport(CLI::App* app, BenchServeOptions& options) {
  AddList(app, "--goodput", "ttft:MS tpot:MS e2el:MS, which a good request keeps below", kReport,
          [&](const std::string& text) { return SetLimit(text, options.bench.limits); });
  AddValue(app, "--percentile-metrics",
           "Of ttft,tpot,itl,e2el,client_queue_time,e2el_including_client_queue",
           [&](const std::string& text) { return SetMetrics(text, options.report.metrics); })
      ->group(kReport);
  AddValue(
      app, "--metric-percentiles", "Such as 25,50,99 (default 99)",
      [&](const std::string& text) { return SetPercentiles(text, options.report.percentiles); })
      ->group(kReport);
  AddList(app, "--metadata", "KEY=VALUE, into the result file", kReport,
          [&](const std::string& text) {
            auto pair = ParsePair("--metadata", text);
            if (!pair) return Status(tl::unexpected<Error>(pair.error()));
            options.report.metadata.push_back(std::move(*pair));
            return Status();
          });
  AddText(app, "--label", options.report.label, "Beginning of the result file's name")
      ->group(kReport);
  const auto flag = [&](const char* name, const char* help, bool& target) {
    AddFlag(app, name, help, [&target](bool on) { target = on; })->group(kReport);
  };
  flag("--save-result", "Write the result file (JSON)", options.save_result);
  flag("--save-detailed", "With the numbers and texts of every request", options.report.detailed);
  flag("--append-result", "Append to the result file", options.append_result);
  AddText(app, "--result-dir", options.result_dir, "Its folder")->group(kReport);
  AddText(app, "--result-filename", options.result_filename, "Its name")->group(kReport);
  AddText(app, "--output-csv", options.output_csv, "One row of figures")->group(kReport);
  AddText(app, "--output-markdown", options.output_markdown, "Tables")->group(kReport);
  AddText(app, "--output-html", options.output_html, "One page with plots")->group(kReport);
}

}  // namespace

void AddBenchServeFlags(CLI::App* app, BenchServeOptions& options,
                        std::vector<std::string>& notes) {
  AddServer(app, options, notes);
  AddLoad(app, options);
  AddData(app, options);
  AddRequests(app, options);
  AddReport(app, options);
}

}  // namespace moebius::app
