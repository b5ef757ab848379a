#include "net/http_reader.h"

// Beast asserts that the head of a last chunk has five bytes when it is looked at again. A body
// whose first chunk is the last has four when its bytes come one by one: whoever sends that would
// end the process. What follows the assertion is right for four, and BOOST_VERIFY still runs.
#define BOOST_DISABLE_ASSERTS

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/basic_parser.hpp>
#include <limits>
#include <utility>

#include "base/check.h"
#include "net/http_writer.h"

namespace moebius::net {
namespace {

namespace http = boost::beast::http;
using ErrorStatus = boost::beast::error_code;
using BeastView = boost::beast::string_view;

std::string_view View(BeastView view) { return {view.data(), view.size()}; }

constexpr size_t kMaxResponseHead = 1 << 20;

// Beast says a lack of bytes as an error.
bool IsNeedMore(const ErrorStatus& error) { return error == http::error::need_more; }

}  // namespace

// Collects one request.
class RequestReader::Parser : public http::basic_parser<true> {
 public:
  Parser(size_t max_header_bytes, size_t max_body_bytes) : bytes_left_(max_header_bytes) {
    header_limit(static_cast<std::uint32_t>(
        std::min<size_t>(max_header_bytes, std::numeric_limits<std::uint32_t>::max())));
    body_limit(max_body_bytes);
    eager(true);
  }

  int http_minor() const { return version_ % 10; }

  HttpRequest request;
  bool expects_continue = false;
  std::string complaint;  // ours, where Beast has none

 private:
  void on_request_impl(http::verb, BeastView method, BeastView target, int version,
                       ErrorStatus& error) override {
    request.method = View(method);
    request.target = View(target);
    version_ = version;
    // "GET http://host/path": what a client says to a proxy, and a server has to take.
    for (const std::string_view scheme : {"http://", "https://"}) {
      if (!request.target.starts_with(scheme)) continue;
      const size_t path = request.target.find_first_of("/?", scheme.size());
      request.target.erase(0, path);
      if (!request.target.starts_with('/')) request.target.insert(0, "/");
    }
    error = {};
  }

  void on_response_impl(int, BeastView, int, ErrorStatus&) override {}

  void on_field_impl(http::field field, BeastView name, BeastView value,
                     ErrorStatus& error) override {
    error = {};
    if (name.size() + value.size() > bytes_left_) {
      error = http::error::header_limit;
      return;
    }
    bytes_left_ -= name.size() + value.size();
    if (is_head_read_) return;  // a trailer
    switch (field) {
      case http::field::content_length:
        if (has_length_ || value.find(',') != BeastView::npos) {
          return Refuse("more than one Content-Length", &error);
        }
        has_length_ = true;
        break;
      case http::field::transfer_encoding:
        if (!EqualsIgnoreCase(View(value), "chunked")) {
          return Refuse("the only Transfer-Encoding known is chunked", &error);
        }
        has_encoding_ = true;
        break;
      case http::field::host:
        if (has_host_) return Refuse("more than one Host", &error);
        has_host_ = true;
        break;
      case http::field::expect:
        expects_continue = EqualsIgnoreCase(View(value), "100-continue");
        break;
      default:
        break;
    }
    request.headers.push_back({std::string(View(name)), std::string(View(value))});
  }

  void on_header_impl(ErrorStatus& error) override {
    error = {};
    is_head_read_ = true;
    if (has_encoding_ && (has_length_ || version_ < 11)) {
      return Refuse(has_length_ ? "both Content-Length and Transfer-Encoding"
                                : "Transfer-Encoding in HTTP/1.0",
                    &error);
    }
    if (version_ >= 11 && !has_host_) return Refuse("no Host header", &error);
    if (version_ < 11) expects_continue = false;
  }

