// moebius eplb record: asks a running server for its counts now and then, and writes what came
// between as TensorRT-LLM's statistics.
#include <fmt/core.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <stop_token>

#include "app/commands.h"
#include "app/eplb.h"
#include "app/eplb_counts.h"
#include "app/flag_kinds.h"
#include "app/numbers.h"
#include "app/session.h"
#include "bench/load/answer_reader.h"
#include "bench/load/client.h"
#include "net/http_client.h"

namespace moebius::app {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr const char* kCountsPath = "/eplb/counts";
constexpr std::chrono::seconds kAnswerTime{30};
// What is recorded is kept until it is written.
constexpr size_t kMostBytes = size_t{2} << 30;
constexpr double kMostSeconds = 1e7;

std::chrono::milliseconds Milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1e3));
}

class EplbRecord : public EplbVerb {
 public:
  void AddFlags(CLI::App* app) override {
    AddText(app, "--base-url", base_url_, "The server: http://host:port");
    AddText(app, "--api-key", api_key_, "Default: the variable OPENAI_API_KEY");
    AddText(app, "--output-path,--output", output_, "Folder for the statistics, new or empty");
    AddNumber(app, "--seconds", seconds_, "Record so long (default: until Ctrl-C)");
    AddNumber(app, "--interval", interval_, "Seconds of one iteration");
    AddChoice(app, "--phase", phase_, {"all", "decode", "prefill"}, "What is counted");
  }

  Status Check() override {
    if (output_.empty()) {
      return MakeError(ErrorCode::kInvalidArgument, "--output is missing: a folder to write");
    }
    if (!(interval_ >= 0.01 && interval_ <= kMostSeconds)) {
      return MakeError(ErrorCode::kInvalidArgument, "--interval is {}, expected 0.01 to {:g} s",
                       interval_, kMostSeconds);
    }
    if (seconds_ && !(*seconds_ > 0 && *seconds_ <= kMostSeconds)) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--seconds is {}, expected more than 0, at most {:g}", *seconds_,
                       kMostSeconds);
    }
    return {};
  }

  Result<int> Run(Interrupt& interrupt) override {
    net::HttpClientOptions options;
    options.base_url = load::ServerRoot(base_url_);
    options.total_timeout = kAnswerTime;
    auto client = net::HttpClient::Create(options);
    if (!client) return tl::unexpected(client.error().WithContext("--base-url"));
    client_ = std::move(*client);
    const char* variable = std::getenv("OPENAI_API_KEY");
    if (api_key_.empty() && variable != nullptr) api_key_ = variable;

    MOEBIUS_ASSIGN(ServerCounts first, Ask());
    MOEBIUS_TRY(plan::MakeStatisticsFolder(output_));
    CountRecorder recorder(std::move(first));
    const std::stop_token stop = interrupt.Begin();
    // A server that leaves ends the recording, but does not take it along.
    const Status status = Record(stop, recorder);
    interrupt.End();
    if (status || recorder.num_iterations() > 0) MOEBIUS_TRY(Write(recorder));
    if (!status) return tl::unexpected(status.error().WithContext("the recording ended early"));
    return kExitOk;
  }

 private:
  Result<ServerCounts> Ask() const {
    net::HttpRequest request;
    request.target = kCountsPath;
    if (!api_key_.empty()) request.headers.push_back({"Authorization", "Bearer " + api_key_});
    const Result<net::HttpResponse> response = client_->Fetch(std::move(request));
    if (!response) return tl::unexpected(response.error().WithContext(base_url_));
    if (response->status != 200) {
      return MakeError(ErrorCode::kUnavailable, "{}: {} answers {}: {}", base_url_, kCountsPath,
                       response->status, load::ErrorMessageOf(response->body));
    }
    const CountedPhase phase = phase_ == "all"      ? CountedPhase::kAll
                               : phase_ == "decode" ? CountedPhase::kDecode
                                                    : CountedPhase::kPrefill;
    auto counts = ParseServerCounts(response->body, phase);
    if (!counts) return tl::unexpected(counts.error().WithContext(base_url_));
    return std::move(*counts);
  }

  Status Record(const std::stop_token& stop, CountRecorder& recorder) const {
    std::mutex mutex;
    std::condition_variable_any wake;
    std::unique_lock lock(mutex);
    const auto begin = SteadyClock::now();
    const auto end = seconds_ ? begin + Milliseconds(*seconds_) : SteadyClock::time_point::max();
    auto next = begin;
    while (!stop.stop_requested() && next < end) {
      // A late answer makes its interval longer, and no later one shorter.
      next = std::min(std::max(next + Milliseconds(interval_), SteadyClock::now()), end);
      wake.wait_until(lock, stop, next, [] { return false; });
      MOEBIUS_ASSIGN(ServerCounts counts, Ask());
      MOEBIUS_TRY(recorder.Add(std::move(counts)));
      if (recorder.num_bytes() <= kMostBytes) continue;
      fmt::print(stderr, "moebius: {} GiB are recorded: enough; a longer --interval needs less\n",
                 kMostBytes >> 30);
      break;
    }
    return {};
  }

  Status Write(const CountRecorder& recorder) const {
    if (recorder.num_iterations() == 0) {
      return MakeError(
          ErrorCode::kUnavailable,
          "{}: nothing was counted meanwhile, so nothing is written: expected requests", base_url_);
    }
    MOEBIUS_TRY(plan::WriteStatistics(output_, recorder.ranks()));
    const plan::ExpertStatistics& any = recorder.ranks().front();
    const int64_t per_token =
        any.meta.num_experts_per_token * static_cast<int64_t>(any.layers.size());
    fmt::print("{}: {}, {} of {} experts, {}, about {}\n", output_,
               Count(static_cast<int64_t>(recorder.num_iterations()), "iteration"),
               Count(static_cast<int64_t>(any.layers.size()), "layer"), any.meta.num_experts,
               Count(static_cast<int64_t>(recorder.ranks().size()), "rank"),
               Count(recorder.num_tokens() / per_token, "token"));
    return {};
  }

  std::string base_url_ = "http://127.0.0.1:8000";
  std::string api_key_;
  std::string output_;
  std::optional<double> seconds_;
  double interval_ = 1;
  std::string phase_ = "all";
  std::unique_ptr<net::HttpClient> client_;
};

}  // namespace

std::unique_ptr<EplbVerb> MakeEplbRecord() { return std::make_unique<EplbRecord>(); }

}  // namespace moebius::app
