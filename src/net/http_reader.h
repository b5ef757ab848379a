// HTTP/1.1 off the wire: the bytes of one connection in, whole messages out. No sockets, no clocks;
// how the bytes are cut makes no difference. One thread at a time. Beast's parser is inside.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/http_message.h"

namespace moebius::net {

// Requests, one after the other. Stricter than Beast alone, so that no proxy before us can read the
// same bytes as other requests: Content-Length once and without Transfer-Encoding, which may only
// be "chunked"; one Host.
class RequestReader {
 public:
  enum class State {
    kIdle,    // no byte of a request yet
    kHead,    // in its head
    kBody,    // the head is known
    kDone,    // whole: Take it
    kFailed,  // refused: answer with status(), message() and close
  };

  RequestReader(size_t max_header_bytes, size_t max_body_bytes);
  ~RequestReader();

  // Reads up to the end of a request; bytes behind it wait for the next Feed after Take.
  State Feed(std::string_view bytes);
  State state() const { return state_; }
  // Bytes for a later Feed, unread.
  void Keep(std::string_view bytes) { kept_.append(bytes); }
  size_t num_kept() const { return kept_.size(); }

  // The request whose head is read (kBody, kDone), until Take.
  const HttpRequest& request() const;
  // kDone, once; the state is kIdle then, what follows stays as it was. kBody: the head alone, and
  // no further request can be read.
  HttpRequest Take();

  // Of the request whose head was read last.
  bool keep_alive() const { return keep_alive_; }
  int http_minor() const { return http_minor_; }  // HTTP/1.0 or 1.1
  bool expects_continue() const { return expects_continue_; }

  // kFailed: 400, 413 or 431, and why.
  int status() const { return status_; }
  const std::string& message() const { return message_; }

 private:
  class Parser;
  State Advance(std::string_view bytes, size_t* num_used);
  State Fail(int status, std::string message);

  const size_t max_header_bytes_;
  const size_t max_body_bytes_;
  std::unique_ptr<Parser> parser_;
  std::string kept_;  // received and not read
  State state_ = State::kIdle;
  bool keep_alive_ = true;
  int http_minor_ = 1;
  bool expects_continue_ = false;
  int status_ = 0;
  std::string message_;
};

// One response (interim 1xx ones before it are skipped), its body passed on as it comes.
class ResponseReader {
 public:
  struct Sink {
    std::function<void(int status, const std::vector<HttpHeader>& headers)> on_head;
    std::function<void(std::string_view bytes)> on_data;
  };
  enum class State { kHead, kBody, kDone, kFailed };

  // `to_head_request`: no body follows, whatever the head says. The sink outlives the reader.
  ResponseReader(bool to_head_request, const Sink* sink);
  ~ResponseReader();

  State Feed(std::string_view bytes);
  State FeedEof();  // no more bytes come: the end of some bodies, else kFailed

  bool got_anything() const { return got_anything_; }
  // kDone: the connection may carry another request.
  bool keep_alive() const { return keep_alive_; }
  const std::string& message() const { return message_; }  // kFailed: why

 private:
  class Parser;
  State Fail(std::string message);

  const bool to_head_request_;
  const Sink* sink_;
  std::unique_ptr<Parser> parser_;
  std::string kept_;
  State state_ = State::kHead;
  bool got_anything_ = false;
  bool keep_alive_ = false;
  std::string message_;
};

}  // namespace moebius::net