  void on_body_init_impl(const boost::optional<std::uint64_t>&, ErrorStatus& error) override {
    error = {};
  }
  size_t on_body_impl(BeastView bytes, ErrorStatus& error) override {
    error = {};
    // As the bytes come, not as long as the client says that they will be.
    request.body.append(bytes.data(), bytes.size());
    return bytes.size();
  }
  void on_chunk_header_impl(std::uint64_t, BeastView, ErrorStatus& error) override { error = {}; }
  size_t on_chunk_body_impl(std::uint64_t, BeastView bytes, ErrorStatus& error) override {
    return on_body_impl(bytes, error);
  }
  void on_finish_impl(ErrorStatus& error) override { error = {}; }

  void Refuse(const char* why, ErrorStatus* error) {
    complaint = why;
    *error = http::error::bad_field;
  }

  size_t bytes_left_;  // of the head's and trailers' limit
  int version_ = 11;
  bool is_head_read_ = false;
  bool has_length_ = false;
  bool has_encoding_ = false;
  bool has_host_ = false;
};

RequestReader::RequestReader(size_t max_header_bytes, size_t max_body_bytes)
    : max_header_bytes_(max_header_bytes), max_body_bytes_(max_body_bytes) {}

RequestReader::~RequestReader() = default;

RequestReader::State RequestReader::Fail(int status, std::string message) {
  status_ = status;
  message_ = std::move(message);
  keep_alive_ = false;
  return state_ = State::kFailed;
}

RequestReader::State RequestReader::Feed(std::string_view bytes) {
  if (state_ == State::kDone || state_ == State::kFailed) {
    kept_.append(bytes);
    return state_;
  }
  size_t num_used = 0;
  if (kept_.empty()) {
    Advance(bytes, &num_used);
    kept_ = bytes.substr(num_used);
  } else {
    kept_.append(bytes);
    Advance(kept_, &num_used);
    kept_.erase(0, num_used);
  }
  if (kept_.empty()) std::string().swap(kept_);  // an idle connection holds no memory
  return state_;
}

RequestReader::State RequestReader::Advance(std::string_view bytes, size_t* num_used) {
  if (state_ == State::kIdle) {
    // An empty line before a request line is a habit of old clients (RFC 9112, 2.2).
    while (bytes.substr(*num_used).starts_with("\r\n")) *num_used += 2;
    const std::string_view rest = bytes.substr(*num_used);
    if (rest.empty() || rest == "\r") return state_;
    parser_ = std::make_unique<Parser>(max_header_bytes_, max_body_bytes_);
    state_ = State::kHead;
  }
  ErrorStatus error;
  while (!parser_->is_done()) {
    const std::string_view rest = bytes.substr(*num_used);
    const size_t n = parser_->put({rest.data(), rest.size()}, error);
    *num_used += n;
    if (error || n == 0) break;
  }
  if (parser_->is_header_done()) {
    state_ = State::kBody;
    keep_alive_ = parser_->keep_alive();
    http_minor_ = parser_->http_minor();
    expects_continue_ = parser_->expects_continue;
  }
  if (error && !IsNeedMore(error)) {
    if (error == http::error::header_limit) {
      return Fail(431, fmt::format("the head is longer than {} bytes", max_header_bytes_));
    }
    if (error == http::error::body_limit) {
      return Fail(413, fmt::format("the body is longer than {} bytes", max_body_bytes_));
    }
    const std::string& complaint = parser_->complaint;
    return Fail(400,
                "malformed HTTP request: " + (complaint.empty() ? error.message() : complaint));
  }
  if (parser_->is_done()) return state_ = State::kDone;
  // Beast waits for the end of a chunk's head or of the trailers, however far.
  if (state_ == State::kBody && bytes.size() - *num_used > max_header_bytes_) {
    return Fail(400, "malformed HTTP request: a chunk's head or trailer does not end");
  }
  return state_;
}

const HttpRequest& RequestReader::request() const { return parser_->request; }

HttpRequest RequestReader::Take() {
  MOEBIUS_CHECK(state_ == State::kDone || state_ == State::kBody);
  HttpRequest request = std::move(parser_->request);
  parser_.reset();
  if (state_ == State::kDone) {
    state_ = State::kIdle;
    return request;
  }
  request.body = std::string();
  Fail(400, "the body was not read");
  return request;
}

// Passes one response on.
class ResponseReader::Parser : public http::basic_parser<false> {
 public:
  Parser(bool to_head_request, const Sink* sink) : sink_(sink) {
    header_limit(kMaxResponseHead);
    body_limit(boost::none);
    eager(true);
    if (to_head_request) skip(true);
  }

