#include "bench/load/serve_bench.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/progress.h"
#include "bench/load/codec.h"
#include "bench/load/probe.h"

namespace moebius::load {
namespace {

// Ids that any model has; its vocabulary is not asked for.
constexpr int64_t kUsualIds = 1000;

bool IsTokenizerFolder(const std::string& path) {
  return !path.empty() && std::filesystem::exists(std::filesystem::path(path) / "tokenizer.json");
}

struct ServedModel {
  std::string id;
  std::string root;  // maybe a folder, maybe of another machine
};

// The first of GET /v1/models.
Result<ServedModel> FirstModel(LoadClient& client) {
  MOEBIUS_ASSIGN(const std::string text, client.Fetch("/v1/models"));
  const auto answer = nlohmann::json::parse(text, nullptr, false);
  if (answer.is_object() && answer.contains("data") && answer["data"].is_array() &&
      !answer["data"].empty() && answer["data"][0].is_object()) {
    const auto& first = answer["data"][0];
    const auto field = [&](const char* key) {
      return first.contains(key) && first[key].is_string() ? first[key].get<std::string>() : "";
    };
    if (!field("id").empty()) return ServedModel{field("id"), field("root")};
  }
  return MakeError(ErrorCode::kUnavailable, "/v1/models names no model; give --model NAME");
}

class Bench {
 public:
  Bench(ServeBenchOptions options, std::stop_token stop)
      : options_(std::move(options)), stop_(std::move(stop)) {}

  Result<ServeBench> Run();

 private:
  Status AwaitServer();
  Status FindModel();
  Status TryARequest();
  Status MakeBodies();
  Status WarmUp();
  // Null: nobody can be asked, and words will do.
  Result<std::unique_ptr<PromptCodec>> OpenCodec();
  bool RefusesText();
  MetricSums ScrapeMetrics();
  void Load();

