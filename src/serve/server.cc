#include "serve/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <ctime>
#include <exception>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/log.h"
#include "serve/access.h"
#include "serve/call_runner.h"
#include "serve/counts_json.h"
#include "serve/health.h"
#include "serve/metrics.h"
#include "serve/openai/api_call.h"
#include "serve/openai/api_result.h"
#include "serve/reply.h"
#include "serve/routes.h"
#include "serve/stats_recorder.h"
#include "serve/text_pool.h"

namespace moebius::serve {
namespace {

using Clock = std::chrono::steady_clock;
using ReplyPtr = std::shared_ptr<Reply>;

// After drain_timeout: for cut calls to tell their clients.
constexpr std::chrono::milliseconds kFarewell{2000};

// Names go into JSON, metrics and logs.
bool IsPrintable(const std::string& name) {
  const auto is_control = [](char c) { return (c >= 0 && c < ' ') || c == '\x7f'; };
  if (name.empty() || std::ranges::any_of(name, is_control)) return false;
  try {
    (void)nlohmann::json(name).dump();
  } catch (const nlohmann::json::exception&) {  // not UTF-8
    return false;
  }
  return true;
}

std::string DescribeBytes(const std::string& name) {
  return nlohmann::json(name).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

Status Validate(const ServerOptions& options) {
  const auto expect = [](bool ok, const char* name, auto value, const char* expected) -> Status {
    if (ok) return {};
    return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected {}", name, value, expected);
  };
  MOEBIUS_TRY(expect(!options.served_model_names.empty(), "served_model_names", "empty",
                     "at least one name"));
  for (const std::string& name : options.served_model_names) {
    MOEBIUS_TRY(expect(IsPrintable(name), "a served model name", DescribeBytes(name),
                       "UTF-8 without control characters"));
  }
  MOEBIUS_TRY(expect(options.num_text_threads >= 1, "num_text_threads", options.num_text_threads,
                     "at least 1"));
  MOEBIUS_TRY(expect(options.max_queued_requests >= 1, "max_queued_requests",
                     options.max_queued_requests, "at least 1"));
  MOEBIUS_TRY(expect(options.max_unread_bytes >= 1, "max_unread_bytes", options.max_unread_bytes,
                     "at least 1"));
  MOEBIUS_TRY(expect(options.request_timeout.count() >= 0, "request_timeout",
                     options.request_timeout.count(), "0 (none) or milliseconds"));
  MOEBIUS_TRY(expect(options.drain_timeout.count() >= 0, "drain_timeout",
                     options.drain_timeout.count(), "at least 0 milliseconds"));
  MOEBIUS_TRY(expect(options.stall_seconds > 0, "stall_seconds", options.stall_seconds,
                     "more than 0 seconds"));
  for (const std::string& key : options.api_keys) {
    MOEBIUS_TRY(expect(!key.empty(), "an API key", "empty", "at least one character"));
  }
  return {};
}

ApiContext MakeContext(const ServerOptions& options, const frontend::Frontend& frontend) {
  ApiContext context;
  context.model_names = options.served_model_names;
  context.encoder = &frontend.encoder();
  context.limits = frontend.engine().limits();
  context.defaults = options.defaults;
  context.max_logprobs = options.max_logprobs;
  context.reasoning_parser = options.reasoning_parser;
  context.max_choices = options.max_choices;
  return context;
}

net::HttpResponse TextResponse(std::string body, const char* content_type) {
  net::HttpResponse response;
  response.body = std::move(body);
  response.content_type = content_type;
  return response;
}

class ServerImpl : public Server {
 public:
  ServerImpl(const ServerOptions& options, frontend::Frontend* frontend)
      : options_(options),
        frontend_(frontend),
        api_(MakeContext(options, *frontend)),
        stats_(options.log_requests),
        metrics_(options.version),
        text_pool_(options.num_text_threads, options.max_queued_requests, options.max_queued_bytes),
        calls_({options.request_timeout},
               {frontend, &api_, &text_pool_, &stats_, options.max_unread_bytes, {}}) {}

  // Text work first: it is what answers. Then the calls, then their connections.
  ~ServerImpl() override {
    text_pool_.Stop();
    calls_.Stop();
    http_.reset();
  }

  Status Listen() {
    net::HttpServerOptions http = options_.http;
    http.wants_body = [this](const net::HttpRequest& head) { return WantsBody(head); };
    MOEBIUS_ASSIGN(http_, net::HttpServer::Start(
                              http,
                              [this](net::HttpRequest request, auto exchange) {
                                Handle(std::move(request), std::move(exchange));
                              },
                              [](int status, const std::string& message) {
                                return ErrorBody({status, message, "", "", {}});
                              }));
    listening_ = http_.get();
    return {};
  }

  int port() const override { return http_->port(); }
  Status Drain() override;
  Snapshot TakeSnapshot() const override;

 private:
  bool WantsBody(const net::HttpRequest& head) const;
  void Handle(net::HttpRequest request, std::shared_ptr<net::Exchange> exchange);
  void HandleNoRoute(const net::HttpRequest& request, const RouteMatch& match, Reply* reply);
  void Dispatch(const RouteMatch& match, net::HttpRequest request, const ReplyPtr& reply);
  void Complete(ParseCall parse, net::HttpRequest request, const ReplyPtr& reply);
  void OnTextThread(size_t bytes, const ReplyPtr& reply, std::function<BodyResult()> work);
  void SendHealth(Action action, Reply* reply) const;
  HealthInput TakeHealth() const;

  const ServerOptions options_;
  frontend::Frontend* const frontend_;
  const ApiContext api_;
  const int64_t created_ = std::time(nullptr);
  const Clock::time_point start_ = Clock::now();
  std::atomic<bool> is_draining_{false};
  StatsRecorder stats_;
  Metrics metrics_;
  TextPool text_pool_;
  CallRunner calls_;
  std::unique_ptr<net::HttpServer> http_;
  std::atomic<net::HttpServer*> listening_{nullptr};  // http_, for requests that are quicker
};

// Memory is for callers who may call: what Handle refuses anyway is not read.
bool ServerImpl::WantsBody(const net::HttpRequest& head) const {
  const RouteMatch match = FindRoute(head.method, head.path());
  if (match.route == nullptr || !TakesBody(match.route->action)) return false;
  return match.route->is_open || IsAuthorized(head, options_.api_keys);
}

void ServerImpl::Handle(net::HttpRequest request, std::shared_ptr<net::Exchange> exchange) {
  const RouteMatch match = FindRoute(request.method, request.path());
  std::string request_id = RequestIdOf(request);
  std::vector<net::HttpHeader> headers = CorsHeaders(request, options_.allowed_origins);
  if (options_.request_id_headers) headers.push_back({"X-Request-Id", request_id});
  const auto reply = std::make_shared<Reply>(std::move(exchange), &stats_, match.route,
                                             std::move(request_id), std::move(headers));
  try {
    if (match.route == nullptr) return HandleNoRoute(request, match, reply.get());
    if (!match.route->is_open && !IsAuthorized(request, options_.api_keys)) {
      net::HttpResponse response = ErrorResponse(
          {401,
           "this needs the header \"Authorization: Bearer KEY\" with one of the server's keys",
           "",
           "",
           {}});
      response.headers.push_back({"WWW-Authenticate", "Bearer"});
      return reply->Send(std::move(response));
    }
    Dispatch(match, std::move(request), reply);
  } catch (const std::exception& error) {
    LogError("a request failed: {}", error.what());
    reply->SendError({500, std::string("the server failed: ") + error.what(), "", "", {}});
  }
}

void ServerImpl::HandleNoRoute(const net::HttpRequest& request, const RouteMatch& match,
                               Reply* reply) {
  if (match.allow.empty()) {
    return reply->SendError({404, NoRouteMessage(request.path()), "", "", {}});
  }
  const std::string allow = match.allow + ", OPTIONS";
  if (request.method == "OPTIONS") return reply->Send(Preflight(request, allow));
  net::HttpResponse response = ErrorResponse(
      {405,
       fmt::format("{} takes {}, not {}", request.path(), match.allow, request.method),
       "",
       "",
       {}});
  response.headers.push_back({"Allow", allow});
  reply->Send(std::move(response));
}

void ServerImpl::Dispatch(const RouteMatch& match, net::HttpRequest request,
                          const ReplyPtr& reply) {
  const Action action = match.route->action;
  const auto body_call = [&](BodyResult (*call)(std::string_view, const ApiContext&)) {
    const size_t bytes = request.body.size();
    OnTextThread(bytes, reply,
                 [this, call, body = std::move(request.body)] { return call(body, api_); });
  };
  switch (action) {
    case Action::kChatCompletions:
    case Action::kCompletions:
      return Complete(action == Action::kCompletions ? ParseCompletion : ParseChatCompletion,
                      std::move(request), reply);
    case Action::kTokenize:
      return body_call(Tokenize);
    case Action::kDetokenize:
      return body_call(Detokenize);
    case Action::kTokenizerInfo:
      return OnTextThread(0, reply, [this] { return TokenizerInfo(api_); });
    case Action::kModels:
      return reply->SendJson(Models(api_, options_.model_root, created_));
    case Action::kModel: {
      BodyResult model = Model(match.argument, api_, options_.model_root, created_);
      return model ? reply->SendJson(std::move(*model)) : reply->SendError(model.error());
    }
    case Action::kVersion:
      return reply->SendJson(fmt::format(R"({{"version":"{}"}})", options_.version));
    case Action::kLoad:
      return reply->SendJson(fmt::format(R"({{"server_load":{}}})", calls_.num_calls()));
    case Action::kHealth:
    case Action::kHealthLive:
    case Action::kHealthReady:
    case Action::kHealthProgress:
      return SendHealth(action, reply.get());
    case Action::kMetrics:
      return text_pool_.Post([this, reply] {
        reply->Send(TextResponse(metrics_.Text(TakeSnapshot()), kMetricsContentType));
      });
    case Action::kStats: {
      const bool with_experts = request.query().find("experts=0") == std::string_view::npos;
      return text_pool_.Post([this, reply, with_experts] {
        reply->SendJson(metrics_.Stats(TakeSnapshot(), with_experts));
      });
    }
    case Action::kExpertCounts:
      return text_pool_.Post([this, reply] {
        const engine::EngineClient& engine = frontend_->engine();
        reply->SendJson(CountsJson(options_.model, engine.Placement(), engine.ExpertLoadByRank()));
      });
    case Action::kPage:
      if (options_.page) {
        return reply->Send(TextResponse(std::string(PageHtml()), "text/html; charset=utf-8"));
      }
      return reply->SendError({404, "the page is turned off", "", "", {}});
  }
}

void ServerImpl::Complete(ParseCall parse, net::HttpRequest request, const ReplyPtr& reply) {
  if (is_draining_) return reply->SendError({503, "the server is shutting down", "", "", 1});
  const auto rank = DataParallelRankOf(request, api_.limits.data_parallel_size);
  if (!rank) return reply->SendError(RequestError(rank.error(), kDataParallelRankHeader));
  calls_.Run(parse, std::move(request.body), reply, *rank);
}

// Work that needs no engine; refused when too much waits.
void ServerImpl::OnTextThread(size_t bytes, const ReplyPtr& reply,
                              std::function<BodyResult()> work) {
  const bool posted = text_pool_.TryPost(bytes, [reply, work = std::move(work)] {
    try {
      BodyResult body = work();
      body ? reply->SendJson(std::move(*body)) : reply->SendError(body.error());
    } catch (const std::exception& error) {
      LogError("a request failed: {}", error.what());
      reply->SendError({500, std::string("the server failed: ") + error.what(), "", "", {}});
    }
  });
  if (posted) return;
  stats_.OnQueueFull();
  reply->SendError({429, "too many requests wait; try again later", "", "", 1});
}

HealthInput ServerImpl::TakeHealth() const {
  HealthInput input;
  input.engine = frontend_->engine().Health();
  input.stats = frontend_->engine().Stats();
  input.stall_seconds = options_.stall_seconds;
  input.is_draining = is_draining_;
  return input;
}

void ServerImpl::SendHealth(Action action, Reply* reply) const {
  if (action == Action::kHealthLive) return reply->SendJson(R"({"status":"alive"})");
  const HealthInput input = TakeHealth();
  const Status health = JudgeHealth(input);
  if (action == Action::kHealthProgress) {
    return reply->SendJson(ProgressJson(input), health ? 200 : 503);
  }
  if (!health) return reply->SendError({503, health.error().message(), "", "", 1});
  if (action == Action::kHealthReady) return reply->SendJson(R"({"status":"ready"})");
  reply->Send(TextResponse("", "text/plain"));
}

Status ServerImpl::Drain() {
  is_draining_ = true;
  const Clock::time_point deadline = Clock::now() + options_.drain_timeout;
  // Until then whoever asks is told so: a load balancer by /health, a caller by 503.
  int64_t num_cut = 0;
  if (!calls_.WaitUntilNone(deadline)) {
    num_cut = calls_.AbortAll(
        {503, "the server is shutting down and waited for this request as long as it may", "", "",
         1});
  }
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
  Status closed = http_->Drain(std::max(left, std::chrono::milliseconds(0)) + kFarewell);
  if (num_cut == 0) return closed;
  return MakeError(ErrorCode::kDeadline, "{} requests were not done after {} ms and were cut off",
                   num_cut, options_.drain_timeout.count());
}

Snapshot ServerImpl::TakeSnapshot() const {
  const Status health = JudgeHealth(TakeHealth());
  Snapshot snapshot;
  snapshot.model_name = options_.served_model_names.front();
  snapshot.model = options_.model;
  snapshot.limits = api_.limits;
  snapshot.engine = frontend_->engine().Stats();
  snapshot.experts = frontend_->engine().ExpertLoad();
  snapshot.ranks = frontend_->engine().RankLoads();
  snapshot.placement = frontend_->engine().Placement();
  snapshot.server = stats_.Take();
  snapshot.server.num_calls = calls_.num_calls();
  snapshot.server.num_unread_bytes = calls_.num_unread_bytes();
  snapshot.server.num_text_queued = text_pool_.num_queued();
  snapshot.server.is_draining = is_draining_;
  if (const net::HttpServer* http = listening_) snapshot.server.http = http->stats();
  snapshot.is_healthy = health.has_value();
  snapshot.health = health ? "" : health.error().message();
  snapshot.uptime_seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  return snapshot;
}

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(const ServerOptions& options,
                                              frontend::Frontend* frontend) {
  MOEBIUS_TRY(Validate(options));
  auto server = std::make_unique<ServerImpl>(options, frontend);
  MOEBIUS_TRY(server->Listen());
  return server;
}

}  // namespace moebius::serve
