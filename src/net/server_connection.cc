#include "net/server_connection.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/co_spawn.hpp>
#include <exception>
#include <limits>
#include <utility>

#include "base/log.h"
#include "net/http_writer.h"

namespace moebius::net {
namespace {

// Of requests that a client sends ahead of their turn, this much is read; more is an error.
constexpr size_t kMaxAhead = 128 << 10;
// A connection that never has to wait lets the others run after so many bytes.
constexpr size_t kYieldBytes = 1 << 20;
// What the kernel may hold that is not on the wire yet: a slow reader's backlog stays in its
// source.
constexpr int kMaxUnsent = 128 << 10;
constexpr std::chrono::milliseconds kLingerTime{1000};

void SetSocketOptions(int fd, std::chrono::milliseconds write_timeout) {
  const auto set = [fd](int level, int name, int value) {
    // A socket that refuses one works without it.
    (void)setsockopt(fd, level, name, &value, sizeof(value));
  };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(IPPROTO_TCP, TCP_NOTSENT_LOWAT, kMaxUnsent);
  // Peers that vanish without a word: found while idle, and while small pieces go unacknowledged.
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 30);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
  set(IPPROTO_TCP, TCP_KEEPCNT, 3);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(write_timeout.count()));
}

std::string PeerName(const Socket& socket) {
  ErrorStatus error;
  const tcp::endpoint peer = socket.remote_endpoint(error);
  if (error) return "?";
  const std::string address = peer.address().to_string();
  return peer.address().is_v6() ? fmt::format("[{}]:{}", address, peer.port())
                                : fmt::format("{}:{}", address, peer.port());
}

// The answer's end is told however the coroutine is left.
class AnswerGuard {
 public:
  explicit AnswerGuard(std::shared_ptr<PendingAnswer> answer) : answer_(std::move(answer)) {}
  AnswerGuard(const AnswerGuard&) = delete;
  AnswerGuard& operator=(const AnswerGuard&) = delete;
  ~AnswerGuard() {
    try {
      answer_->Finish(is_sent);
    } catch (const std::exception& e) {
      LogError("http: what a handler runs when its client is gone threw: {}", e.what());
    }
  }
  PendingAnswer* operator->() { return answer_.get(); }
  PendingAnswer* get() { return answer_.get(); }

  bool is_sent = false;

 private:
  std::shared_ptr<PendingAnswer> answer_;
};

}  // namespace

std::string_view ServerThread::Date() {
  const std::time_t now = std::time(nullptr);
  if (now != date_time_) {
    date_time_ = now;
    std::tm parts{};
    gmtime_r(&now, &parts);
    char text[40];
    date_.assign(text, std::strftime(text, sizeof(text), "%a, %d %b %Y %H:%M:%S GMT", &parts));
  }
  return date_;
}

ServerConnection::ServerConnection(Socket socket, ServerShared* shared, ServerThread* thread,
                                   bool refuse)
    : socket_(std::move(socket)),
      shared_(shared),
      thread_(thread),
      event_(thread->loop->executor()),
      reader_(shared->options.max_header_bytes, shared->options.max_body_bytes),
      refuse_(refuse) {
  thread_->connections.insert(this);
}

ServerConnection::~ServerConnection() { Close(); }

void ServerConnection::Start() {
  asio::co_spawn(thread_->loop->executor(), Run(shared_from_this()),
                 [self = shared_from_this()](const std::exception_ptr& failure) {
                   try {
                     if (failure) std::rethrow_exception(failure);
                   } catch (const std::exception& e) {
                     LogError("http: a connection ended with an exception: {}", e.what());
                   }
                   self->Close();
                 });
}

void ServerConnection::Close() {
  if (thread_->connections.erase(this) == 0) return;
  ErrorStatus ignored;
  socket_.close(ignored);
  CountBody(0);
  shared_->num_connections.fetch_sub(1);
  if (shared_->is_draining) {
    const std::lock_guard lock(shared_->mutex);
    shared_->connection_closed.notify_all();
  }
}

void ServerConnection::CheckDeadline(Clock::time_point now) {
  if (now < deadline_) return;
  is_expired_ = true;
  event_.Set();
}

void ServerConnection::Abort() {
  is_aborted_ = true;
  event_.Set();
}

