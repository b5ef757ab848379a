#include "net/http_client.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/log.h"
#include "net/client_link.h"
#include "net/event_loop.h"
#include "net/http_reader.h"
#include "net/http_url.h"
#include "net/http_writer.h"

namespace moebius::net {

namespace {

constexpr std::chrono::seconds kMaxIdle{30};
constexpr size_t kScratchBytes = 64 << 10;
constexpr size_t kReadBeforeYield = 1 << 20;

class Client;

// One request under way: a coroutine on the client's thread.
class Call : public LoopTask, public std::enable_shared_from_this<Call> {
 public:
  Call(Client* client, int64_t handle, HttpRequest request, HttpCallbacks callbacks);

  void OnNews() override;  // its start, then its cancellation
  void Cancel() { is_cancelled_.store(true); }
  void CheckDeadline(Clock::time_point now) {
    if (now >= deadline_ || now >= connect_deadline_) event_.Set();
  }
  void OnAddress(Status status) {  // the server's, or why there is none
    address_ = std::move(status);
    event_.Set();
  }

 private:
  Awaitable<> Run(std::shared_ptr<Call> self);
  Awaitable<Status> Perform();
  Awaitable<Status> Connect();
  Awaitable<Status> ConnectTo(const tcp::endpoint* endpoint, Clock::time_point deadline);
  Awaitable<Status> Handshake();
  Awaitable<Status> Talk(ResponseReader* reader);
  Awaitable<> Wait(bool for_bytes, bool for_room);
  Status Interrupted();  // cancelled, or too late
  void End(const Status& status);

  Client* const client_;
  const int64_t handle_;
  HttpRequest request_;
  HttpCallbacks callbacks_;
  ResponseReader::Sink sink_;
  Event event_;
  std::unique_ptr<ClientLink> link_;
  Clock::time_point deadline_ = Clock::time_point::max();
  Clock::time_point connect_deadline_ = Clock::time_point::max();
  Clock::time_point arrival_;
  std::optional<Status> address_;
  std::optional<ErrorStatus> connected_;
  std::string out_head_;
  size_t num_since_yield_ = 0;
  std::atomic<bool> is_cancelled_{false};
  bool has_started_ = false;
  // Waits are the socket's: one that is left behind when a link goes is not the next link's.
  int64_t num_links_ = 0;
  bool is_watching_ = false;
  bool awaits_room_ = false;
  bool is_sent_ = false;  // the whole request
};

class Client : public HttpClient {
 public:
  Client(const HttpClientOptions& options, HttpUrl url, std::unique_ptr<TlsContext> tls)
      : options_(options),
        url_(std::move(url)),
        authority_(url_.authority()),
        tls_(std::move(tls)),
        loop_("http-client"),
        sweep_(loop_.executor()),
        resolver_(loop_.executor()) {
    RaiseFileLimit();
    Sweep();
    loop_.Run();
  }

  ~Client() override {
    loop_.Stop([this] {
      is_stopping_ = true;
      sweep_.cancel();
      resolver_.cancel();
      idle_.clear();
      for (const std::shared_ptr<Call>& call : Calls()) {
        call->Cancel();
        call->OnNews();
      }
    });
  }

  int64_t Start(HttpRequest request, HttpCallbacks callbacks) override {
    std::shared_ptr<Call> call;
    int64_t handle = 0;
    {
      const std::lock_guard lock(mutex_);
      handle = ++last_handle_;
      call = std::make_shared<Call>(this, handle, std::move(request), std::move(callbacks));
      calls_.emplace(handle, call);
    }
    loop_.Notify(call);
    return handle;
  }

  void Cancel(int64_t handle) override {
    std::shared_ptr<Call> call;
    {
      const std::lock_guard lock(mutex_);
      const auto found = calls_.find(handle);
      if (found == calls_.end()) return;
      call = found->second;
    }
    call->Cancel();
    loop_.Notify(call);
  }

  // For calls, on the thread.
  const HttpClientOptions& options() const { return options_; }
  const HttpUrl& url() const { return url_; }
  const std::string& authority() const { return authority_; }
  TlsContext* tls() { return tls_.get(); }
  EventLoop& loop() { return loop_; }
  std::vector<char>& scratch() { return scratch_; }
  const std::vector<tcp::endpoint>& endpoints() const { return endpoints_; }
  bool is_stopping() const { return is_stopping_; }

  void Forget(int64_t handle) {
    const std::lock_guard lock(mutex_);
    calls_.erase(handle);
  }

