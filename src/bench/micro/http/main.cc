// http_bench (cmake --build build/release --target http_bench): what one thread of the HTTP server
// carries, asked by our own client on this machine: tiny answers, and streams that an engine wakes
// all together once a step. The CPU times are those of the threads, so they hold on a busy machine
// too; the rates do not.
//   http_bench [--seconds S] [--connections N] [--streams N] [--event-bytes N]
#include <dirent.h>
#include <fmt/format.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "net/http_client.h"
#include "net/http_server.h"

namespace moebius::net {
namespace {

using Clock = std::chrono::steady_clock;

struct Settings {
  double seconds = 3;
  int connections = 64;
  int streams = 500;
  size_t event_bytes = 250;  // of a chat completion's chunk
};

// CPU seconds that this process's threads of a name have had.
double ThreadSeconds(const std::string& name) {
  double seconds = 0;
  DIR* tasks = opendir("/proc/self/task");
  MOEBIUS_CHECK(tasks != nullptr);
  while (const dirent* entry = readdir(tasks)) {
    const std::string task = std::string("/proc/self/task/") + entry->d_name;
    std::string comm;
    double nanoseconds = 0;
    if (std::getline(std::ifstream(task + "/comm"), comm) && comm == name &&
        std::ifstream(task + "/schedstat") >> nanoseconds) {
      seconds += 1e-9 * nanoseconds;
    }
  }
  closedir(tasks);
  return seconds;
}

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct Measure {
  Clock::time_point start = Clock::now();
  double server = ThreadSeconds("http-0");
  double client = ThreadSeconds("http-client");

  void Print(const char* what, int64_t num) const {
    const double n = static_cast<double>(num);
    fmt::print("{:<42} {:>9.0f} /s   server {:5.2f} us, client {:5.2f} us of CPU each\n", what,
               n / Since(start), 1e6 * (ThreadSeconds("http-0") - server) / n,
               1e6 * (ThreadSeconds("http-client") - client) / n);
  }
};

struct Pair {
  explicit Pair(HttpServer::Handler handler) {
    HttpServerOptions options;
    options.host = "127.0.0.1";
    options.port = 0;
    auto started = HttpServer::Start(options, std::move(handler));
    MOEBIUS_CHECK(started.has_value());
    server = std::move(*started);
    HttpClientOptions client_options;
    client_options.base_url = fmt::format("http://127.0.0.1:{}", server->port());
    auto created = HttpClient::Create(client_options);
    MOEBIUS_CHECK(created.has_value());
    client = std::move(*created);
  }
  std::unique_ptr<HttpServer> server;
  std::unique_ptr<HttpClient> client;
};

// Closed loop: every connection asks again as soon as it has its answer.
void TinyAnswers(const Settings& settings) {
  Pair pair([](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    HttpResponse response;
    response.body = "{\"ok\": true}";
    exchange->Respond(std::move(response));
  });
  std::atomic<int64_t> num_done{0};
  std::atomic<int> num_running{settings.connections};
  std::atomic<bool> stop{false};
  std::function<void()> ask = [&] {
    HttpCallbacks callbacks;
    callbacks.on_end = [&](const Status& status) {
      MOEBIUS_CHECK(status.has_value());
      ++num_done;
      if (stop) {
        --num_running;
      } else {
        ask();
      }
    };
    pair.client->Start({}, std::move(callbacks));
  };
  for (int i = 0; i < settings.connections; ++i) ask();
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const Measure measure;
  const int64_t before = num_done;
  std::this_thread::sleep_for(std::chrono::duration<double>(settings.seconds));
  measure.Print(fmt::format("tiny answers, {} connections", settings.connections).c_str(),
                num_done - before);
  stop = true;
  while (num_running > 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

// One event a step; what is not taken yet is merged.
class EventSource : public BodySource {
 public:
  struct Box {
    std::mutex mutex;
    std::string bytes;
    bool is_last = false;
  };
  explicit EventSource(std::shared_ptr<Box> box) : box_(std::move(box)) {}
  Piece Take() override {
    const std::lock_guard lock(box_->mutex);
    return {std::exchange(box_->bytes, {}), box_->is_last};
  }

 private:
  std::shared_ptr<Box> box_;
};

// An engine's steps: every stream gets an event and is woken; the next step begins when the client
// has all of it.
void Streams(const Settings& settings) {
  struct Live {
    std::shared_ptr<Exchange> exchange;
    std::shared_ptr<EventSource::Box> box;
  };
  std::mutex mutex;
  std::condition_variable news;
  std::vector<Live> live;
  Pair pair([&](const HttpRequest&, const std::shared_ptr<Exchange>& exchange) {
    auto box = std::make_shared<EventSource::Box>();
    exchange->Stream({}, std::make_unique<EventSource>(box));
    const std::lock_guard lock(mutex);
    live.push_back({exchange, box});
    news.notify_all();
  });
  size_t num_bytes = 0;  // guarded by mutex
  int num_ended = 0;     // guarded by mutex
  size_t wanted_bytes = 0;
  for (int i = 0; i < settings.streams; ++i) {
    HttpCallbacks callbacks;
    callbacks.on_data = [&](std::string_view bytes, Clock::time_point) {
      const std::lock_guard lock(mutex);
      num_bytes += bytes.size();
      if (num_bytes >= wanted_bytes) news.notify_all();
    };
    callbacks.on_end = [&](const Status& status) {
      MOEBIUS_CHECK(status.has_value());
      const std::lock_guard lock(mutex);
      ++num_ended;
      news.notify_all();
    };
    pair.client->Start({}, std::move(callbacks));
  }
  std::unique_lock lock(mutex);
  const auto num_streams = static_cast<size_t>(settings.streams);
  news.wait(lock, [&] { return live.size() == num_streams; });

  const std::string event(settings.event_bytes, 'x');
  const Measure measure;
  double wake_seconds = 0;
  int64_t num_steps = 0;
  for (; Since(measure.start) < settings.seconds; ++num_steps) {
    wanted_bytes += num_streams * event.size();
    lock.unlock();
    const Clock::time_point step = Clock::now();
    for (const Live& stream : live) {
      {
        const std::lock_guard box_lock(stream.box->mutex);
        stream.box->bytes.append(event);
      }
      stream.exchange->Wake();
    }
    wake_seconds += Since(step);
    lock.lock();
    news.wait(lock, [&] { return num_bytes >= wanted_bytes; });
  }
  const int64_t num_events = num_steps * settings.streams;
  measure.Print(fmt::format("events of {} bytes, {} streams", event.size(), num_streams).c_str(),
                num_events);
  fmt::print("{:<42} {:>9.3f} us each, in the engine's thread\n", "  Put and Wake",
             1e6 * wake_seconds / static_cast<double>(num_events));
  lock.unlock();
  for (const Live& stream : live) {
    {
      const std::lock_guard box_lock(stream.box->mutex);
      stream.box->is_last = true;
    }
    stream.exchange->Wake();
  }
  lock.lock();
  news.wait(lock, [&] { return num_ended == settings.streams; });
}

int Main(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string flag = argv[i];
    const double value = std::atof(argv[i + 1]);
    if (flag == "--seconds") settings.seconds = value;
    if (flag == "--connections") settings.connections = static_cast<int>(value);
    if (flag == "--streams") settings.streams = static_cast<int>(value);
    if (flag == "--event-bytes") settings.event_bytes = static_cast<size_t>(value);
  }
  TinyAnswers(settings);
  Streams(settings);
  return 0;
}

}  // namespace
}  // namespace moebius::net

int main(int argc, char** argv) { return moebius::net::Main(argc, argv); }