Awaitable<> ServerConnection::Run(std::shared_ptr<ServerConnection> self) {
  ErrorStatus error;
  socket_.non_blocking(true, error);
  if (error) co_return;
  SetSocketOptions(socket_.native_handle(), shared_->options.write_timeout);
  peer_ = PeerName(socket_);
  if (refuse_) {
    co_await SendError(503, "too many connections");
  } else {
    for (bool goes_on = true; goes_on;) {
      goes_on = co_await ReadRequest();
      if (goes_on) goes_on = co_await Answer();
      is_first_request_ = false;
    }
  }
  if (should_linger_) co_await Linger();
}

std::string_view ServerConnection::Read() {
  if (is_eof_ || !may_have_bytes_) return {};
  std::vector<char>& scratch = thread_->scratch;
  ErrorStatus error;
  const size_t n = socket_.read_some(asio::buffer(scratch), error);
  if (error == asio::error::would_block || error == asio::error::interrupted) {
    may_have_bytes_ = error == asio::error::interrupted;
    return {};
  }
  if (error) {
    is_eof_ = true;
    is_broken_ = is_broken_ || error != asio::error::eof;
    return {};
  }
  may_have_bytes_ = n == scratch.size();
  num_since_yield_ += n;
  return {scratch.data(), n};
}

void ServerConnection::KeepWhatCame() {
  while (may_have_bytes_ && !is_eof_ && reader_.num_kept() < max_kept_) reader_.Keep(Read());
  is_too_far_ahead_ = max_kept_ > 0 && reader_.num_kept() >= max_kept_;
}

bool ServerConnection::CountBody(size_t num_bytes) {
  const auto more = static_cast<int64_t>(num_bytes) - static_cast<int64_t>(num_body_bytes_);
  num_body_bytes_ = num_bytes;
  const int64_t before = shared_->num_body_bytes.fetch_add(more, std::memory_order_relaxed);
  return more <= 0 || before + more <= static_cast<int64_t>(shared_->options.max_total_body_bytes);
}

Awaitable<> ServerConnection::Wait(bool for_room) {
  if (!is_watching_ && !is_eof_ && reader_.num_kept() < max_kept_) {
    is_watching_ = true;
    socket_.async_wait(Socket::wait_read, [self = shared_from_this()](const ErrorStatus&) {
      self->is_watching_ = false;
      self->may_have_bytes_ = true;
      self->event_.Set();
    });
  }
  if (for_room && !awaits_room_) {
    awaits_room_ = true;
    socket_.async_wait(Socket::wait_write, [self = shared_from_this()](const ErrorStatus&) {
      self->awaits_room_ = false;
      self->event_.Set();
    });
  }
  num_since_yield_ = 0;
  return event_.Wait();
}

Awaitable<> ServerConnection::Yield() {
  num_since_yield_ = 0;
  event_.Set();
  return event_.Wait();
}

Awaitable<bool> ServerConnection::ReadRequest() {
  using State = RequestReader::State;
  const HttpServerOptions& options = shared_->options;
  max_kept_ = std::numeric_limits<size_t>::max();  // the reader has its own limits
  State state = State::kIdle;
  std::string_view bytes;
  Clock::time_point body_start;
  deadline_ = After(is_first_request_ ? options.header_timeout : options.idle_timeout);
  is_expired_ = false;
  while (true) {
    const State before = state;
    state = reader_.Feed(bytes);
    if (state == State::kDone) break;
    if (state == State::kFailed) {
      shared_->num_malformed.fetch_add(1, std::memory_order_relaxed);
      co_await SendError(reader_.status(), reader_.message());
      co_return false;
    }
    if (state == State::kBody) {
      if (before != State::kBody) {
        if (options.wants_body && !options.wants_body(reader_.request())) break;
        body_start = Clock::now();
        if (reader_.expects_continue()) {
          const bool ok = co_await Send("HTTP/1.1 100 Continue\r\n\r\n", {});
          if (!ok) co_return false;
        }
      }
      const size_t num_bytes = reader_.request().body.size();
      if (!CountBody(num_bytes)) {
        co_await SendError(503, "too many request bodies are under way; try again later");
        co_return false;
      }
      const std::chrono::milliseconds earned(
          static_cast<int64_t>(num_bytes) * 1000 /
          std::max<int64_t>(1, options.min_body_bytes_per_second));
      deadline_ = std::min(Clock::now(), body_start + earned) + options.body_timeout;
    } else if (state == State::kHead && before == State::kIdle) {
      deadline_ = After(options.header_timeout);
    }
    const bool goes_on = co_await ReadMore(state, &bytes);
    if (!goes_on) co_return false;
  }
  CountBody(0);  // it is the handler's from here on
  deadline_ = Clock::time_point::max();
  is_expired_ = false;
  // Of a body that is not wanted nothing is taken before the answer, and Linger throws it away.
  max_kept_ = state == State::kDone ? kMaxAhead : 0;
  shared_->num_requests.fetch_add(1, std::memory_order_relaxed);
  co_return true;
}

