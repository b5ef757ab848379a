// Streamed answers: over sockets of their own, and by the client against the server.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "net/http_client.h"
#include "net/http_server.h"
#include "net/testing/raw_socket.h"
#include "net/testing/sources.h"
#include "net/testing/test_server.h"

namespace moebius::net {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr char kGet[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

// Streams what is put into boxes; remembers whose client left.
class StreamServer {
 public:
  explicit StreamServer(HttpServerOptions options = {})
      : server_(options, [this](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
          auto box = std::make_shared<Mailbox>();
          exchange->OnGone([this] { ++num_gone_; });
          HttpResponse head;
          head.content_type = "text/event-stream";
          exchange->Stream(head, std::make_unique<MailboxSource>(box, &num_sources_));
          const std::lock_guard lock(mutex_);
          streams_.push_back({exchange, box});
        }) {}

  struct Live {
    std::shared_ptr<Exchange> exchange;
    std::shared_ptr<Mailbox> box;
    void Put(std::string_view bytes, bool is_last = false) const {
      box->Put(bytes, is_last);
      exchange->Wake();
    }
  };
  // The i-th stream, once it has begun.
  Live stream(size_t i) {
    EXPECT_TRUE(WaitFor([&] {
      const std::lock_guard lock(mutex_);
      return streams_.size() > i;
    }));
    const std::lock_guard lock(mutex_);
    return streams_.at(i);
  }
  // The exchanges that somebody but this list holds.
  size_t num_held() {
    const std::lock_guard lock(mutex_);
    size_t num = 0;
    for (const Live& live : streams_) num += live.exchange.use_count() > 1 ? 1 : 0;
    return num;
  }
  int port() const { return server_.port(); }
  TestServer& server() { return server_; }
  int num_gone() const { return num_gone_; }
  int num_sources() const { return num_sources_; }

 private:
  std::atomic<int> num_gone_ = 0;
  std::atomic<int> num_sources_ = 0;
  std::mutex mutex_;
  std::vector<Live> streams_;
  TestServer server_;  // the first to go
};

TEST(HttpStream, ChunksComeAsTheyAreWoken) {
  StreamServer server;
  RawSocket client(server.port());
  client.Send(kGet);
  const StreamServer::Live live = server.stream(0);
  const std::string head = client.ReceiveUntil("\r\n\r\n");
  EXPECT_NE(head.find("Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"),
            std::string::npos)
      << head;
  live.Put("one");
  EXPECT_EQ(client.Receive(), "3\r\none\r\n");
  live.exchange->Wake();  // for nothing
  live.Put("seventeen bytes..");
  EXPECT_EQ(client.Receive(), "11\r\nseventeen bytes..\r\n");
  live.Put("", true);
  EXPECT_EQ(client.Receive(), "0\r\n\r\n");
  EXPECT_TRUE(WaitFor([&] { return server.num_sources() == 0; }));
  EXPECT_EQ(server.num_gone(), 0);
  // The connection goes on.
  client.Send(kGet);
  server.stream(1).Put("x", true);
  EXPECT_TRUE(client.ReceiveUntil("0\r\n\r\n").ends_with("1\r\nx\r\n0\r\n\r\n"));
}

TEST(HttpStream, Http10GetsItUpToTheClose) {
  StreamServer server;
  RawSocket client(server.port());
  client.Send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  server.stream(0).Put("one");
  server.stream(0).Put("two", true);
  const std::string answer = client.ReceiveAll();
  EXPECT_NE(answer.find("Connection: close\r\n"), std::string::npos) << answer;
  EXPECT_EQ(answer.find("chunked"), std::string::npos) << answer;
  EXPECT_TRUE(answer.ends_with("\r\n\r\nonetwo")) << answer;
}

TEST(HttpStream, HeadOfAStreamHasNoBody) {
  StreamServer server;
  RawSocket client(server.port());
  client.Send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(client.ReceiveUntil("\r\n\r\n").starts_with("HTTP/1.1 200 "));
  EXPECT_TRUE(WaitFor([&] { return server.num_sources() == 0; }));
  EXPECT_EQ(server.num_gone(), 0);
}

TEST(HttpStream, AClientThatLeavesIsNoticed) {
  StreamServer server;
  std::vector<RawSocket> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(server.port()).Send(kGet);
    server.stream(static_cast<size_t>(i)).Put("x");
    clients.back().ReceiveUntil("x\r\n");
  }
  clients[0].Close();         // an idle stream
  clients[1].Reset();         // no goodbye
  clients[2].ShutdownSend();  // half of one
  EXPECT_TRUE(WaitFor([&] { return server.num_gone() == 3; }));
  EXPECT_TRUE(WaitFor([&] { return server.num_sources() == 0; }));
  EXPECT_TRUE(WaitFor([&] { return server.server()->stats().num_connections == 0; }));
  bool at_once = false;
  server.stream(0).exchange->OnGone([&] { at_once = true; });
  EXPECT_TRUE(at_once);
}

TEST(HttpStream, AClientThatLeavesBeforeTheAnswerIsNoticed) {
  std::atomic<bool> gone = false;
  std::shared_ptr<Exchange> held;
  TestServer server({}, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->OnGone([&] { gone = true; });
    held = exchange;
  });
  RawSocket client(server.port());
  client.Send(kGet);
  ASSERT_TRUE(WaitFor([&] { return server->stats().num_requests == 1; }));
  client.Close();
  EXPECT_TRUE(WaitFor([&] { return gone.load(); }));
  held->Respond({});
}

