#include "net/http_server.h"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/ip/v6_only.hpp>
#include <future>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "net/event_loop.h"
#include "net/server_connection.h"

namespace moebius::net {
namespace {

// Refused connections that may stay a moment to read why; beyond, they are just closed.
constexpr int64_t kMaxRefusals = 256;
constexpr std::chrono::milliseconds kAcceptPause{100};
constexpr std::chrono::milliseconds kDrainGrace{500};

// How often deadlines are looked at: fine enough for the shortest of them.
std::chrono::milliseconds SweepPeriod(const HttpServerOptions& options) {
  const auto shortest = std::min(
      {options.header_timeout, options.body_timeout, options.idle_timeout, options.write_timeout});
  return std::clamp(shortest / 8, std::chrono::milliseconds(5), std::chrono::milliseconds(250));
}

class Server : public HttpServer {
 public:
  Server(const HttpServerOptions& options, Handler handler,
         std::function<std::string(int, const std::string&)> error_body) {
    shared_.options = options;
    shared_.handler = std::move(handler);
    shared_.error_body = std::move(error_body);
    for (int i = 0; i < std::max(1, options.num_threads); ++i) {
      threads_.push_back(std::make_unique<Lane>(i));
    }
    acceptor_.emplace(threads_[0]->loop->executor());
    accept_pause_.emplace(threads_[0]->loop->executor());
  }

  ~Server() override {
    if (!is_running_) return;
    StopAccepting();
    for (const auto& lane : threads_) {
      lane->loop->Stop([&lane] {
        lane->sweep.cancel();
        lane->is_stopping = true;
        for (ServerConnection* connection : lane->connections) connection->Abort();
      });
    }
  }

  Status Listen();

  int port() const override { return port_; }

  Stats stats() const override {
    return {shared_.num_connections.load(), shared_.num_requests.load(),
            shared_.num_malformed.load(), shared_.num_body_bytes.load()};
  }

  Status Drain(std::chrono::milliseconds timeout) override;

 private:
  struct Lane : ServerThread {
    explicit Lane(int i)
        : sweep((loop = std::make_shared<EventLoop>("http-" + std::to_string(i)))->executor()) {}
    Timer sweep;
    bool is_stopping = false;
  };

  void StopAccepting();
  void Accept();
  void OnAccepted(const ErrorStatus& error, Socket socket, Lane* lane);
  void Sweep(Lane* lane);