  int status = 0;

 private:
  void on_request_impl(http::verb, BeastView, BeastView, int, ErrorStatus&) override {}
  void on_response_impl(int code, BeastView, int, ErrorStatus& error) override {
    status = code;
    error = {};
    if (code < 100) error = http::error::bad_status;
  }
  void on_field_impl(http::field, BeastView name, BeastView value, ErrorStatus& error) override {
    error = {};
    if (!is_head_read_) headers_.push_back({std::string(View(name)), std::string(View(value))});
  }
  void on_header_impl(ErrorStatus& error) override {
    error = {};
    is_head_read_ = true;
    if (status >= 200 && sink_->on_head) sink_->on_head(status, headers_);
  }
  void on_body_init_impl(const boost::optional<std::uint64_t>&, ErrorStatus& error) override {
    error = {};
  }
  size_t on_body_impl(BeastView bytes, ErrorStatus& error) override {
    error = {};
    if (sink_->on_data && !bytes.empty()) sink_->on_data(View(bytes));
    return bytes.size();
  }
  void on_chunk_header_impl(std::uint64_t, BeastView, ErrorStatus& error) override { error = {}; }
  size_t on_chunk_body_impl(std::uint64_t, BeastView bytes, ErrorStatus& error) override {
    return on_body_impl(bytes, error);
  }
  void on_finish_impl(ErrorStatus& error) override { error = {}; }

  const Sink* sink_;
  std::vector<HttpHeader> headers_;
  bool is_head_read_ = false;
};

ResponseReader::ResponseReader(bool to_head_request, const Sink* sink)
    : to_head_request_(to_head_request),
      sink_(sink),
      parser_(std::make_unique<Parser>(to_head_request, sink)) {}

ResponseReader::~ResponseReader() = default;

ResponseReader::State ResponseReader::Fail(std::string message) {
  message_ = std::move(message);
  keep_alive_ = false;
  return state_ = State::kFailed;
}

ResponseReader::State ResponseReader::Feed(std::string_view bytes) {
  if (state_ == State::kDone || state_ == State::kFailed) {
    keep_alive_ = keep_alive_ && bytes.empty();  // bytes that nobody asked for
    return state_;
  }
  got_anything_ = got_anything_ || !bytes.empty();
  const bool has_kept = !kept_.empty();
  if (has_kept) kept_.append(bytes);
  const std::string_view all = has_kept ? std::string_view(kept_) : bytes;
  size_t num_used = 0;
  ErrorStatus error;
  while (num_used < all.size() && !parser_->is_done()) {
    const std::string_view rest = all.substr(num_used);
    const size_t n = parser_->put({rest.data(), rest.size()}, error);
    num_used += n;
    if (error || n == 0) break;
    if (parser_->is_done() && parser_->status < 200) {
      parser_ = std::make_unique<Parser>(to_head_request_, sink_);
    }
  }
  if (error && !IsNeedMore(error)) return Fail("malformed HTTP response: " + error.message());
  if (parser_->is_header_done()) state_ = State::kBody;
  if (parser_->is_done()) {
    keep_alive_ = parser_->keep_alive() && num_used == all.size();
    return state_ = State::kDone;
  }
  std::string rest(all.substr(num_used));
  kept_.swap(rest);
  if (kept_.size() > kMaxResponseHead)
    return Fail("malformed HTTP response: a chunk's head does not end");
  return state_;
}

ResponseReader::State ResponseReader::FeedEof() {
  if (state_ == State::kDone || state_ == State::kFailed) return state_;
  if (!got_anything_) return Fail("the server closed the connection before an answer");
  if (!parser_->got_some()) return Fail("the server closed the connection after an interim answer");
  ErrorStatus error;
  parser_->put_eof(error);
  if (error) return Fail("the server closed the connection in the middle of an answer");
  keep_alive_ = false;
  return state_ = State::kDone;
}

}  // namespace moebius::net