  std::unique_ptr<ClientLink> TakeIdle() {
    while (!idle_.empty()) {
      std::unique_ptr<ClientLink> link = std::move(idle_.back());
      idle_.pop_back();
      if (link->IsAlive()) return link;
    }
    return nullptr;
  }
  void PutIdle(std::unique_ptr<ClientLink> link) {
    link->idle_since = Clock::now();
    if (!is_stopping_) idle_.push_back(std::move(link));
  }

  // call->OnAddress soon; one look-up serves all who wait for it.
  void Resolve(const std::shared_ptr<Call>& call);
  // This one answered: the next call tries it first.
  void Prefer(const tcp::endpoint& endpoint) {
    const auto found = std::find(endpoints_.begin(), endpoints_.end(), endpoint);
    if (found != endpoints_.end()) std::rotate(endpoints_.begin(), found, found + 1);
  }
  void ForgetAddress() { endpoints_.clear(); }

 private:
  std::vector<std::shared_ptr<Call>> Calls() {
    const std::lock_guard lock(mutex_);
    std::vector<std::shared_ptr<Call>> calls;
    calls.reserve(calls_.size());
    for (const auto& [handle, call] : calls_) calls.push_back(call);
    return calls;
  }
  void Sweep();

  const HttpClientOptions options_;
  const HttpUrl url_;
  const std::string authority_;
  const std::unique_ptr<TlsContext> tls_;  // null: http

  std::mutex mutex_;
  int64_t last_handle_ = 0;                                   // guarded by mutex_
  std::unordered_map<int64_t, std::shared_ptr<Call>> calls_;  // guarded by mutex_

