// moebius serve: a model behind OpenAI's API until a signal ends it.
#include "serve/server.h"

#include <fmt/core.h>

#include <unistd.h>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <mutex>
#include <stop_token>

#include "app/commands.h"
#include "app/last_patience.h"
#include "app/load_table.h"
#include "app/model_folder.h"
#include "app/session.h"
#include "app/standard_output.h"
#include "base/log.h"
#include "frontend/open_ranks.h"
#include "serve/step_log.h"

namespace moebius::app {
namespace {

using std::chrono::milliseconds;

// For the threads to end once nothing is to be done: a step of a large model, and no device that
// hangs.
constexpr milliseconds kPatience{5000};
constexpr milliseconds kRanksPatience{20000};  // each has a process to end

milliseconds Milliseconds(double seconds) {
  return std::chrono::duration_cast<milliseconds>(std::chrono::duration<double>(seconds));
}

serve::ModelFacts FactsOf(const frontend::OpenedModel& opened, const frontend::OpenOptions& open) {
  const model::ModelConfig& config = opened.config;
  serve::ModelFacts facts;
  facts.dtype = open.dtype != "auto"          ? open.dtype
                : config.dtype == DType::kF32 ? "float32"
                                              : "bfloat16";
  facts.kv_cache_dtype = open.kv_cache_dtype != "auto" ? open.kv_cache_dtype : facts.dtype;
  facts.architecture = config.architecture.empty() ? config.model_type : config.architecture;
  facts.weight_bytes = opened.weight_bytes;
  facts.num_layers = config.num_layers;
  facts.num_moe_layers = config.num_moe_layers();
  facts.num_experts = config.moe.num_experts;
  facts.experts_per_token = config.moe.top_k;
  for (size_t layer = 0; layer < config.layers.size(); ++layer) {
    if (config.layers[layer].moe) facts.moe_layers.push_back(static_cast<int64_t>(layer));
  }
  for (int64_t i = 0; i < config.num_mtp_layers && config.moe.num_experts > 0; ++i) {
    facts.moe_layers.push_back(config.num_layers + i);
  }
  facts.expert_statistics = open.engine.expert_statistics;
  facts.block_size = open.engine.block_size;
  facts.gpu_memory_utilization = open.engine.memory_fraction;
  facts.enable_prefix_caching = open.engine.enable_prefix_caching;
  return facts;
}

serve::ServerOptions ServerOptionsOf(const ServeOptions& options) {
  serve::ServerOptions server;
  server.http.host = options.host;
  server.http.port = options.port;
  if (options.http_threads) server.http.num_threads = *options.http_threads;
  if (options.max_body_bytes) {
    server.http.max_body_bytes = static_cast<size_t>(*options.max_body_bytes);
  }
  server.served_model_names = options.served_model_names;
  if (server.served_model_names.empty()) server.served_model_names = {options.open.model};
  server.model_root = options.open.model;
  server.version = MOEBIUS_VERSION;
  server.api_keys = options.api_keys;
  if (!options.allowed_origins.empty()) server.allowed_origins = options.allowed_origins;
  server.reasoning_parser = options.reasoning_parser;
  if (options.max_logprobs) {
    server.max_logprobs = *options.max_logprobs < 0 ? engine::kMaxLogprobs : *options.max_logprobs;
  }
  if (options.text_threads) server.num_text_threads = *options.text_threads;
  if (options.max_queued_requests) server.max_queued_requests = *options.max_queued_requests;
  if (options.request_timeout) server.request_timeout = Milliseconds(*options.request_timeout);
  if (options.drain_timeout) server.drain_timeout = Milliseconds(*options.drain_timeout);
  if (options.stall_seconds) server.stall_seconds = *options.stall_seconds;
  server.page = options.page;
  server.log_requests = options.log_requests;
  return server;
}

// Whether the address can be had, before minutes go into loading a model.
Status CheckAddress(const net::HttpServerOptions& http) {
  const auto server = net::HttpServer::Start(
      http, [](const net::HttpRequest&, const std::shared_ptr<net::Exchange>& exchange) {
        exchange->Respond({503, "text/plain", {}, "the model is being loaded\n"});
      });
  if (server) return {};
  const Error& error = server.error();
  const bool is_taken = error.message().find("in use") != std::string::npos;
  return MakeError(error.code(), "{}{}", error.message(),
                   is_taken ? "; --port names another, --port 0 takes any that is free" : "");
}

// A wildcard is no address that a browser takes.
std::string UrlOf(const std::string& host, int port) {
  const std::string name = host.empty() || host == "0.0.0.0" ? "127.0.0.1"
                           : host == "::"                    ? "::1"
                                                             : host;
  const bool is_v6 = name.find(':') != std::string::npos;
  return fmt::format("http://{}{}{}:{}", is_v6 ? "[" : "", name, is_v6 ? "]" : "", port);
}

// Until a signal asks for the end, or the engine cannot go on: its reason, once those who wait have
// been told.
Status WaitForEnd(const engine::EngineClient& engine, const std::stop_token& stop) {
  constexpr milliseconds kBetweenLooks{250};
  constexpr milliseconds kFarewell{3000};
  std::mutex mutex;
  std::condition_variable_any never;
  std::unique_lock lock(mutex);
  const auto sleep = [&](milliseconds time) {
    never.wait_for(lock, stop, time, [] { return false; });
  };
  while (!stop.stop_requested()) {
    if (!engine.Health()) {
      sleep(kFarewell);
      MOEBIUS_TRY(engine.Health());
    }
    sleep(kBetweenLooks);
  }
  return {};
}

void PrintReady(const ServeOptions& options, const serve::ServerOptions& server_options, int port) {
  const std::string url = UrlOf(options.host, port);
  const layout::ParallelConfig& parallel = options.open.parallel;
  const std::string ranks =
      parallel.num_gpus() == 1
          ? ""
          : fmt::format(" on {} ranks ({})", parallel.num_gpus(), layout::ConfigName(parallel));
  fmt::print("Moebius serves {}{}: API at {}/v1", server_options.served_model_names.front(), ranks,
             url);
  if (server_options.page) fmt::print(", page at {}/", url);
  fmt::print("\n");
  FlushStandardOutput();
}

}  // namespace

Result<int> ServeCommand(const ServeOptions& options, Interrupt& interrupt) {
  if (options.dry_run) return DryRun(options);
  // A reader of standard output that leaves must not end a server.
  std::signal(SIGPIPE, SIG_IGN);
  if (options.log_requests && !LogEnabled(LogLevel::kInfo)) SetLogLevel(LogLevel::kInfo);
  serve::ServerOptions server_options = ServerOptionsOf(options);
  frontend::OpenOptions open = options.open;
  MOEBIUS_ASSIGN(const ModelFolder folder, ModelFolder::Find(open));
  if (!options.step_log.empty()) {
    MOEBIUS_ASSIGN(std::shared_ptr<serve::StepLog> log, serve::StepLog::Open(options.step_log));
    open.engine.on_step = serve::StepLog::Observer(std::move(log));
  }
  LastPatience patience;  // outlives the engine and the server
  MOEBIUS_ASSIGN(frontend::PreparedModel prepared, folder.Named(frontend::Prepare(open)));
  MOEBIUS_TRY(CheckAddress(server_options.http));
  if (open.parallel.num_gpus() > 1) {
    fmt::print(stderr, "moebius: {}\n", frontend::DescribeRanks(open, prepared.config));
    const std::string balance = frontend::DescribeBalance(open, prepared.config);
    if (!balance.empty()) fmt::print(stderr, "moebius: {}\n", balance);
    for (const std::string& line : frontend::DescribeBinding(open)) {
      fmt::print(stderr, "moebius: {}\n", line);
    }
  }
  MOEBIUS_ASSIGN(const frontend::OpenedModel opened,
                 folder.Named(frontend::Load(std::move(prepared))));

  if (options.generation_config == "auto") server_options.defaults = opened.defaults;
  server_options.defaults.Override(options.sampling);
  server_options.model = FactsOf(opened, open);
  const engine::EngineClient& engine = opened.frontend->engine();
  MOEBIUS_ASSIGN(const std::unique_ptr<serve::Server> server,
                 serve::Server::Start(server_options, opened.frontend.get()));
  const std::stop_token stop = interrupt.Begin();
  PrintReady(options, server_options, server->port());

  if (const Status ended = WaitForEnd(engine, stop); !ended) {
    PrintError(ended.error().WithContext("the engine cannot go on"));
    // Its threads may hang in the very step that failed: nothing is waited for.
    std::fflush(nullptr);
    _exit(kExitFailure);
  }
  fmt::print(stderr,
             "moebius: stopping; what is running may end first, a second signal cuts it off\n");
  if (const Status drained = server->Drain(); !drained) {
    fmt::print(stderr, "moebius: {}\n", drained.error().message());
  }
  if (options.parallel.print_load) PrintLoad(opened);
  patience.Begin(opened.parallel.num_gpus() > 1 ? kRanksPatience : kPatience, "the engine");
  return kExitOk;
}

}  // namespace moebius::app
