// moebius bench serve: loads an OpenAI-compatible server and reports how it did.
#include "app/bench_serve.h"

#include <fmt/core.h>

#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "app/commands.h"
#include "app/output_file.h"
#include "app/standard_output.h"

namespace moebius::app {
namespace {

std::string Now() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  std::strftime(text, sizeof(text), "%Y%m%d-%H%M%S", &local);
  return text;
}

// A word as a shell takes it.
std::string Quoted(const std::string& word) {
  constexpr const char* kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_=./:,+@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

// The command line as it was typed, without secrets.
std::string CommandText() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(file), {}};
  std::string text;
  bool hide = false;
  for (size_t at = 0; at < all.size();) {
    const size_t end = std::min(all.find('\0', at), all.size());
    std::string word = all.substr(at, end - at);
    at = end + 1;
    if (hide) word = "...";
    hide = word == "--api-key" || word == "--header";
    if (word.starts_with("--api-key=")) word = "--api-key=...";
    if (word.starts_with("--header=")) word = "--header=...";
    text += (text.empty() ? "" : " ") + Quoted(word);
  }
  return text;
}

// As vLLM names it, unless it was named.
std::string ResultPath(const BenchServeOptions& options, const std::string& model) {
  std::string name = options.result_filename;
  if (name.empty()) {
    const load::ArrivalOptions& arrivals = options.bench.shape.arrivals;
    const std::string rate =
        arrivals.ramp_up == load::RampUp::kNone
            ? fmt::format("{}qps", arrivals.request_rate)
            : fmt::format("ramp-up-{}-{}qps-{}qps",
                          arrivals.ramp_up == load::RampUp::kLinear ? "linear" : "exponential",
                          arrivals.ramp_up_start_rps, arrivals.ramp_up_end_rps);
    const auto& concurrency = options.bench.shape.max_concurrency;
    name = fmt::format("{}-{}{}-{}-{}.json",
                       options.report.label.empty() ? options.report.backend : options.report.label,
                       rate, concurrency ? fmt::format("-concurrency{}", *concurrency) : "",
                       model.substr(model.rfind('/') + 1), options.report.date);
  }
  return (std::filesystem::path(options.result_dir) / name).string();
}

Status SaveResult(const BenchServeOptions& options, const load::ServeBench& bench) {
  const std::string path = ResultPath(options, bench.model);
  std::error_code ignored;  // the file cannot be opened then, and says so
  if (!options.result_dir.empty()) std::filesystem::create_directories(options.result_dir, ignored);
  std::ofstream file(path, options.append_result ? std::ios::app : std::ios::trunc);
  if (options.append_result && file.tellp() > 0) file << "\n";
  file << load::JsonReport(bench, options.report);
  file.close();
  if (file) return {};
  return MakeError(ErrorCode::kUnavailable, "the result file {} cannot be written", path);
}

// A report that was asked for; its file is opened before the load.
struct Output {
  OutputFile file;
  std::string (*report)(const load::ServeBench&, const load::ReportOptions&);
};

Result<std::vector<Output>> OpenOutputs(const BenchServeOptions& options) {
  std::vector<Output> outputs;
  const auto open = [&](const char* flag, const std::string& path, auto report) -> Status {
    if (path.empty()) return {};
    MOEBIUS_ASSIGN(OutputFile file, OutputFile::Open(flag, path));
    outputs.push_back({std::move(file), report});
    return {};
  };
  MOEBIUS_TRY(open("--output-csv", options.output_csv, load::CsvReport));
  MOEBIUS_TRY(open("--output-markdown", options.output_markdown, load::MarkdownReport));
  MOEBIUS_TRY(open("--output-html", options.output_html, load::HtmlReport));
  return outputs;
}