  ServeBenchOptions options_;
  std::stop_token stop_;
  Clock::time_point patience_ends_;
  std::unique_ptr<LoadClient> client_;
  std::string model_root_;
  std::vector<std::string> bodies_;
  std::vector<int64_t> prompt_lens_;
  ServeBench bench_;
};

// With patience: until the server can be asked for its model and its tokenizer. What it says then,
// be it a refusal, is for those who ask.
Status Bench::AwaitServer() {
  const double patience = options_.ready_check_timeout_sec.value_or(0);
  if (patience <= 0) return {};
  patience_ends_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                      std::chrono::duration<double>(patience));
  while (true) {
    const Result<int> status = ReadyStatus(options_.client);
    if (stop_.stop_requested()) return MakeError(ErrorCode::kCancelled, "stopped before the load");
    if (status && *status < 500) return {};
    if (Clock::now() >= patience_ends_) {
      return MakeError(ErrorCode::kUnavailable, "the server is not ready: {}",
                       status ? fmt::format("{}: HTTP {}", options_.client.base_url, *status)
                              : status.error().message());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

Status Bench::FindModel() {
  if (!options_.served_model_name.empty()) {
    bench_.model = options_.served_model_name;
  } else if (!options_.model.empty() && !IsTokenizerFolder(options_.model)) {
    bench_.model = options_.model;
  } else {
    auto first = FirstModel(*client_);
    if (!first) return tl::unexpected<Error>(std::move(first).error());
    bench_.model = first->id;
    model_root_ = first->root;
  }
  options_.body.model = bench_.model;
  options_.body.chat = options_.backend == "openai-chat";
  return {};
}

Result<std::unique_ptr<PromptCodec>> Bench::OpenCodec() {
  // A tokenizer that was asked for must be there; the others are only looked for.
  std::string folder = options_.tokenizer;
  if (folder.empty() && IsTokenizerFolder(options_.model)) folder = options_.model;
  if (folder.empty() && IsTokenizerFolder(model_root_)) folder = model_root_;
  if (!folder.empty()) {
    bench_.tokenizer = folder;
    return OpenTokenizerCodec(folder);
  }
  if (options_.random_vocab_size) {
    bench_.tokenizer = "ids";
    return MakeIdCodec(*options_.random_vocab_size);
  }
  auto codec = OpenServerCodec(*client_, bench_.model);
  if (codec) {
    bench_.tokenizer = "server";
    return codec;
  }
  if (options_.dataset.want_ids && RefusesText()) {
    bench_.tokenizer = "ids";
    bench_.warnings.push_back(
        fmt::format("the server takes no text ({}): prompts are token ids from 0 to {} "
                    "(--random-vocab-size)",
                    codec.error().message(), kUsualIds - 1));
    return MakeIdCodec(kUsualIds);
  }
  bench_.tokenizer = "words";
  bench_.warnings.push_back(
      fmt::format("no tokenizer (--tokenizer FOLDER) and none at the server ({}): prompts are "
                  "counted in words before the server's usage says their tokens",
                  codec.error().message()));
  return std::unique_ptr<PromptCodec>();
}

// A server without a tokenizer says so to whoever sends it text.
bool Bench::RefusesText() {
  LoadRequest request;
  request.prompt = "Hello";
  request.output_len = 1;
  const auto body = RequestBody(options_.body, request);
  return body && client_->Ask(*body).outcome == Outcome::kClientError;
}

Status Bench::MakeBodies() {
  DatasetOptions& dataset = options_.dataset;
  dataset.want_ids = !options_.body.chat && options_.prompt_format != "text";
  dataset.chat = options_.body.chat;
  std::unique_ptr<PromptCodec> codec;
  const bool needs_codec =
      dataset.path.empty() || dataset.name == "trace" || dataset.name == "sharegpt";
  if (needs_codec) {
    MOEBIUS_ASSIGN(codec, OpenCodec());
  }
  MOEBIUS_ASSIGN(const std::vector<LoadRequest> requests, MakeDataset(dataset, codec.get()));
  for (const LoadRequest& request : requests) {
    MOEBIUS_ASSIGN(std::string body, RequestBody(options_.body, request));
    bodies_.push_back(std::move(body));
    prompt_lens_.push_back(request.prompt_len);
    if (options_.self_timed && request.arrival) {
      options_.shape.timed.push_back(*request.arrival);
    }
  }
  bench_.num_prompts = static_cast<int64_t>(requests.size());
  options_.shape.num_requests = bench_.num_prompts;
  return CheckShape(options_.shape);
}

// The longest one of the load: a wrong name or key or too long an input ends the run before it
// begins; and a server may listen long before it can answer.
Status Bench::TryARequest() {
  const bool has_patience = options_.ready_check_timeout_sec.has_value();
  const double patience = options_.ready_check_timeout_sec.value_or(0);
  if (has_patience && patience <= 0) return {};
  const auto longest = std::ranges::max_element(bodies_, {}, &std::string::size);
  while (true) {
    const RequestRecord record = client_->Ask(*longest, stop_);
    if (stop_.stop_requested()) return MakeError(ErrorCode::kCancelled, "stopped before the load");
    if (record.ok()) return {};
    if (!has_patience) {
      if (record.outcome == Outcome::kRateLimited) return {};  // it works, and is busy
      return MakeError(ErrorCode::kUnavailable,
                       "the trial request before the load failed: {} "
                       "(--ready-check-timeout-sec S waits for a server, 0 sends no trial request)",
                       record.error);
    }
    const bool is_hopeless = record.outcome == Outcome::kClientError && record.status != 404;
    if (is_hopeless || Clock::now() >= patience_ends_) {
      return MakeError(ErrorCode::kUnavailable, "the server is not ready: {}", record.error);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
  }
}

Status Bench::WarmUp() {
  if (options_.num_warmups <= 0) return {};
  LoadShape shape;
  shape.num_requests = options_.num_warmups;
  shape.max_concurrency = options_.shape.max_concurrency;
  client_->SetOrigin(Clock::now());
  Transport transport;
  transport.now = [this] { return client_->Now(); };
  transport.cancel_all = [this] { client_->CancelAll(); };
  transport.send = [this](RequestRecord record, auto done) {
    const auto at = static_cast<size_t>(record.index) % bodies_.size();
    client_->Start(bodies_[at], std::move(record), std::move(done));
  };
  const LoadRun run = RunLoad(shape, transport, stop_);
  for (const RequestRecord& record : run.records) {
    if (!record.failed()) continue;
    bench_.warnings.push_back("a warm-up request failed: " + record.error);
    break;
  }
  return {};
}

MetricSums Bench::ScrapeMetrics() {
  const auto text = client_->Fetch("/metrics");
  return text ? ParseMetrics(*text) : MetricSums();
}

void Bench::Load() {
  Progress progress("requests", options_.shape.duration > 0 ? 0 : options_.shape.num_requests);
  const MetricSums before = ScrapeMetrics();
  client_->SetOrigin(Clock::now());
  Transport transport;
  transport.now = [this] { return client_->Now(); };
  transport.cancel_all = [this] { client_->CancelAll(); };
  transport.on_done = [&progress] { progress.Advance(); };
  transport.send = [this](RequestRecord record, auto done) {
    const auto at = static_cast<size_t>(record.index) % bodies_.size();
    record.prompt_tokens = prompt_lens_[at];
    client_->Start(bodies_[at], std::move(record), std::move(done));
  };
  std::optional<Probe> probe;
  if (options_.probe_request_rate > 0) {
    probe.emplace(*client_, options_.body, options_.probe_request_rate);
  }
  bench_.run = RunLoad(options_.shape, transport, stop_);
  if (probe) bench_.probe = probe->Stop();
  bench_.server = CompareMetrics(before, ScrapeMetrics());
}

Result<ServeBench> Bench::Run() {
  MOEBIUS_TRY(CheckArrivals(options_.shape.arrivals));
  MOEBIUS_ASSIGN(client_, LoadClient::Create(options_.client));
  MOEBIUS_TRY(AwaitServer());
  MOEBIUS_TRY(FindModel());
  MOEBIUS_TRY(MakeBodies());
  MOEBIUS_TRY(TryARequest());
  MOEBIUS_TRY(WarmUp());
  Load();
  const LoadShape& shape = options_.shape;
  const bool has_rate = !shape.timed.empty() || !std::isinf(RateAt(shape.arrivals, 1));
  WindowOptions window;
  if (!has_rate) window.target = shape.max_concurrency.value_or(shape.num_requests);
  bench_.figures = MeasureRun(bench_.run.records, bench_.run.duration, options_.limits, has_rate);
  bench_.steady = MeasureWindow(bench_.run.records, window);
  for (std::string& warning : GeneratorWarnings(bench_.run)) {
    bench_.warnings.push_back(std::move(warning));
  }
  if (static_cast<int64_t>(bench_.run.records.size()) > shape.num_requests) {
    bench_.warnings.push_back(fmt::format(
        "the {} prompts were sent {:.1f} times each: a prefix cache makes repeats "
        "cheaper; raise --num-prompts",
        shape.num_requests,
        static_cast<double>(bench_.run.records.size()) / static_cast<double>(shape.num_requests)));
  }
  return std::move(bench_);
}

}  // namespace

Result<ServeBench> RunServeBench(ServeBenchOptions options, std::stop_token stop) {
  return Bench(std::move(options), std::move(stop)).Run();
}

}  // namespace moebius::load
