#include "net/http_client.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "net/http_server.h"
#include "net/http_url.h"
#include "net/testing/raw_server.h"
#include "net/testing/sources.h"
#include "net/testing/test_server.h"

namespace moebius::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

std::unique_ptr<HttpClient> Connect(int port, HttpClientOptions options = {}) {
  options.base_url = "http://127.0.0.1:" + std::to_string(port);
  auto client = HttpClient::Create(options);
  EXPECT_TRUE(client.has_value()) << client.error().message();
  return std::move(*client);
}

HttpRequest Get(std::string target) {
  HttpRequest request;
  request.target = std::move(target);
  return request;
}

// A call's end as a future.
struct Ending {
  std::promise<Status> promise;
  std::future<Status> future = promise.get_future();
  HttpCallbacks callbacks() {
    HttpCallbacks result;
    result.on_end = [this](Status status) { promise.set_value(std::move(status)); };
    return result;
  }
};

TEST(HttpUrl, IsReadAsWritten) {
  const auto url = ParseHttpUrl("https://[::1]:8443/v1/");
  ASSERT_TRUE(url) << url.error().message();
  EXPECT_TRUE(url->is_https);
  EXPECT_EQ(url->host, "::1");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->prefix, "/v1");
  EXPECT_EQ(url->authority(), "[::1]:8443");
  EXPECT_EQ(ParseHttpUrl("http://a.b-c")->authority(), "a.b-c");
  EXPECT_EQ(ParseHttpUrl("https://a")->port, 443);
  for (const char* bad :
       {"", "a:80", "ftp://a", "http://", "http://:80", "http://a:0", "http://a:65536",
        "http://a:8x", "http://a:", "http://u@a", "http://a?b", "http://a/#b", "http://a b",
        "http://[::1", "http://[x]", "http://[::1]80"}) {
    const auto result = ParseHttpUrl(bad);
    ASSERT_FALSE(result) << bad;
    EXPECT_EQ(result.error().code(), ErrorCode::kInvalidArgument);
  }
}

TEST(HttpClient, FetchesAndReusesItsConnection) {
  TestServer server;
  auto client = Connect(server.port());
  for (int i = 0; i < 5; ++i) {
    HttpRequest request = Get("/x");
    request.method = "POST";
    request.body = std::string(100000, 'b');
    const auto response = client->Fetch(request);
    ASSERT_TRUE(response) << response.error().message();
    EXPECT_EQ(response->status, 200);
    EXPECT_EQ(response->content_type, "text/plain");
    EXPECT_EQ(response->body, "POST /x 100000");
  }
  EXPECT_EQ(server->stats().num_connections, 1);
  EXPECT_EQ(server->stats().num_requests, 5);
}

TEST(HttpClient, PutsThePrefixBeforeTheTarget) {
  TestServer server;
  HttpClientOptions options;
  options.base_url = "http://localhost:" + std::to_string(server.port()) + "/v1/";
  auto client = HttpClient::Create(options);
  ASSERT_TRUE(client);
  const auto response = (*client)->Fetch(Get("/models"));
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->body, "GET /v1/models 0");
}

TEST(HttpClient, ABodyArrivesInPiecesWithTheirTimes) {
  struct Pieces {
    std::array<std::atomic<steady_clock::time_point>, 3> put;
    std::atomic<int> num_arrived = 0;
  };
  const auto pieces = std::make_shared<Pieces>();
  TestServer server({}, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    auto box = std::make_shared<Mailbox>();
    exchange->Stream({}, std::make_unique<MailboxSource>(box));
    std::thread([exchange, box, pieces] {
      for (int i = 0; i < 3; ++i) {
        WaitFor([&] { return pieces->num_arrived == i; });  // else two may arrive as one
        pieces->put[static_cast<size_t>(i)] = steady_clock::now();
        box->Put("x", i == 2);
        exchange->Wake();
      }
    }).detach();
  });
  auto client = Connect(server.port());
  std::vector<steady_clock::time_point> arrivals;
  Ending ending;
  HttpCallbacks callbacks = ending.callbacks();
  int head_status = 0;
  callbacks.on_head = [&](int status, const auto&) { head_status = status; };
  callbacks.on_data = [&](std::string_view bytes, steady_clock::time_point arrival) {
    EXPECT_EQ(bytes, "x");
    arrivals.push_back(arrival);
    ++pieces->num_arrived;
  };
  client->Start(Get("/"), callbacks);
  EXPECT_TRUE(ending.future.get());
  EXPECT_EQ(head_status, 200);
  ASSERT_EQ(arrivals.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_GE(arrivals[i], pieces->put[i].load());
    if (i < 2) {
      EXPECT_LE(arrivals[i], pieces->put[i + 1].load());
    }
  }
}

TEST(HttpClient, ReadsEveryKindOfBody) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"},
      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nab\r\n1\r\nc\r\n0\r\nT: "
       "x\r\n\r\n",
       "abc"},
      {"HTTP/1.1 200 OK\r\n\r\nabc", "abc"},  // up to the close
      {"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nabc", "abc"},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"
       "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
       "abc"},
      {"HTTP/1.1 204 No Content\r\n\r\n", ""},
      {"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", ""},
  };
  for (const size_t cut : {size_t{1}, size_t{7}, size_t{10000}}) {
    for (const auto& [bytes, body] : cases) {
      RawServer server({{.bytes = bytes, .cut = cut}});
      const auto response = Connect(server.port())->Fetch(Get("/"));
      ASSERT_TRUE(response) << bytes << ": " << response.error().message();
      EXPECT_EQ(response->body, body) << bytes;
    }
  }
}