  ServerShared shared_;
  std::vector<std::unique_ptr<Lane>> threads_;
  std::optional<Acceptor> acceptor_;   // of threads_[0]
  std::optional<Timer> accept_pause_;  // of threads_[0]
  size_t next_lane_ = 0;
  bool is_accepting_ = true;  // threads_[0] only
  bool told_accept_error_ = false;
  bool is_running_ = false;
  int port_ = 0;
};

// The first address of the host that can be listened on; IPv4 before IPv6 for a name of both.
Status Server::Listen() {
  const HttpServerOptions& options = shared_.options;
  const std::string name = options.host.find(':') == std::string::npos
                               ? fmt::format("{}:{}", options.host, options.port)
                               : fmt::format("[{}]:{}", options.host, options.port);
  if (options.port < 0 || options.port > 65535) {
    return MakeError(ErrorCode::kInvalidArgument, "cannot listen on {}: a port is 0 to 65535",
                     name);
  }
  ErrorStatus error;
  tcp::resolver resolver(threads_[0]->loop->io());
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error) {
    return MakeError(ErrorCode::kUnavailable, "cannot listen on {}: {}", name, error.message());
  }
  std::vector<tcp::endpoint> endpoints;
  for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  std::stable_sort(endpoints.begin(), endpoints.end(),
                   [](const tcp::endpoint& a, const tcp::endpoint& b) {
                     return a.address().is_v4() && !b.address().is_v4();
                   });
  for (const tcp::endpoint& endpoint : endpoints) {
    ErrorStatus ignored;
    acceptor_->close(ignored);
    acceptor_->open(endpoint.protocol(), error);
    if (!error) acceptor_->set_option(Acceptor::reuse_address(true), error);
    // "::" takes IPv4 too.
    if (endpoint.address().is_v6()) acceptor_->set_option(asio::ip::v6_only(false), ignored);
    if (!error) acceptor_->bind(endpoint, error);
    if (!error) acceptor_->listen(4096, error);
    if (!error) break;
  }
  if (error) {
    return MakeError(ErrorCode::kUnavailable, "cannot listen on {}: {}", name, error.message());
  }
  port_ = acceptor_->local_endpoint(error).port();
  if (error) return MakeError(ErrorCode::kUnavailable, "{}: {}", name, error.message());
  RaiseFileLimit();
  is_running_ = true;
  for (const auto& lane : threads_) {
    Sweep(lane.get());
    lane->loop->Run();
  }
  threads_[0]->loop->Post([this] { Accept(); });
  return {};
}

void Server::Sweep(Lane* lane) {
  lane->sweep.expires_after(SweepPeriod(shared_.options));
  lane->sweep.async_wait([this, lane](const ErrorStatus& error) {
    if (error || lane->is_stopping) return;
    const Clock::time_point now = Clock::now();
    for (ServerConnection* connection : lane->connections) connection->CheckDeadline(now);
    Sweep(lane);
  });
}

void Server::Accept() {
  if (!is_accepting_) return;
  Lane* lane = threads_[next_lane_++ % threads_.size()].get();
  acceptor_->async_accept(lane->loop->io(), [this, lane](const ErrorStatus& error, Socket socket) {
    OnAccepted(error, std::move(socket), lane);
  });
}

void Server::OnAccepted(const ErrorStatus& error, Socket socket, Lane* lane) {
  if (!is_accepting_) return;
  if (error) {
    // Out of files or memory: what is open goes on, and frees some.
    if (error != asio::error::connection_aborted) {
      if (!std::exchange(told_accept_error_, true)) {
        LogWarning("http: a connection cannot be accepted: {}; trying again", error.message());
      }
      accept_pause_->expires_after(kAcceptPause);
      accept_pause_->async_wait([this](const ErrorStatus&) { Accept(); });
      return;
    }
    Accept();
    return;
  }
  told_accept_error_ = false;
  const int64_t num_before = shared_.num_connections.load();
  const int64_t max = shared_.options.max_connections;
  if (num_before < max + kMaxRefusals) {
    shared_.num_connections.fetch_add(1);
    const bool refuse = num_before >= max;
    const auto start = [this, lane, refuse](Socket s) {
      auto connection = std::make_shared<ServerConnection>(std::move(s), &shared_, lane, refuse);
      if (!lane->is_stopping) connection->Start();
    };
    if (lane->loop->OnThread()) {
      start(std::move(socket));
    } else {
      asio::post(lane->loop->io(),
                 [start, s = std::move(socket)]() mutable { start(std::move(s)); });
    }
  }
  Accept();
}

void Server::StopAccepting() {
  std::promise<void> done;
  threads_[0]->loop->Post([this, &done] {
    is_accepting_ = false;
    ErrorStatus ignored;
    acceptor_->close(ignored);
    accept_pause_->cancel();
    done.set_value();
  });
  done.get_future().wait();
}

Status Server::Drain(std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  shared_.is_draining = true;
  StopAccepting();
  for (const auto& lane : threads_) {
    lane->loop->Post([&lane] {
      for (ServerConnection* connection : lane->connections) connection->LookAgain();
    });
  }
  const auto all_closed = [this] { return shared_.num_connections.load() == 0; };
  std::unique_lock lock(shared_.mutex);
  if (shared_.connection_closed.wait_until(lock, deadline, all_closed)) return {};
  const int64_t num_open = shared_.num_connections.load();
  for (const auto& lane : threads_) {
    lane->loop->Post([&lane] {
      for (ServerConnection* connection : lane->connections) connection->Abort();
    });
  }
  shared_.connection_closed.wait_until(lock, Clock::now() + kDrainGrace, all_closed);
  return MakeError(ErrorCode::kDeadline,
                   "{} connections were still open after {} ms of draining and are closed now",
                   num_open, timeout.count());
}

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::Start(
    const HttpServerOptions& options, Handler handler,
    std::function<std::string(int, const std::string&)> error_body) {
  auto server = std::make_unique<Server>(options, std::move(handler), std::move(error_body));
  MOEBIUS_TRY(server->Listen());
  return server;
}

}  // namespace moebius::net