  // The thread's own.
  EventLoop loop_;
  Timer sweep_;
  asio::ip::basic_resolver<tcp, Executor> resolver_;
  std::vector<char> scratch_ = std::vector<char>(kScratchBytes);
  std::vector<std::unique_ptr<ClientLink>> idle_;
  std::vector<tcp::endpoint> endpoints_;
  std::vector<std::shared_ptr<Call>> want_address_;
  bool is_stopping_ = false;
};

void Client::Sweep() {
  const auto shortest = std::min(options_.connect_timeout, options_.total_timeout);
  sweep_.expires_after(
      std::clamp(shortest / 8, std::chrono::milliseconds(5), std::chrono::milliseconds(100)));
  sweep_.async_wait([this](const ErrorStatus& error) {
    if (error || is_stopping_) return;
    const Clock::time_point now = Clock::now();
    for (const std::shared_ptr<Call>& call : Calls()) call->CheckDeadline(now);
    std::erase_if(idle_, [now](const auto& link) { return now - link->idle_since > kMaxIdle; });
    Sweep();
  });
}

void Client::Resolve(const std::shared_ptr<Call>& call) {
  want_address_.push_back(call);
  if (want_address_.size() > 1) return;
  resolver_.async_resolve(
      url_.host, std::to_string(url_.port),
      [this](const ErrorStatus& error, const tcp::resolver::results_type& found) {
        endpoints_.clear();
        for (const auto& entry : found) endpoints_.push_back(entry.endpoint());
        Status status;
        if (error || endpoints_.empty()) {
          status = MakeError(ErrorCode::kUnavailable, "{}: {}", authority_, error.message());
        }
        for (const std::shared_ptr<Call>& waiting : std::exchange(want_address_, {})) {
          waiting->OnAddress(status);
        }
      });
}

Call::Call(Client* client, int64_t handle, HttpRequest request, HttpCallbacks callbacks)
    : client_(client),
      handle_(handle),
      request_(std::move(request)),
      callbacks_(std::move(callbacks)),
      event_(client->loop().executor()) {
  sink_.on_head = callbacks_.on_head;
  if (callbacks_.on_data) {
    sink_.on_data = [this](std::string_view bytes) { callbacks_.on_data(bytes, arrival_); };
  }
}

void Call::OnNews() {
  if (std::exchange(has_started_, true)) {
    event_.Set();
    return;
  }
  deadline_ = Clock::now() + client_->options().total_timeout;
  asio::co_spawn(client_->loop().executor(), Run(shared_from_this()),
                 [self = shared_from_this()](const std::exception_ptr& failure) {
                   try {
                     if (failure) std::rethrow_exception(failure);
                   } catch (const std::exception& e) {
                     self->End(MakeError(ErrorCode::kInternal, "{}", e.what()));
                   }
                 });
}

Awaitable<> Call::Run(std::shared_ptr<Call> self) {
  Status status = CheckHeaders(request_.headers);
  if (status && (request_.method + request_.target).find_first_of("\r\n ") != std::string::npos) {
    status = MakeError(ErrorCode::kInvalidArgument,
                       "the method '{}' or target '{}' has a space or line break", request_.method,
                       request_.target);
  }
  if (status) status = Interrupted();
  if (status) status = co_await Perform();
  End(status);
}

void Call::End(const Status& status) {
  link_.reset();
  client_->Forget(handle_);
  sink_ = {};
  const HttpCallbacks callbacks = std::exchange(callbacks_, {});
  if (callbacks.on_end) callbacks.on_end(status);
}

Status Call::Interrupted() {
  const std::string& server = client_->authority();
  if (is_cancelled_) return MakeError(ErrorCode::kCancelled, "{}: cancelled", server);
  const Clock::time_point now = Clock::now();
  if (now >= deadline_) {
    return MakeError(ErrorCode::kDeadline, "{}: no whole answer within {} ms", server,
                     client_->options().total_timeout.count());
  }
  if (now >= connect_deadline_) {
    return MakeError(ErrorCode::kDeadline, "{}: no connection within {} ms", server,
                     client_->options().connect_timeout.count());
  }
  return {};
}

Awaitable<> Call::Wait(bool for_bytes, bool for_room) {
  num_since_yield_ = 0;
  if (for_bytes && !is_watching_) {
    is_watching_ = true;
    link_->socket.async_wait(Socket::wait_read,
                             [self = shared_from_this(), link = num_links_](const ErrorStatus&) {
                               if (link != self->num_links_) return;
                               self->is_watching_ = false;
                               self->event_.Set();
                             });
  }
  if (for_room && !awaits_room_) {
    awaits_room_ = true;
    link_->socket.async_wait(Socket::wait_write,
                             [self = shared_from_this(), link = num_links_](const ErrorStatus&) {
                               if (link != self->num_links_) return;
                               self->awaits_room_ = false;
                               self->event_.Set();
                             });
  }
  return event_.Wait();
}

Awaitable<Status> Call::Perform() {
  out_head_.clear();
  AppendRequestHead(request_, client_->url().prefix + request_.target, client_->authority(),
                    &out_head_);
  for (bool may_reuse = true;; may_reuse = false) {
    ++num_links_;
    is_watching_ = awaits_room_ = is_sent_ = false;
    link_ = may_reuse ? client_->TakeIdle() : nullptr;
    const bool is_reused = link_ != nullptr;
    if (!is_reused) {
      Status connected = co_await Connect();
      if (!connected) co_return connected;
    }
    ResponseReader reader(request_.method == "HEAD", &sink_);
    Status status = co_await Talk(&reader);
    if (status) {
      // Answered before it was sent: what is left of it would be the next request's start.
      if (reader.keep_alive() && is_sent_ && !is_watching_ && !awaits_room_) {
        client_->PutIdle(std::move(link_));
      }
      co_return status;
    }
    link_.reset();
    if (!is_reused || reader.got_anything() || status.error().code() != ErrorCode::kUnavailable) {
      co_return status;
    }
  }
}

Awaitable<Status> Call::Connect() {
  const auto& options = client_->options();
  connect_deadline_ = Clock::now() + options.connect_timeout;
  if (client_->endpoints().empty()) {
    address_.reset();
    client_->Resolve(shared_from_this());
    while (!address_) {
      Status interrupted = Interrupted();
      if (!interrupted) co_return interrupted;
      co_await event_.Wait();
    }
    if (!*address_) co_return *address_;
  }
  const std::vector<tcp::endpoint> endpoints = client_->endpoints();
  Status status = MakeError(ErrorCode::kUnavailable, "{}: no address", client_->authority());
  for (size_t i = 0; i < endpoints.size(); ++i) {
    // An address that does not answer leaves time for the next one.
    const auto share = (connect_deadline_ - Clock::now()) / static_cast<int>(endpoints.size() - i);
    status = co_await ConnectTo(&endpoints[i], Clock::now() + share);
    if (status && client_->tls() != nullptr) status = co_await Handshake();
    if (status) {
      client_->Prefer(endpoints[i]);
      break;
    }
    Status interrupted = Interrupted();
    if (!interrupted) {
      status = std::move(interrupted);
      break;
    }
  }
  if (!status) client_->ForgetAddress();
  connect_deadline_ = Clock::time_point::max();
  co_return status;
}

Awaitable<Status> Call::ConnectTo(const tcp::endpoint* endpoint, Clock::time_point deadline) {
  ++num_links_;
  is_watching_ = awaits_room_ = false;
  link_ = std::make_unique<ClientLink>(client_->loop().io());
  connected_.reset();
  link_->socket.async_connect(
      *endpoint, [self = shared_from_this(), link = num_links_](const ErrorStatus& error) {
        if (link != self->num_links_) return;
        self->connected_ = error;
        self->event_.Set();
      });
  while (!connected_) {
    Status interrupted = Interrupted();
    if (!interrupted) co_return interrupted;
    if (Clock::now() >= deadline) {
      co_return MakeError(ErrorCode::kDeadline, "{}: no connection within {} ms",
                          client_->authority(), client_->options().connect_timeout.count());
    }
    co_await event_.Wait();
  }
  ErrorStatus error = *connected_;
  if (!error) link_->socket.set_option(tcp::no_delay(true), error);
  if (!error) link_->socket.non_blocking(true, error);
  if (error) {
    co_return MakeError(ErrorCode::kUnavailable, "{}: {}", client_->authority(), error.message());
  }
  co_return Status();
}

Awaitable<Status> Call::Handshake() {
  link_->tls =
      TlsStream::Create(client_->tls(), link_->socket.native_handle(), client_->url().host);
  if (link_->tls == nullptr) co_return MakeError(ErrorCode::kInternal, "TLS: no stream");
  while (true) {
    const IoOutcome outcome = link_->tls->Handshake();
    if (outcome == IoOutcome::kOk) co_return Status();
    if (outcome == IoOutcome::kFailed || outcome == IoOutcome::kEof) {
      co_return MakeError(ErrorCode::kUnavailable, "{}: {}", client_->authority(),
                          link_->tls->error());
    }
    Status interrupted = Interrupted();
    if (!interrupted) co_return interrupted;
    co_await Wait(outcome == IoOutcome::kWantRead, outcome == IoOutcome::kWantWrite);
  }
}

Awaitable<Status> Call::Talk(ResponseReader* reader) {
  const std::string& server = client_->authority();
  std::vector<char>& scratch = client_->scratch();
  std::array<std::string_view, 2> out = {out_head_, request_.body};
  IoOutcome written = IoOutcome::kWantWrite;
  while (true) {
    if (written == IoOutcome::kWantWrite || written == IoOutcome::kWantRead) {
      written = link_->Write(&out);
    }
    // A server may answer before it has the whole body, and then take no more: the answer counts.
    size_t num = 0;
    const IoOutcome got = link_->Read(scratch.data(), scratch.size(), &num);
    if (got == IoOutcome::kOk) {
      arrival_ = Clock::now();
      num_since_yield_ += num;
      const ResponseReader::State state = reader->Feed({scratch.data(), num});
      if (state == ResponseReader::State::kDone) {
        is_sent_ = written == IoOutcome::kOk;
        co_return Status();
      }
      if (state == ResponseReader::State::kFailed) {
        co_return MakeError(ErrorCode::kUnavailable, "{}: {}", server, reader->message());
      }
    } else if (got == IoOutcome::kEof) {
      if (reader->FeedEof() == ResponseReader::State::kDone) co_return Status();
      co_return MakeError(ErrorCode::kUnavailable, "{}: {}", server, reader->message());
    } else if (got == IoOutcome::kFailed) {
      co_return MakeError(ErrorCode::kUnavailable, "{}: {}", server, link_->error);
    }
    Status interrupted = Interrupted();
    if (!interrupted) co_return interrupted;
    if (got != IoOutcome::kOk) {
      co_await Wait(true, written == IoOutcome::kWantWrite || got == IoOutcome::kWantWrite);
    } else if (num_since_yield_ > kReadBeforeYield) {
      num_since_yield_ = 0;
      event_.Set();
      co_await event_.Wait();
    } else if (link_->tls == nullptr && num < scratch.size()) {
      co_await Wait(true, written == IoOutcome::kWantWrite);
    }
  }
}

}  // namespace

Result<std::unique_ptr<HttpClient>> HttpClient::Create(const HttpClientOptions& options) {
  MOEBIUS_ASSIGN(HttpUrl url, ParseHttpUrl(options.base_url));
  std::unique_ptr<TlsContext> tls;
  if (url.is_https) {
    MOEBIUS_ASSIGN(tls, TlsContext::Create(options.verify_peer));
  }
  return std::make_unique<Client>(options, std::move(url), std::move(tls));
}

}  // namespace moebius::net