TEST(HttpClient, BrokenAnswersAreErrors) {
  for (const char* bytes :
       {"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
        "nonsense\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n"}) {
    RawServer server({{.bytes = bytes}});
    const auto response = Connect(server.port())->Fetch(Get("/"));
    ASSERT_FALSE(response) << bytes;
    EXPECT_EQ(response.error().code(), ErrorCode::kUnavailable) << bytes;
    EXPECT_NE(response.error().message().find("127.0.0.1:"), std::string::npos);
  }
}

TEST(HttpClient, AConnectionClosedBeforeTheAnswerIsReplacedOnce) {
  const std::string ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  // Kept open after the first answer, then closed when the second request is there.
  RawServer server({{.bytes = ok, .stays = true, .next = ""}, {.bytes = ok}});
  auto client = Connect(server.port());
  for (int i = 0; i < 2; ++i) {
    const auto response = client->Fetch(Get("/"));
    ASSERT_TRUE(response) << response.error().message();
    EXPECT_EQ(response->body, "ok");
  }
  EXPECT_EQ(server.num_connections(), 2);
  // Part of an answer is an answer: no second try.
  RawServer half({{.bytes = ok, .stays = true, .next = "HTTP/1.1 2"}, {.bytes = ok}});
  auto other = Connect(half.port());
  EXPECT_TRUE(other->Fetch(Get("/")));
  EXPECT_FALSE(other->Fetch(Get("/")));
}

TEST(HttpClient, NobodyListeningIsUnavailable) {
  int port = 0;
  {
    TestServer server;
    port = server.port();
  }
  const auto response = Connect(port)->Fetch(Get("/"));
  ASSERT_FALSE(response);
  EXPECT_EQ(response.error().code(), ErrorCode::kUnavailable);
  HttpClientOptions options;
  options.base_url = "http://no-such-host.invalid";
  EXPECT_FALSE((*HttpClient::Create(options))->Fetch(Get("/")));
  options.base_url = "localhost:8000";
  EXPECT_FALSE(HttpClient::Create(options));
}

TEST(HttpClient, DeadlinesAndCancelling) {
  std::mutex mutex;
  std::vector<std::shared_ptr<Exchange>> held;
  std::atomic<int> num_gone = 0;
  TestServer server({}, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    const std::lock_guard lock(mutex);
    exchange->OnGone([&] { ++num_gone; });
    held.push_back(exchange);
  });
  HttpClientOptions options;
  options.total_timeout = milliseconds(100);
  const auto late = Connect(server.port(), options)->Fetch(Get("/"));
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code(), ErrorCode::kDeadline);

  auto client = Connect(server.port());
  Ending ending;
  const int64_t handle = client->Start(Get("/"), ending.callbacks());
  ASSERT_TRUE(WaitFor([&] { return server->stats().num_requests == 2; }));
  client->Cancel(handle);
  const Status cancelled = ending.future.get();
  ASSERT_FALSE(cancelled);
  EXPECT_EQ(cancelled.error().code(), ErrorCode::kCancelled);
  client->Cancel(handle);
  client->Cancel(12345);

  Ending abandoned;
  client->Start(Get("/"), abandoned.callbacks());
  client.reset();
  EXPECT_EQ(abandoned.future.get().error().code(), ErrorCode::kCancelled);
  EXPECT_TRUE(WaitFor([&] { return num_gone >= 2; }));
}

TEST(HttpClient, AConnectThatHangsEnds) {
  // A listener whose queue is full answers no SYN.
  RawServer full({}, 0);
  std::vector<std::unique_ptr<Ending>> endings;
  HttpClientOptions options;
  options.connect_timeout = milliseconds(200);
  auto client = Connect(full.port(), options);
  for (int i = 0; i < 8; ++i) {
    endings.push_back(std::make_unique<Ending>());
    client->Start(Get("/"), endings.back()->callbacks());
  }
  // Those that fit into the queue hang later, in their answer.
  ASSERT_EQ(endings.back()->future.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(endings.back()->future.get().error().code(), ErrorCode::kDeadline);
}

TEST(HttpClient, HeadersThatWouldBreakTheRequestAreRefused) {
  TestServer server;
  auto client = Connect(server.port());
  HttpRequest request = Get("/");
  request.headers = {{"X", "a\r\nY: b"}};
  EXPECT_EQ(client->Fetch(request).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(client->Fetch(Get("/ HTTP/1.1\r\nX: y")).error().code(), ErrorCode::kInvalidArgument);
  EXPECT_EQ(server->stats().num_malformed, 0);
}

TEST(HttpClient, LargeBodiesBothWays) {
  TestServer server({}, [](HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
    exchange->Respond(TextResponse(std::move(request.body)));
  });
  auto client = Connect(server.port());
  HttpRequest request;
  request.method = "POST";
  request.body = Pattern(3, 0, 6 << 20);
  const auto response = client->Fetch(request);
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_TRUE(response->body == request.body);
}

TEST(HttpClient, AnAnswerBeforeTheBodyIsSentCounts) {
  HttpServerOptions options;
  options.max_body_bytes = 1000;
  TestServer server(options);
  auto client = Connect(server.port());
  HttpRequest request;
  request.method = "POST";
  request.body = std::string(16 << 20, 'x');
  const auto response = client->Fetch(request);
  ASSERT_TRUE(response) << response.error().message();
  EXPECT_EQ(response->status, 413);
  EXPECT_TRUE(client->Fetch(Get("/")));
}

}  // namespace
}  // namespace moebius::net