// Its close stands behind what it has sent ahead, where nobody would see it.
TEST(HttpStream, AClientThatSendsTooFarAheadIsGone) {
  StreamServer streams;
  std::atomic<bool> gone = false;
  std::shared_ptr<Exchange> held;
  TestServer server({}, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->OnGone([&] { gone = true; });
    held = exchange;
  });
  std::string ahead;
  while (ahead.size() < (300 << 10)) ahead += kGet;
  RawSocket waits(server.port());
  waits.Send(kGet);
  ASSERT_TRUE(WaitFor([&] { return server->stats().num_requests == 1; }));
  waits.Send(ahead);
  EXPECT_TRUE(WaitFor([&] { return gone.load(); }));
  EXPECT_TRUE(waits.ReceiveUntil("\r\n\r\n").starts_with("HTTP/1.1 400 "));
  waits.Close();
  RawSocket streamed(streams.port());
  streamed.Send(kGet);
  streams.stream(0).Put("x");
  streamed.ReceiveUntil("x\r\n");
  streamed.Send(ahead);
  streamed.Close();
  EXPECT_TRUE(WaitFor([&] { return streams.num_gone() == 1; }));
  EXPECT_TRUE(WaitFor([&] { return streams.server()->stats().num_connections == 0; }));
}

TEST(HttpStream, ASlowReaderSlowsItsSourceOnly) {
  std::atomic<size_t> taken = 0;
  constexpr size_t kSize = 64 << 20;
  TestServer server({}, [&](const HttpRequest& request, const std::shared_ptr<Exchange>& exchange) {
    if (request.target == "/quick") return exchange->Respond({});
    exchange->Stream({}, std::make_unique<PatternSource>(1, kSize, 10000, &taken));
  });
  RawSocket slow(server.port(), 4096);
  slow.Send(kGet);
  ASSERT_TRUE(WaitFor([&] { return taken > 0; }));
  size_t before = 0;
  while (before != taken) {
    before = taken;
    std::this_thread::sleep_for(milliseconds(30));
  }
  // What the kernel's buffers hold, not the whole.
  EXPECT_LT(taken, size_t{8} << 20);
  RawSocket quick(server.port());
  quick.Send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_TRUE(quick.ReceiveAnswer().starts_with("HTTP/1.1 200 "));
  // It goes on where it was.
  std::string body = slow.ReceiveUntil("\r\n\r\n");
  body.clear();
  while (body.size() < 100000) body += slow.Receive();
  EXPECT_TRUE(body.starts_with("2710\r\n" + Pattern(1, 0, 10000) + "\r\n2710\r\n" +
                               Pattern(1, 10000, 10000)));
}

TEST(HttpStream, AReaderThatTakesNothingIsGoneInTheEnd) {
  HttpServerOptions options;
  options.write_timeout = milliseconds(150);
  std::atomic<bool> gone = false;
  TestServer server(options, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->OnGone([&] { gone = true; });
    exchange->Stream({}, std::make_unique<PatternSource>(1, size_t{1} << 40, 10000));
  });
  RawSocket client(server.port(), 4096);
  client.Send(kGet);
  EXPECT_TRUE(WaitFor([&] { return gone.load(); }));
}

TEST(HttpStream, ASourceThatThrowsEndsItsConnectionOnly) {
  class Thrower : public BodySource {
    Piece Take() override {
      if (num_++ > 0) throw std::runtime_error("a source's mistake");
      return {"x", false};
    }
    int num_ = 0;
  };
  TestServer server({}, [&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    exchange->Stream({}, std::make_unique<Thrower>());
  });
  for (int i = 0; i < 2; ++i) {
    RawSocket client(server.port());
    client.Send(kGet);
    EXPECT_TRUE(client.ReceiveAll().ends_with("\r\n\r\n1\r\nx\r\n"));
  }
}

