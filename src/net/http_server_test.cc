#include "net/http_server.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "net/testing/raw_socket.h"
#include "net/testing/test_server.h"

namespace moebius::net {
namespace {

using std::chrono::milliseconds;

TEST(HttpServer, AnswersAndKeepsTheConnection) {
  TestServer server;
  RawSocket client(server.port());
  ASSERT_TRUE(client.is_connected());
  for (int i = 0; i < 3; ++i) {
    client.Send("GET /hello?x=1 HTTP/1.1\r\nHost: a\r\n\r\n");
    const std::string answer = client.ReceiveAnswer();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 OK\r\nDate: ")) << answer;
    EXPECT_TRUE(answer.ends_with("\r\n\r\nGET /hello 0")) << answer;
    EXPECT_EQ(answer.find("Connection:"), std::string::npos) << answer;
  }
  EXPECT_EQ(server->stats().num_requests, 3);
  EXPECT_EQ(server->stats().num_connections, 1);
}

TEST(HttpServer, HandsOverTheWholeRequest) {
  HttpRequest seen;
  TestServer server({}, [&](HttpRequest request, std::shared_ptr<Exchange> exchange) {
    seen = request;
    exchange->Respond({});
  });
  RawSocket client(server.port());
  client.Send(
      "POST http://example.org/a/b?c=d HTTP/1.1\r\nHost: example.org\r\nX-Id: 1 2\r\n"
      "Content-Length: 4\r\n\r\nbody");
  client.ReceiveAnswer();
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.target, "/a/b?c=d");
  EXPECT_EQ(seen.path(), "/a/b");
  EXPECT_EQ(seen.query(), "c=d");
  EXPECT_EQ(seen.body, "body");
  ASSERT_NE(seen.Find("x-ID"), nullptr);
  EXPECT_EQ(*seen.Find("x-ID"), "1 2");
  EXPECT_EQ(seen.Find("absent"), nullptr);
  EXPECT_TRUE(seen.peer.starts_with("127.0.0.1:")) << seen.peer;
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  // Later requests are answered sooner by their handlers; the wire keeps the order.
  std::mutex mutex;
  std::vector<std::thread> threads;
  TestServer server({}, [&](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    const std::lock_guard lock(mutex);
    threads.emplace_back([exchange, target = request.target] {
      if (target == "/0") std::this_thread::sleep_for(milliseconds(50));
      exchange->Respond(TextResponse("<" + target + ">"));
    });
  });
  RawSocket client(server.port());
  std::string requests;
  for (int i = 0; i < 20; ++i) {
    requests += "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: a\r\n\r\n";
  }
  client.Send(requests);
  for (int i = 0; i < 20; ++i) {
    const std::string answer = client.ReceiveAnswer();
    EXPECT_TRUE(answer.ends_with("</" + std::to_string(i) + ">")) << answer;
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(HttpServer, HeadHasNoBodyAndHttp10Closes) {
  TestServer server;
  RawSocket client(server.port());
  client.Send("HEAD /h HTTP/1.1\r\nHost: a\r\n\r\nGET /g HTTP/1.0\r\n\r\n");
  const std::string answers = client.ReceiveAll();
  EXPECT_NE(answers.find("Content-Length: 9\r\n\r\nHTTP/1.1 200 OK"), std::string::npos) << answers;
  EXPECT_TRUE(answers.ends_with("Connection: close\r\n\r\nGET /g 0")) << answers;
}

TEST(HttpServer, Http10MayKeepTheConnection) {
  TestServer server;
  RawSocket client(server.port());
  for (int i = 0; i < 2; ++i) {
    client.Send("GET /g HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    EXPECT_NE(client.ReceiveAnswer().find("Connection: keep-alive"), std::string::npos);
  }
}

TEST(HttpServer, ChunkedBodyAndExpectContinue) {
  TestServer server;
  RawSocket client(server.port());
  client.Send(
      "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.ReceiveUntil("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  client.Send("5;x=y\r\nhello\r\n");
  client.Send("1");
  client.Send("0\r\n0123456789abcdef\r\n0\r\nTrailer: t\r\n\r\n");
  EXPECT_TRUE(client.ReceiveAnswer().ends_with("POST /c 21"));
}

TEST(HttpServer, RefusesWithItsOwnErrors) {
  HttpServerOptions options;
  options.max_body_bytes = 100;
  options.max_header_bytes = 1000;
  TestServer server(options);
  const auto status = [&](const std::string& request) {
    RawSocket client(server.port());
    client.Send(request);
    const std::string answer = client.ReceiveAll();
    EXPECT_NE(answer.find("Connection: close"), std::string::npos) << answer;
    const std::string code = answer.substr(9, 3);
    EXPECT_NE(answer.find("{\"code\": " + code), std::string::npos) << answer;
    return code;
  };
  EXPECT_EQ(status("nonsense\r\n\r\n"), "400");
  EXPECT_EQ(status("GET / HTTP/1.1\r\n\r\n"), "400");
  EXPECT_EQ(status("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), "400");
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n"), "413");
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n" +
                   std::string(1 << 20, 'x')),
            "413");
  EXPECT_EQ(status("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n"),
            "413");
  EXPECT_EQ(status("GET / HTTP/1.1\r\nHost: a\r\nX: " + std::string(2000, 'x') + "\r\n\r\n"),
            "431");
  EXPECT_EQ(server->stats().num_malformed, 7);
  EXPECT_EQ(server->stats().num_requests, 0);
}

TEST(HttpServer, DeadlinesOfHeadBodyAndIdleness) {
  HttpServerOptions options;
  options.header_timeout = options.body_timeout = options.idle_timeout = milliseconds(1000);
  TestServer server(options);
  RawSocket silent(server.port());
  RawSocket head(server.port());
  head.Send("GET / HT");
  RawSocket body(server.port());
  body.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfive.");
  RawSocket idle(server.port());
  idle.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(silent.IsClosedWithin(10000));
  EXPECT_TRUE(head.ReceiveAll().starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(body.ReceiveAll().starts_with("HTTP/1.1 408 "));
  EXPECT_TRUE(idle.ReceiveAnswer().starts_with("HTTP/1.1 200 "));
  EXPECT_TRUE(idle.IsClosedWithin(10000));
}

TEST(HttpServer, ABodyThatIsNotWantedIsNotRead) {
  HttpServerOptions options;
  options.wants_body = [](const HttpRequest& head) { return head.Find("Key") != nullptr; };
  TestServer server(options);
  const std::string head = "POST /p HTTP/1.1\r\nHost: a\r\n";
  for (const char* expect : {"", "Expect: 100-continue\r\n"}) {
    RawSocket client(server.port());
    client.Send(head + expect + "Content-Length: 60000000\r\n\r\nsome");
    const std::string answer = client.ReceiveUntil("POST /p 0");  // long before the body's end
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200 ")) << answer;
    EXPECT_NE(answer.find("Connection: close"), std::string::npos) << answer;
    EXPECT_EQ(client.ReceiveAll(), "");
  }
  // Nothing is saved where the body is there already.
  RawSocket client(server.port());
  for (int i = 0; i < 2; ++i) {
    client.Send(head + "Content-Length: 4\r\n\r\nbody");
    EXPECT_TRUE(client.ReceiveAnswer().ends_with("POST /p 4"));
  }
  client.Send(head + "Key: k\r\nContent-Length: 200000\r\n\r\n");
  client.Send(std::string(200000, 'x'));
  EXPECT_TRUE(client.ReceiveAnswer().ends_with("POST /p 200000"));
}

TEST(HttpServer, BodiesUnderWayAreBoundedTogether) {
  HttpServerOptions options;
  options.max_total_body_bytes = 300000;
  TestServer server(options);
  const std::string head = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: ";
  RawSocket first(server.port());
  first.Send(head + "200001\r\n\r\n" + std::string(200000, 'x'));
  ASSERT_TRUE(WaitFor([&] { return server->stats().num_body_bytes == 200000; }));
  RawSocket second(server.port());
  second.Send(head + "200001\r\n\r\n" + std::string(200000, 'x'));
  const std::string answer = second.ReceiveUntil("\r\n\r\n");
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 503 ")) << answer;
  EXPECT_NE(answer.find("Retry-After: 1"), std::string::npos) << answer;
  RawSocket small(server.port());
  small.Send(head + "4\r\n\r\nbody");
  EXPECT_TRUE(small.ReceiveAnswer().ends_with("POST /p 4"));
  second.Close();
  first.Send("x");
  EXPECT_TRUE(first.ReceiveAnswer().ends_with("POST /p 200001"));
  EXPECT_TRUE(WaitFor([&] { return server->stats().num_body_bytes == 0; }));
}

TEST(HttpServer, ABodyThatDripsIsCutOff) {
  HttpServerOptions options;
  options.body_timeout = milliseconds(200);
  options.min_body_bytes_per_second = 1000000;
  TestServer server(options);
  RawSocket client(server.port());
  client.Send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
  bool is_cut = false;
  for (int i = 0; i < 500 && !is_cut; ++i) {  // never without progress
    client.Send("x");
    is_cut = client.Receive(1000, 10).starts_with("HTTP/1.1 408 ");
  }
  EXPECT_TRUE(is_cut);
}

TEST(HttpServer, AHandlerThatThrowsOrForgetsAnswers500) {
  TestServer server({}, [](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    if (request.target == "/throw") throw std::runtime_error("a handler's mistake");
    if (request.target == "/inject") {
      exchange->Respond(TextResponse("", {{"X-Id", "1\r\nSet-Cookie: a=b"}}));
    }
    if (request.target == "/name") exchange->Respond(TextResponse("", {{"X Id", "1"}}));
  });
  RawSocket client(server.port());
  for (const char* target : {"/throw", "/forget", "/inject", "/name"}) {
    client.Send(std::string("GET ") + target + " HTTP/1.1\r\nHost: a\r\n\r\n");
    const std::string answer = client.ReceiveAnswer();
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 500 ")) << target << answer;
    EXPECT_EQ(answer.find("Set-Cookie"), std::string::npos);
  }
}

TEST(HttpServer, TooManyConnectionsAreToldSo) {
  HttpServerOptions options;
  options.max_connections = 2;
  TestServer server(options);
  RawSocket first(server.port());
  RawSocket second(server.port());
  for (RawSocket* client : {&first, &second}) {
    client->Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_TRUE(client->ReceiveAnswer().starts_with("HTTP/1.1 200 "));
  }
  {
    RawSocket third(server.port());
    EXPECT_TRUE(third.ReceiveAll().starts_with("HTTP/1.1 503 "));
  }
  first.Close();
  EXPECT_TRUE(WaitFor([&] { return server->stats().num_connections < 2; }));
  RawSocket fourth(server.port());
  fourth.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(fourth.ReceiveAnswer().starts_with("HTTP/1.1 200 "));
}

TEST(HttpServer, OutOfFilesItWaitsAndGoesOn) {
  TestServer server;
  RawSocket first(server.port());
  first.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(first.ReceiveAnswer().starts_with("HTTP/1.1 200 "));
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const rlimit low{128, limit.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  std::vector<int> ballast;
  for (int fd = dup(0); fd >= 0; fd = dup(0)) ballast.push_back(fd);
  EXPECT_FALSE(ballast.empty());
  close(ballast.back());
  ballast.pop_back();
  RawSocket second(server.port());
  EXPECT_TRUE(second.is_connected());
  second.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(second.Receive(100, 150), "");
  // What is open goes on.
  first.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(first.ReceiveAnswer().starts_with("HTTP/1.1 200 "));
  for (const int fd : ballast) close(fd);
  EXPECT_TRUE(second.ReceiveAnswer().starts_with("HTTP/1.1 200 "));
  setrlimit(RLIMIT_NOFILE, &limit);
}

TEST(HttpServer, HeadsLongerThanWhatIsReadAhead) {
  HttpServerOptions options;
  options.max_header_bytes = 1 << 20;
  TestServer server(options);
  RawSocket client(server.port());
  client.Send("GET / HTTP/1.1\r\nHost: a\r\n");
  for (int i = 0; i < 20; ++i) {
    client.Send("X-" + std::to_string(i) + ": " + std::string(20000, 'x') + "\r\n");
    std::this_thread::sleep_for(milliseconds(1));
  }
  client.Send("\r\n");
  EXPECT_TRUE(client.ReceiveAnswer().starts_with("HTTP/1.1 200 "));
}

TEST(HttpServer, ListensOnIpv6AndSaysWhatItCannotBind) {
  HttpServerOptions options;
  options.host = "::";
  TestServer server(options);
  RawSocket v6(server.port(), 0, true);
  RawSocket v4(server.port());
  for (RawSocket* client : {&v6, &v4}) {
    client->Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_TRUE(client->ReceiveAnswer().starts_with("HTTP/1.1 200 "));
  }
  options.port = server.port();
  const auto second = HttpServer::Start(options, {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code(), ErrorCode::kUnavailable);
  EXPECT_NE(second.error().message().find("[::]:" + std::to_string(server.port())),
            std::string::npos)
      << second.error().message();
  options.host = "no such host";
  EXPECT_FALSE(HttpServer::Start(options, {}));
}

TEST(HttpServer, DrainAnswersWhatIsUnderWay) {
  std::mutex mutex;
  std::shared_ptr<Exchange> held;
  TestServer server({}, [&](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    if (request.target != "/held") return exchange->Respond({});
    const std::lock_guard lock(mutex);
    held = exchange;
  });
  RawSocket idle(server.port());
  idle.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  idle.ReceiveAnswer();
  RawSocket busy(server.port());
  busy.Send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(WaitFor([&] {
    const std::lock_guard lock(mutex);
    return held != nullptr;
  }));
  std::thread answer([&] {
    EXPECT_TRUE(idle.IsClosedWithin(10000));
    EXPECT_FALSE(RawSocket(server.port()).is_connected());
    held->Respond(TextResponse("late"));
    const std::string got = busy.ReceiveAll();
    EXPECT_TRUE(got.ends_with("Connection: close\r\n\r\nlate")) << got;
    busy.Close();
  });
  EXPECT_TRUE(server->Drain(milliseconds(20000)));
  answer.join();
  EXPECT_EQ(server->stats().num_connections, 0);
}

TEST(HttpServer, DrainGivesUpAtItsDeadline) {
  std::atomic<bool> gone = false;
  std::shared_ptr<Exchange> held;
  TestServer server({}, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->OnGone([&] { gone = true; });
    held = exchange;
  });
  RawSocket busy(server.port());
  busy.Send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
  ASSERT_TRUE(WaitFor([&] { return server->stats().num_requests == 1; }));
  const Status status = server->Drain(milliseconds(100));
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code(), ErrorCode::kDeadline);
  EXPECT_TRUE(busy.IsClosedWithin(5000));
  EXPECT_TRUE(WaitFor([&] { return gone.load(); }));
}

TEST(HttpServer, ExchangesOutliveTheServer) {
  std::mutex mutex;
  std::vector<std::shared_ptr<Exchange>> held;
  std::atomic<int> num_gone = 0;
  {
    TestServer server({}, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
      const std::lock_guard lock(mutex);
      exchange->OnGone([&] { ++num_gone; });
      held.push_back(exchange);
    });
    std::vector<RawSocket> clients;
    for (int i = 0; i < 3; ++i) {
      clients.emplace_back(server.port()).Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    ASSERT_TRUE(WaitFor([&] { return server->stats().num_requests == 3; }));
  }
  EXPECT_EQ(num_gone, 3);
  held[0]->Respond({});
  held[1]->Stream({}, nullptr);
  held[1]->Wake();
  bool at_once = false;
  held[2]->OnGone([&] { at_once = true; });
  EXPECT_TRUE(at_once);
}

}  // namespace
}  // namespace moebius::net
