// The bytes of an HTTP connection, by the first one's choice: to the reader of requests, to the
// reader of responses (a hostile server is one too), or over a real socket to a real server. Where
// the bytes are cut, as the second one says, must make no difference to what is read.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "net/http_reader.h"
#include "net/http_server.h"

namespace {

using moebius::net::BodySource;
using moebius::net::Exchange;
using moebius::net::HttpRequest;
using moebius::net::HttpResponse;
using moebius::net::HttpServer;
using moebius::net::HttpServerOptions;
using moebius::net::RequestReader;
using moebius::net::ResponseReader;

constexpr size_t kMaxHeader = 512;
constexpr size_t kMaxBody = 512;

// The pieces of an input: all of it, or so many bytes each.
template <typename Feed>
void Cut(std::string_view bytes, size_t step, const Feed& feed) {
  for (size_t at = 0; at < bytes.size(); at += step) feed(bytes.substr(at, step));
}

// Sets `*too_long` for a head near its limit: in one piece it is longer than in many.
std::string ReadRequests(std::string_view bytes, size_t step, bool* too_long) {
  RequestReader reader(kMaxHeader, kMaxBody);
  std::string text;
  Cut(bytes, step, [&](std::string_view piece) {
    RequestReader::State state = reader.Feed(piece);
    while (state == RequestReader::State::kDone) {
      text += reader.keep_alive() ? "keep " : "close ";
      const HttpRequest request = reader.Take();
      if (request.body.size() > kMaxBody) abort();
      text += request.method + " " + request.target;
      size_t num_header_bytes = 0;
      for (const auto& header : request.headers) {
        text += "\n" + header.name + ": " + header.value;
        num_header_bytes += header.name.size() + header.value.size();
        // Nothing that could end a line in whatever it is copied to.
        if (header.value.find_first_of("\r\n") != std::string::npos) abort();
      }
      if (num_header_bytes > kMaxHeader) abort();
      text += "\n\n" + request.body + "\n";
      state = reader.Feed({});
    }
  });
  if (reader.state() == RequestReader::State::kFailed) {
    const int status = reader.status();
    *too_long = *too_long || status == 431;
    if ((status != 400 && status != 413 && status != 431) || reader.message().empty()) abort();
  }
  return text;
}

// What has been read, if the answer is whole.
std::string ReadResponse(std::string_view bytes, size_t step, bool to_head) {
  std::string text;
  ResponseReader::Sink sink;
  sink.on_head = [&](int status, const auto& headers) {
    text += std::to_string(status) + " " + std::to_string(headers.size()) + "\n";
  };
  sink.on_data = [&](std::string_view data) { text += data; };
  ResponseReader reader(to_head, &sink);
  Cut(bytes, step, [&](std::string_view piece) { reader.Feed(piece); });
  return reader.FeedEof() == ResponseReader::State::kDone ? text : std::string();
}

class Words : public BodySource {
 public:
  Piece Take() override { return {std::string(100, 'w'), ++num_ == 5}; }

 private:
  int num_ = 0;
};

int ServerPort() {
  static const std::unique_ptr<HttpServer> server = [] {
    HttpServerOptions options;
    options.host = "127.0.0.1";
    options.port = 0;
    options.max_header_bytes = kMaxHeader;
    options.max_body_bytes = kMaxBody;
    auto started = HttpServer::Start(
        options, [](HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
          if (request.method.size() % 2 == 0) {
            exchange->Stream({}, std::make_unique<Words>());
            return;
          }
          HttpResponse response;
          response.body = std::move(request.body);
          // Whatever a client sends may be tried as a header's value.
          for (const auto& header : request.headers) response.headers.push_back(header);
          exchange->Respond(std::move(response));
        });
    if (!started) abort();
    return std::move(*started);
  }();
  return server->port();
}

void TalkToServer(std::string_view bytes, size_t step) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  // From another of 127.*.*.* each time: one address runs out of ports in seconds.
  static uint32_t num_runs = 0;
  const int one = 1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK + ++num_runs % 0xfffff0);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) abort();
  address.sin_port = htons(static_cast<uint16_t>(ServerPort()));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) abort();
  Cut(bytes, std::max(step, bytes.size() / 4 + 1), [&](std::string_view piece) {
    (void)send(fd, piece.data(), piece.size(), MSG_NOSIGNAL);  // it may have closed already
  });
  shutdown(fd, SHUT_WR);
  std::string answer;
  char buffer[4096];
  pollfd wait{fd, POLLIN, 0};
  while (true) {
    const int ready = poll(&wait, 1, 5000);
    if (ready < 0 && errno == EINTR) continue;  // libFuzzer's alarm clock
    if (ready <= 0) abort();                    // it neither answered nor closed
    const ssize_t n = recv(fd, buffer, sizeof(buffer), 0);
    if (n <= 0) break;
    answer.append(buffer, static_cast<size_t>(n));
  }
  close(fd);
  if (!answer.empty() && !answer.starts_with("HTTP/1.1 ")) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  const size_t step = 1 + data[1] % 64;
  switch (data[0] % 8) {
    case 0:
      TalkToServer(bytes, step);
      break;
    case 1:
    case 2:
    case 3: {
      const bool to_head = data[0] % 8 == 1;
      const std::string whole = ReadResponse(bytes, bytes.size() + 1, to_head);
      if (ReadResponse(bytes, step, to_head) != whole) abort();
      break;
    }
    default: {
      bool too_long = false;
      const std::string whole = ReadRequests(bytes, bytes.size() + 1, &too_long);
      if (ReadRequests(bytes, step, &too_long) != whole && !too_long) abort();
    }
  }
  return 0;
}
