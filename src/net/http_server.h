// An HTTP/1.1 server: thousands of connections, each a coroutine, on one or two threads of its own.
// Beast and Asio stay in the .cc. It knows nothing of what it carries.
//
// A handler gets a request and an Exchange to answer it, at once or later, from any thread. A
// streamed body is pulled: the connection asks the BodySource for more whenever the socket has
// taken what it had, so a slow reader slows its own source and costs no memory. Requests of one
// connection are answered in order (pipelining included); a client that sends more than 128 KiB
// ahead of an answer is cut off.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "net/http_message.h"

namespace moebius::net {

struct HttpServerOptions {
  std::string host = "0.0.0.0";  // a name or an address, IPv4 or IPv6; "uds:PATH" is not one
  int port = 8000;               // 0: any free one
  int num_threads = 1;
  int64_t max_connections = 16384;  // more are answered with 503 and closed
  size_t max_header_bytes = 64 << 10;
  size_t max_body_bytes = 64 << 20;  // more: 413
  // Of bodies that are being read, all connections together; what comes on top gets 503. A body
  // that comes with its head does not count.
  size_t max_total_body_bytes = size_t{1} << 30;
  std::chrono::milliseconds header_timeout{30000};  // a request's head must come within: 408
  std::chrono::milliseconds body_timeout{60000};    // without progress of its body: 408
  // What a body's sender must keep up, on average from body_timeout on: 408. Else a byte now and
  // then would hold a connection and its share of max_total_body_bytes for ever.
  int64_t min_body_bytes_per_second = 16 << 10;
  std::chrono::milliseconds idle_timeout{75000};  // between requests: closed
  std::chrono::milliseconds write_timeout{
      60000};  // a reader that takes nothing for so long is gone

  // Whether the body that follows this head is worth reading; asked on a server thread, before more
  // of it is read than came with the head. False: the handler gets the request without it, at once,
  // and the connection is closed after the answer. None: every body is.
  std::function<bool(const HttpRequest& head)> wants_body;
};

// What a streamed answer consists of. Called on a server thread only, never concurrently.
class BodySource {
 public:
  virtual ~BodySource() = default;
  struct Piece {
    std::string bytes;
    bool is_last = false;
  };
  // Everything there is to send now, perhaps nothing: then the connection asks again after the
  // next Exchange::Wake. Quick; never waits.
  virtual Piece Take() = 0;
};

// One request being answered. Shared by handler and connection; any thread may call it.
class Exchange {
 public:
  virtual ~Exchange() = default;

  // Exactly one of these two, once.
  virtual void Respond(HttpResponse response) = 0;
  // `head`'s body is ignored; the body is chunked. The source lives until its last piece is sent or
  // the client is gone.
  virtual void Stream(HttpResponse head, std::unique_ptr<BodySource> source) = 0;

  // The source may have something new. Cheap, coalesced; before Stream or after the end: no effect.
  virtual void Wake() = 0;

  // `on_gone` runs once, on a server thread, if the client leaves (or times out) before the whole
  // answer is sent; at once if that has happened already. It is dropped with the exchange's end.
  virtual void OnGone(std::function<void()> on_gone) = 0;
};

class HttpServer {
 public:
  using Handler = std::function<void(HttpRequest, std::shared_ptr<Exchange>)>;

  struct Stats {
    int64_t num_connections = 0;  // open now
    int64_t num_requests = 0;     // since the start, well-formed ones
    int64_t num_malformed = 0;    // answered with 400, 408, 413, 431 without the handler
    int64_t num_body_bytes = 0;   // of bodies that are being read now
  };

  // Listens and starts its threads. The handler runs on them and must be quick. `error_body` makes
  // the JSON body of the errors that the server itself answers (status, message). kUnavailable: the
  // address cannot be bound, named.
  static Result<std::unique_ptr<HttpServer>> Start(
      const HttpServerOptions& options, Handler handler,
      std::function<std::string(int, const std::string&)> error_body = {});
  virtual ~HttpServer() = default;  // closes every connection and joins the threads

  virtual int port() const = 0;
  virtual Stats stats() const = 0;

  // Takes no more connections, closes idle ones, answers what is under way with Connection: close
  // and waits for it. kDeadline: some were still open after `timeout` (they are closed then).
  virtual Status Drain(std::chrono::milliseconds timeout) = 0;
};

}  // namespace moebius::net