void FillServer(BenchServeOptions& options) {
  load::ServeBenchOptions& bench = options.bench;
  const bool is_ipv6 = options.host.find(':') != std::string::npos && options.host[0] != '[';
  bench.client.base_url = options.base_url.value_or(fmt::format(
      "http://{}{}{}:{}", is_ipv6 ? "[" : "", options.host, is_ipv6 ? "]" : "", options.port));
  bench.client.base_url = load::ServerRoot(std::move(bench.client.base_url));
  bench.client.endpoint = options.endpoint.value_or(
      bench.backend == "openai-chat" ? "/v1/chat/completions" : "/v1/completions");
  const char* variable = std::getenv("OPENAI_API_KEY");
  if (options.api_key.empty() && variable != nullptr) options.api_key = variable;
  if (!options.api_key.empty()) {
    bench.client.headers.insert(bench.client.headers.begin(),
                                {"Authorization", "Bearer " + options.api_key});
  }
  bench.client.keep_text = options.report.detailed;
}

}  // namespace

Status CheckBenchServe(BenchServeOptions& options) {
  load::ServeBenchOptions& bench = options.bench;
  if (bench.dataset.name == "timed_trace") bench.dataset.name = "trace";  // vLLM's name for it
  if (bench.dataset.name == "prefix-repetition") bench.dataset.name = "prefix_repetition";
  const std::string& data = bench.dataset.name;
  const bool has_lengths = data == "random" || data == "prefix_repetition" || data == "trace";
  bench.body.ignore_eos = options.ignore_eos.value_or(has_lengths);
  bench.shape.num_requests = bench.dataset.num_prompts;
  bench.shape.arrivals.seed = bench.dataset.seed;
  MOEBIUS_TRY(load::CheckShape(bench.shape));
  const bool is_text = bench.backend == "openai-chat" || bench.prompt_format == "text";
  if (bench.prompt_format == "ids" && bench.backend == "openai-chat") {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--prompt-format ids needs completions: --backend openai");
  }
  if (is_text && bench.random_vocab_size) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--random-vocab-size gives ids, but the prompts are text");
  }
  if (!options.sampling.empty()) {
    // --extra-body wins, as the later of two members with one name does.
    auto merged = nlohmann::ordered_json::parse("{" + options.sampling + "}");
    if (!bench.body.extra_body.empty()) {
      merged.update(nlohmann::ordered_json::parse(bench.body.extra_body));
    }
    bench.body.extra_body = merged.dump();
  }
  return {};
}

Result<int> BenchServeCommand(const BenchServeOptions& given, Interrupt& interrupt) {
  BenchServeOptions options = given;
  FillServer(options);
  load::ReportOptions& report = options.report;
  report.date = Now();
  report.command = CommandText();
  report.backend = options.bench.backend;
  report.arrivals = options.bench.shape.arrivals;
  report.max_concurrency = options.bench.shape.max_concurrency;
  report.limits = options.bench.limits;
  MOEBIUS_ASSIGN(std::vector<Output> outputs, OpenOutputs(options));

  const std::stop_token stop = interrupt.Begin();
  auto bench = load::RunServeBench(options.bench, stop);
  interrupt.End();
  if (!bench && stop.stop_requested()) {
    fmt::print(stderr, "moebius: interrupted before the load\n");
    return Interrupt::kExitCode;
  }
  if (!bench) return tl::unexpected<Error>(std::move(bench).error());

  fmt::print("{}", load::ConsoleReport(*bench, report));
  for (const std::string& warning : bench->warnings) {
    fmt::print(stderr, "moebius: warning: {}\n", warning);
  }
  for (const load::RequestRecord& record : bench->run.records) {
    if (!record.failed()) continue;
    fmt::print(stderr, "moebius: the first failure: {}\n", record.error);
    break;
  }
  if (options.save_result || options.append_result) MOEBIUS_TRY(SaveResult(options, *bench));
  for (Output& output : outputs) {
    fmt::print(output.file.Begin(), "{}", output.report(*bench, report));
    MOEBIUS_TRY(output.file.Finish());
  }
  if (bench->run.was_stopped) {
    fmt::print(stderr, "moebius: interrupted: the figures are of what was sent until then\n");
    return Interrupt::kExitCode;
  }
  return bench->figures.completed > 0 ? kExitOk : kExitFailure;
}

}  // namespace moebius::app