// The next bytes of a request; false: none come (what is to be said about that has been said).
Awaitable<bool> ServerConnection::ReadMore(RequestReader::State state, std::string_view* bytes) {
  // Before the read: the next one's turn overwrites what this one got.
  if (num_since_yield_ > kYieldBytes) co_await Yield();
  for (*bytes = Read(); bytes->empty(); *bytes = Read()) {
    if (is_eof_ || is_aborted_) co_return false;
    if (may_have_bytes_) continue;
    const bool is_idle = state == RequestReader::State::kIdle;
    if (is_idle && (is_expired_ || shared_->is_draining)) co_return false;
    if (is_expired_) {
      shared_->num_malformed.fetch_add(1, std::memory_order_relaxed);
      co_await SendError(408, "the request did not come in time");
      co_return false;
    }
    co_await Wait(false);
  }
  is_expired_ = false;  // they came just in time, or the next sweep says it again
  co_return true;
}

Awaitable<bool> ServerConnection::Answer() {
  HttpRequest request = reader_.Take();
  request.peer = peer_;
  const bool is_head = request.method == "HEAD";
  AnswerGuard answer(std::make_shared<PendingAnswer>(thread_->loop, &event_));
  {
    std::shared_ptr<Exchange> exchange = answer->MakeExchange();
    try {
      shared_->handler(std::move(request), exchange);
    } catch (const std::exception& e) {
      LogError("http: a handler threw: {}", e.what());
      exchange->Respond(ErrorResponse(500, "internal error"));
    } catch (...) {
      LogError("http: a handler threw");
      exchange->Respond(ErrorResponse(500, "internal error"));
    }
  }
  while (!answer->is_answered()) {
    if (answer->is_abandoned()) {
      LogError("http: a handler let go of a request without an answer");
      answer->Respond(ErrorResponse(500, "internal error"), nullptr);
      break;
    }
    KeepWhatCame();
    if (is_too_far_ahead_) {
      shared_->num_malformed.fetch_add(1, std::memory_order_relaxed);
      co_await SendError(400, "too much was sent ahead of the answer");
      co_return false;
    }
    if (IsOver()) co_return false;
    co_await Wait(false);
  }
  HttpResponse head = answer->TakeHead();
  const bool can_be_sent = CanBeSent(head);
  if (!can_be_sent) head = ErrorResponse(500, "internal error");
  const bool is_stream = can_be_sent && answer->source() != nullptr;
  // A body that ends with the connection is all that HTTP/1.0 has for a stream.
  const bool may_stay = reader_.keep_alive() && !shared_->is_draining;
  const bool keep_alive = may_stay && (!is_stream || reader_.http_minor() >= 1);
  if (is_stream) {
    answer.is_sent = co_await AnswerStream(answer.get(), head, is_head, keep_alive);
  } else {
    answer.is_sent = co_await AnswerAtOnce(head, is_head, keep_alive);
  }
  should_linger_ = answer.is_sent && !keep_alive;
  co_return answer.is_sent&& keep_alive;
}

Awaitable<bool> ServerConnection::AnswerAtOnce(const HttpResponse& response, bool is_head,
                                               bool keep_alive) {
  Framing framing;
  framing.http_minor = reader_.http_minor();
  framing.keep_alive = keep_alive;
  framing.content_length = response.body.size();
  out_head_.clear();
  AppendResponseHead(response, framing, thread_->Date(), &out_head_);
  const bool has_body = !is_head && StatusHasBody(response.status);
  const bool ok = co_await Send(out_head_, has_body ? response.body : std::string_view());
  co_return ok;
}