TEST(HttpStream, AThousandStreamsArriveIntact) {
  constexpr int kStreams = 1000;
  constexpr int kPieces = 20;
  HttpServerOptions options;
  options.num_threads = 2;
  StreamServer server(options);
  HttpClientOptions client_options;
  client_options.base_url = "http://127.0.0.1:" + std::to_string(server.port());
  client_options.connect_timeout = milliseconds(60000);
  auto client = HttpClient::Create(client_options);
  ASSERT_TRUE(client) << client.error().message();

  std::mutex mutex;
  std::condition_variable all_ended;
  int num_ended = 0;
  int num_failed = 0;
  std::vector<std::string> bodies(kStreams);
  for (int i = 0; i < kStreams; ++i) {
    HttpCallbacks callbacks;
    callbacks.on_data = [&bodies, i](std::string_view bytes, steady_clock::time_point) {
      bodies[static_cast<size_t>(i)].append(bytes);
    };
    callbacks.on_end = [&](const Status& status) {
      const std::lock_guard lock(mutex);
      num_failed += status ? 0 : 1;
      if (++num_ended == kStreams) all_ended.notify_all();
    };
    (*client)->Start({}, std::move(callbacks));
  }
  // "Steps": every stream gets something and is woken, as an engine does it.
  std::vector<StreamServer::Live> live;
  for (int i = 0; i < kStreams; ++i) live.push_back(server.stream(static_cast<size_t>(i)));
  for (int step = 0; step < kPieces; ++step) {
    for (int i = 0; i < kStreams; ++i) {
      const auto n = static_cast<size_t>(1 + (i * 7 + step * 13) % 300);
      live[static_cast<size_t>(i)].Put(Pattern(static_cast<uint64_t>(i), 0, n),
                                       step == kPieces - 1);
    }
  }
  std::unique_lock lock(mutex);
  ASSERT_TRUE(
      all_ended.wait_for(lock, std::chrono::seconds(60), [&] { return num_ended == kStreams; }));
  EXPECT_EQ(num_failed, 0);
  std::vector<std::string> sorted;
  for (int i = 0; i < kStreams; ++i) {
    // Which connection became which stream is the server's choice.
    std::string expected;
    for (int step = 0; step < kPieces; ++step) {
      expected +=
          Pattern(static_cast<uint64_t>(i), 0, static_cast<size_t>(1 + (i * 7 + step * 13) % 300));
    }
    sorted.push_back(std::move(expected));
  }
  std::sort(sorted.begin(), sorted.end());
  std::sort(bodies.begin(), bodies.end());
  EXPECT_TRUE(bodies == sorted);
  EXPECT_EQ(server.num_gone(), 0);
}

TEST(HttpStream, ClientsKilledAtRandomLeaveNothingBehind) {
  HttpServerOptions options;
  options.num_threads = 2;
  StreamServer server(options);
  std::atomic<bool> stop = false;
  std::atomic<size_t> num_seen = 0;
  // Feeds whatever stream there is.
  std::thread feeder([&] {
    for (size_t i = 0; !stop;) {
      const size_t n = static_cast<size_t>(server.server()->stats().num_requests);
      if (n > 0 && n > num_seen) num_seen = n;
      for (size_t k = 0; k < 50 && num_seen > 0; ++k, ++i) {
        const size_t which = num_seen - 1 - i % std::min<size_t>(num_seen, 64);
        server.stream(which).Put(std::string(i % 3000, 'x'), i % 97 == 0);
      }
      std::this_thread::yield();
    }
  });
  std::mt19937 random(7);
  const auto end = steady_clock::now() + milliseconds(1500);
  while (steady_clock::now() < end) {
    std::vector<RawSocket> clients;
    for (int i = 0; i < 16; ++i) {
      RawSocket& client = clients.emplace_back(server.port());
      const std::string request = kGet;
      // Some leave in the middle of their request.
      client.Send(random() % 4 == 0 ? request.substr(0, random() % request.size()) : request);
    }
    for (RawSocket& client : clients) {
      if (random() % 3 == 0) client.Receive(random() % 5000 + 1, 5);
      if (random() % 2 == 0) {
        client.Reset();
      } else {
        client.Close();
      }
    }
  }
  stop = true;
  feeder.join();
  EXPECT_TRUE(WaitFor([&] { return server.server()->stats().num_connections == 0; }));
  EXPECT_TRUE(WaitFor([&] { return server.num_sources() == 0; }));
  EXPECT_EQ(server.num_held(), 0u);
  EXPECT_GT(server.num_gone(), 50);
}

}  // namespace
}  // namespace moebius::net
