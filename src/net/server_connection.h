// One connection of the server: a coroutine that reads a request, lets the handler answer it and
// writes the answer, again and again. It lives on one event loop and is touched by its thread only.
//
// One Event wakes it, whatever happened: bytes came, the socket takes more, the handler has news, a
// deadline passed, the server stops. Reads and writes are tried at once and only then waited for,
// so a connection that waits holds no buffer. Deadlines are a time to compare with: the server
// sweeps over all connections now and then, and nothing is armed per operation.
//
// While an answer is under way the read side is watched too. A client that closes its sending side
// then is taken as gone, as nginx and uvicorn do: HTTP/1.1 clients do not half-close, and a stream
// that nobody reads holds a slot of the model. What is answered already is sent nevertheless.
// Behind requests that are sent ahead without end no close would be seen: they are an error.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <ctime>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "net/event_loop.h"
#include "net/exchange.h"
#include "net/http_reader.h"
#include "net/http_server.h"

namespace moebius::net {

// What all threads of a server share.
struct ServerShared {
  HttpServerOptions options;
  HttpServer::Handler handler;
  std::function<std::string(int, const std::string&)> error_body;

  std::atomic<int64_t> num_requests{0};
  std::atomic<int64_t> num_malformed{0};
  std::atomic<int64_t> num_connections{0};
  std::atomic<int64_t> num_body_bytes{0};  // of bodies that are being read
  std::atomic<bool> is_draining{false};

  std::mutex mutex;
  std::condition_variable connection_closed;  // notified while draining
};

class ServerConnection;

// What the connections of one thread share. That thread's, but for the loop.
struct ServerThread {
  std::shared_ptr<EventLoop> loop;
  std::unordered_set<ServerConnection*> connections;
  std::vector<char> scratch = std::vector<char>(64 << 10);  // what a read fills

  std::string_view Date();  // for the header, made once a second

 private:
  std::time_t date_time_ = 0;
  std::string date_;
};

class ServerConnection : public std::enable_shared_from_this<ServerConnection> {
 public:
  // `refuse`: too many connections; it is told so and closed.
  ServerConnection(Socket socket, ServerShared* shared, ServerThread* thread, bool refuse);
  ~ServerConnection();

  void Start();  // runs by itself from here on
  void CheckDeadline(Clock::time_point now);
  void LookAgain() {  // the server drains
    may_have_bytes_ = true;
    event_.Set();
  }
  void Abort();  // the end, as soon as it gets to it

 private:
  Awaitable<> Run(std::shared_ptr<ServerConnection> self);
  Awaitable<bool> ReadRequest();
  Awaitable<bool> ReadMore(RequestReader::State state, std::string_view* bytes);
  bool CountBody(size_t num_bytes);  // false: all connections together read too much
  Awaitable<bool> Answer();
  Awaitable<bool> AnswerAtOnce(const HttpResponse& response, bool is_head, bool keep_alive);
  Awaitable<bool> AnswerStream(PendingAnswer* answer, const HttpResponse& head, bool is_head,
                               bool keep_alive);
  Awaitable<> SendError(int status, std::string_view message);
  Awaitable<> Linger();

  // True when all of both has been taken by the socket; false: it broke or timed out.
  Awaitable<bool> Send(std::string_view first, std::string_view second);
  bool TrySend();  // false: some of out_ is left
  // The next event. Watches for bytes (and the client's end), and for room to send if asked.
  Awaitable<> Wait(bool for_room);
  Awaitable<> Yield();      // lets others run
  std::string_view Read();  // what came, perhaps nothing; sets is_eof_
  void KeepWhatCame();      // during an answer: the start of the next request
  // There is nobody to answer, or nobody who is to be answered any longer.
  bool IsOver() const { return is_eof_ || is_aborted_ || is_too_far_ahead_; }

  static bool CanBeSent(const HttpResponse& response);
  HttpResponse ErrorResponse(int status, std::string_view message);
  Clock::time_point After(std::chrono::milliseconds time) { return Clock::now() + time; }
  void Close();

  Socket socket_;
  ServerShared* const shared_;
  ServerThread* const thread_;
  Event event_;
  RequestReader reader_;
  std::string peer_;
  std::string out_head_;  // what is being sent: heads and chunks
  std::array<std::string_view, 2> out_;
  Clock::time_point deadline_ = Clock::time_point::max();
  size_t num_since_yield_ = 0;  // bytes, roughly
  size_t max_kept_ = 0;         // more than that is not taken ahead; 0: nothing is looked for
  size_t num_body_bytes_ = 0;   // of shared_'s

  const bool refuse_;
  bool may_have_bytes_ = true;     // worth a read without waiting
  bool is_watching_ = false;       // for bytes
  bool awaits_room_ = false;       // to send
  bool is_eof_ = false;            // nothing more will come
  bool is_broken_ = false;         // nothing more can be sent
  bool is_expired_ = false;        // deadline_ has passed
  bool is_aborted_ = false;        // by the server
  bool is_too_far_ahead_ = false;  // max_kept_ is reached: its end could not be seen any more
  bool should_linger_ = false;     // close so that the last answer arrives
  bool is_first_request_ = true;
};

}  // namespace moebius::net