Awaitable<bool> ServerConnection::AnswerStream(PendingAnswer* answer, const HttpResponse& head,
                                               bool is_head, bool keep_alive) {
  const bool is_chunked = reader_.http_minor() >= 1;
  Framing framing;
  framing.http_minor = reader_.http_minor();
  framing.keep_alive = keep_alive;
  out_head_.clear();
  AppendResponseHead(head, framing, thread_->Date(), &out_head_);
  bool is_last = is_head || !StatusHasBody(head.status);
  while (true) {
    if (!is_last) {
      const bool was_abandoned = answer->is_abandoned();
      BodySource::Piece piece = answer->source()->Take();
      is_last = piece.is_last;
      if (is_chunked) {
        AppendChunk(piece.bytes, &out_head_);
        if (is_last) out_head_.append(kLastChunk);
      } else {
        out_head_.append(piece.bytes);
      }
      if (piece.bytes.empty() && !is_last && was_abandoned) {
        LogError("http: a stream was let go of before its end");
        co_return false;
      }
    }
    if (out_head_.empty()) {
      KeepWhatCame();
      if (IsOver()) co_return false;
      co_await Wait(false);
      continue;
    }
    out_ = {out_head_, std::string_view()};
    if (!TrySend()) {
      const bool ok = co_await Send(out_[0], out_[1]);
      if (!ok) co_return false;
    }
    if (is_last) co_return true;
    out_head_.clear();
    KeepWhatCame();
    if (IsOver()) co_return false;
    if (num_since_yield_ > kYieldBytes) co_await Yield();
  }
}

bool ServerConnection::TrySend() {
  while (!is_broken_ && (!out_[0].empty() || !out_[1].empty())) {
    const std::array<asio::const_buffer, 2> buffers = {
        asio::const_buffer(out_[0].data(), out_[0].size()),
        asio::const_buffer(out_[1].data(), out_[1].size())};
    ErrorStatus error;
    size_t n = socket_.write_some(buffers, error);
    if (error == asio::error::interrupted) continue;
    if (error == asio::error::would_block) return false;
    if (error) {
      is_broken_ = true;
      return false;
    }
    num_since_yield_ += n;
    for (std::string_view& part : out_) {
      const size_t taken = std::min(n, part.size());
      part.remove_prefix(taken);
      n -= taken;
    }
    if (num_since_yield_ > kYieldBytes) return out_[0].empty() && out_[1].empty();
  }
  return !is_broken_;
}

Awaitable<bool> ServerConnection::Send(std::string_view first, std::string_view second) {
  out_ = {first, second};
  bool is_done = TrySend();
  while (!is_done && !is_broken_ && !is_aborted_) {
    if (num_since_yield_ > kYieldBytes) {
      co_await Yield();
    } else {
      deadline_ = After(shared_->options.write_timeout);
      // Wakes for other reasons do not move the deadline.
      while (!is_expired_ && !is_broken_ && !is_aborted_) {
        co_await Wait(true);
        if (!awaits_room_) break;
        KeepWhatCame();
        if (is_too_far_ahead_) break;
      }
      if (is_expired_ || is_too_far_ahead_) is_broken_ = true;
    }
    is_done = TrySend();
  }
  deadline_ = Clock::time_point::max();
  is_expired_ = false;
  co_return is_done;
}

Awaitable<> ServerConnection::SendError(int status, std::string_view message) {
  const HttpResponse response = ErrorResponse(status, message);
  max_kept_ = 0;  // what else comes is thrown away later
  is_too_far_ahead_ = false;
  should_linger_ = co_await AnswerAtOnce(response, false, false);
}

// A close with bytes unread would reset the connection, and the client lose the answer.
Awaitable<> ServerConnection::Linger() {
  ErrorStatus error;
  socket_.shutdown(Socket::shutdown_send, error);
  deadline_ = After(kLingerTime);
  is_expired_ = false;
  may_have_bytes_ = true;
  max_kept_ = std::numeric_limits<size_t>::max();  // what comes is thrown away
  while (!error && !is_eof_ && !is_expired_ && !is_aborted_) {
    const bool is_empty = Read().empty();
    if (is_empty && !may_have_bytes_ && !is_eof_) co_await Wait(false);
    if (num_since_yield_ > kYieldBytes) co_await Yield();
  }
}

HttpResponse ServerConnection::ErrorResponse(int status, std::string_view message) {
  HttpResponse response;
  response.status = status;
  if (shared_->error_body) {
    response.body = shared_->error_body(status, std::string(message));
  } else {
    response.content_type = "text/plain; charset=utf-8";
    response.body.assign(message).append("\n");
  }
  if (status == 503) response.headers.push_back({"Retry-After", "1"});
  return response;
}

bool ServerConnection::CanBeSent(const HttpResponse& response) {
  const std::vector<HttpHeader> content_type = {{"Content-Type", response.content_type}};
  Status ok = CheckHeaders(response.headers);
  if (ok) ok = CheckHeaders(content_type);
  if (ok && response.status >= 200 && response.status <= 599) return true;
  LogError("http: a handler's answer cannot be sent: {}",
           ok ? fmt::format("status {}", response.status) : ok.error().message());
  return false;
}

}  // namespace moebius::net
