#include "failure_runner.h"

#include <arpa/inet.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <thread>

#include "base/testing/slow.h"
#include "checkpoints.h"

namespace moebius {

using nlohmann::json;

namespace {

using testing::Slow;

const milliseconds kToError = milliseconds(2000);  // of whoever waits for an answer
const milliseconds kToMiss =
    milliseconds(1000);  // more, of a rank that only stops: it is silent for 1.7 s
const milliseconds kToExit = milliseconds(6000);  // of the program: it says why for three seconds
const milliseconds kToExitInStart = milliseconds(3000);  // nobody is there to be told
const milliseconds kToGone = milliseconds(1000);         // of the ranks, after it

milliseconds ToError(const Cell& cell) {
  return Slow(kToError + (cell.signal == SIGSTOP ? kToMiss : milliseconds(0)));
}

constexpr size_t kNumCalls = 8;

// The files of shared memory whose names begin so.
std::vector<std::string> SharedSegments(const std::string& base) {
  std::vector<std::string> names;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator("/dev/shm", none)) {
    std::string name = entry.path().filename();
    if (name.starts_with(base)) names.push_back(std::move(name));
  }
  return names;
}

// All processes that inherited that variable, in whatever group they are.
std::vector<pid_t> ProcessesWith(const std::string& variable) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    if (!Contains(ReadFile(entry.path() / "environ"), variable)) continue;
    if (const pid_t pid = std::stoi(name); IsAlive(pid)) found.push_back(pid);
  }
  return found;
}

sockaddr_in LocalAddress(int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<uint16_t>(port));
  return address;
}

// Listens there for a moment, as a server that is started again does; 0: at any that is free. The
// port, or -1: it is taken.
int TryPort(int port) {
  const int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int on = 1;
  setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  sockaddr_in address = LocalAddress(port);
  socklen_t size = sizeof(address);
  const bool is_free = bind(descriptor, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                       listen(descriptor, 1) == 0 &&
                       getsockname(descriptor, reinterpret_cast<sockaddr*>(&address), &size) == 0;
  close(descriptor);
  return is_free ? ntohs(address.sin_port) : -1;
}

}  // namespace

struct Call {
  std::mutex mutex;
  std::condition_variable changed;
  int status = 0;
  std::string body;
  std::optional<Status> end;
  Clock::time_point ended;

  bool Ends(Clock::time_point deadline) {
    std::unique_lock lock(mutex);
    return changed.wait_until(lock, deadline, [&] { return end.has_value(); });
  }
  bool HasBody(milliseconds patience) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, patience, [&] { return !body.empty() || end; });
  }
};

void FailureTest::StartServer(const Cell& cell) {
  mark_ = fmt::format("MOEBIUS_FAILURE_ROUND={}-{}-", getpid(), round_);
  segment_base_ = fmt::format("moebius_failure_{}-{}-", getpid(), round_);
  ++round_;
  port_ = TryPort(0);
  ASSERT_GT(port_, 0);
  url_ = fmt::format("http://127.0.0.1:{}", port_);
  Write("stdin", "");
  const TestModel& model = *cell.layout->model;
  server_ = Start(Args{"serve", Root() + model.folder, "--host", "127.0.0.1", "--port",
                       std::to_string(port_), "--max-num-seqs", "8", "--max-model-len",
                       std::to_string(model.max_model_len), "--max-num-batched-tokens", "16",
                       "--kv-cache-memory-bytes", "32M", "--device", cell.layout->device} +
                      cell.layout->flags,
                  "server_", {mark_, "MOEBIUS_EPLB_SHM_NAME=" + segment_base_});
  ASSERT_NE(server_, 0);
}

// As soon as there is such a process; 0: there never was.
pid_t FailureTest::WaitForVictim(const Cell& cell) const {
  if (cell.victim == kFrontend) return server_;
  const auto deadline = Clock::now() + Slow(milliseconds(20000));
  while (Clock::now() < deadline) {
    const std::vector<pid_t> ranks = ChildrenOf(server_);
    if (ranks.size() > static_cast<size_t>(cell.victim)) {
      return ranks[static_cast<size_t>(cell.victim)];
    }
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return 0;
}

void FailureTest::WaitUntilReady() {
  const auto deadline = Clock::now() + Slow(milliseconds(60000));
  while (!Contains(ReadFile(folder_ + "server_out"), "API at ")) {
    ASSERT_LT(Clock::now(), deadline) << ReadFile(folder_ + "server_err");
    ASSERT_TRUE(IsAlive(server_)) << ReadFile(folder_ + "server_err");
    std::this_thread::sleep_for(milliseconds(5));
  }
}

std::vector<int> FailureTest::PromptOf(const Cell& cell, size_t call) const {
  const TestModel& model = *cell.layout->model;
  const int length = cell.phase == Phase::kPrefill ? model.max_model_len * 3 / 4 : 8;
  std::vector<int> prompt(static_cast<size_t>(length));
  for (size_t t = 0; t < prompt.size(); ++t) {
    prompt[t] = static_cast<int>(t * 31 + call * 1009) % model.vocab;
  }
  return prompt;
}

// As many streams as whole answers. Prompts are computed in many steps; answers take longer than
// the test.
FailureTest::Calls FailureTest::StartCalls(net::HttpClient& client, const Cell& cell) const {
  Calls calls;
  for (size_t i = 0; i < kNumCalls; ++i) {
    const std::vector<int> prompt = PromptOf(cell, i);
    const bool streams = i % 2 == 0;
    net::HttpRequest request;
    request.method = "POST";
    request.target = "/v1/completions";
    request.body = json{{"prompt", prompt},
                        {"max_tokens", cell.layout->model->max_model_len - std::ssize(prompt)},
                        {"temperature", 0},
                        {"ignore_eos", true},
                        {"return_token_ids", true},
                        {"stream", streams}}
                       .dump();
    request.headers.push_back({"Content-Type", "application/json"});
    auto call = std::make_shared<Call>();
    client.Start(std::move(request), {.on_head =
                                          [call](int status, const auto&) {
                                            const std::lock_guard lock(call->mutex);
                                            call->status = status;
                                          },
                                      .on_data =
                                          [call](std::string_view bytes, auto) {
                                            const std::lock_guard lock(call->mutex);
                                            call->body += bytes;
                                            call->changed.notify_all();
                                          },
                                      .on_end =
                                          [call](Status end) {
                                            const std::lock_guard lock(call->mutex);
                                            call->ended = Clock::now();
                                            call->end = std::move(end);
                                            call->changed.notify_all();
                                          }});
    calls.push_back(std::move(call));
  }
  if (cell.phase == Phase::kDecode && cell.moment != Moment::kBeforeFlip) {
    for (const auto& call : calls) {
      if (call == calls[0] || call == calls[2]) {
        EXPECT_TRUE(call->HasBody(Slow(milliseconds(30000)))) << "no token came";
      }
    }
  }
  return calls;
}

// Of the first whose line begins so; 0: there is none.
double FailureTest::MetricOf(const std::string& sample) const {
  std::istringstream lines(Fetch("GET", "/metrics").body);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with(sample)) return std::stod(line.substr(line.rfind(' ') + 1));
  }
  return 0;
}

// Until experts have moved, and go on moving.
void FailureTest::WaitUntilMoved() const {
  const auto deadline = Clock::now() + Slow(milliseconds(30000));
  const auto epoch = [&] { return MetricOf("moebius:eplb_epoch{"); };
  while (epoch() < 2 && Clock::now() < deadline) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_GE(epoch(), 2) << "nothing moved";
}

// Until the first plan's experts are on their way, which takes them minutes.
void FailureTest::WaitUntilFetching() const {
  const auto deadline = Clock::now() + Slow(milliseconds(30000));
  const auto num_bytes = [&] { return MetricOf("moebius:eplb_moved_bytes_total{"); };
  while (num_bytes() == 0 && Clock::now() < deadline) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_GT(num_bytes(), 0) << "nothing moves";
  EXPECT_EQ(MetricOf("moebius:eplb_epoch{"), 0);
}

// Until a plan is committed while nobody takes steps, so that it is used by the next one: fetching
// takes seconds more than the request that makes the plan due.
void FailureTest::WaitUntilCommitted(const Cell& cell) const {
  const json request = {{"prompt", PromptOf(cell, 0)}, {"max_tokens", 3}, {"ignore_eos", true}};
  const auto epoch = [&] { return MetricOf("moebius:eplb_epoch{"); };
  for (int i = 0; i < 5; ++i) {
    const double before = epoch();
    EXPECT_EQ(Fetch("POST", "/v1/completions", request.dump()).status, 200);
    const auto deadline = Clock::now() + Slow(milliseconds(15000));
    while (epoch() == before && Clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    if (epoch() > before) return;
  }
  ADD_FAILURE() << "no plan was committed";
}

// What streams had before the error is what one rank says.
void FailureTest::ExpectNoWrongToken(const Cell& cell, const Calls& calls) const {
  constexpr int kMaxTokens = 200;
  std::string requests;
  for (size_t i = 0; i < kNumCalls; ++i) {
    const json request = {
        {"prompt_ids", PromptOf(cell, i)}, {"max_tokens", kMaxTokens}, {"ignore_eos", true}};
    requests += request.dump() + "\n";
  }
  const Finished one = Run({"run", Root() + cell.layout->model->folder, "--input-file",
                            Write("requests.jsonl", requests), "--temperature", "0",
                            "--deterministic", "--device", cell.layout->device});
  ASSERT_EQ(one.exit_code, 0) << one.err;
  std::istringstream answers(one.out);
  std::string answer;
  for (size_t i = 0; i < kNumCalls && std::getline(answers, answer); ++i) {
    const std::vector<int> expected = json::parse(answer)["token_ids"];
    std::vector<int> tokens;
    std::istringstream events(calls[i]->body);
    for (std::string line; std::getline(events, line);) {
      const json event = json::parse(line.substr(std::min(line.size(), size_t{6})), nullptr, false);
      if (!line.starts_with("data: ") || !event.is_object() || !event.contains("choices")) continue;
      for (const int token : event["choices"].at(0).value("token_ids", std::vector<int>())) {
        tokens.push_back(token);
      }
    }
    if (cell.moment == Moment::kBeforeFlip) {
      EXPECT_TRUE(tokens.empty()) << "of a step without rank " << cell.victim;
    } else {
      EXPECT_EQ(tokens.empty(), i % 2 == 1) << "only streams had any, call " << i;
    }
    tokens.resize(std::min(tokens.size(), expected.size()));
    EXPECT_TRUE(std::ranges::equal(tokens, std::span(expected).first(tokens.size())))
        << "call " << i << ": " << fmt::format("{}, expected {}", tokens, expected);
  }
}

// in_words: whoever waits hears from the server why; else its connection ends, as the server is
// gone. How long the last one waited.
int64_t FailureTest::ExpectErrors(const Cell& cell, const Calls& calls, bool in_words,
                                  Clock::time_point sent) const {
  int64_t longest = -1;
  for (const auto& call : calls) {
    if (!call->Ends(sent + 3 * ToError(cell))) {
      ADD_FAILURE() << "a call has not ended";
      continue;
    }
    const std::lock_guard lock(call->mutex);
    longest = std::max<int64_t>(
        longest, std::chrono::duration_cast<milliseconds>(call->ended - sent).count());
    if (!in_words) {
      EXPECT_FALSE(*call->end) << "a call to a server that was killed has ended well";
      continue;
    }
    EXPECT_TRUE(*call->end) << "cut off without words: " << call->end->error().message();
    EXPECT_TRUE(Contains(call->body, R"("error")") && Contains(call->body, "rank "))
        << call->status << ": "
        << call->body.substr(call->body.size() - std::min<size_t>(call->body.size(), 300));
    const bool is_stream = call->body.starts_with("data: ");
    EXPECT_EQ(call->status, is_stream ? 200 : 503);
  }
  EXPECT_LE(longest, ToError(cell).count());
  return longest;
}

// A server that nobody has asked anything says it, too.
void FailureTest::ExpectHealthSays(const Cell& cell, const std::string& name,
                                   Clock::time_point sent) const {
  net::HttpResponse health;
  do {
    health = Fetch("GET", "/health");
    if (health.status == 503) break;
    std::this_thread::sleep_for(milliseconds(10));
  } while (Clock::now() < sent + ToError(cell));
  EXPECT_EQ(health.status, 503);
  EXPECT_TRUE(Contains(health.body, name)) << health.body;
}

int64_t FailureTest::ExpectExit(const Cell& cell, const std::string& name, Clock::time_point sent) {
  const int exit_code = Wait(server_);
  const int64_t time = MillisecondsFrom(sent);
  server_ = 0;
  if (cell.victim == kFrontend) {
    EXPECT_EQ(exit_code, 128 + SIGKILL);
    return -1;
  }
  const std::string said = ReadFile(folder_ + "server_err");
  EXPECT_EQ(exit_code, 1) << said;
  EXPECT_TRUE(Contains(said, name)) << said << "expected " << name;
  const bool was_ready = Contains(ReadFile(folder_ + "server_out"), "API at ");
  EXPECT_LE(time, Slow(was_ready ? kToExit : kToExitInStart).count());
  return time;
}

void FailureTest::ExpectNothingLeft() const {
  const auto deadline = Clock::now() + Slow(kToGone);
  std::vector<pid_t> left = ProcessesWith(mark_);
  while (!left.empty() && Clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(10));
    left = ProcessesWith(mark_);
  }
  EXPECT_TRUE(left.empty()) << "processes are left: " << fmt::format("{}", left);
  for (const pid_t pid : left) kill(pid, SIGKILL);
  const std::vector<std::string> segments = SharedSegments(segment_base_);
  EXPECT_TRUE(segments.empty()) << "segments are left: " << fmt::format("{}", segments);
  EXPECT_EQ(TryPort(port_), port_) << "the port is not free";
}

Times FailureTest::RunCell(const Cell& cell, std::mt19937& random) {
  SCOPED_TRACE(cell.Name());
  Times times;
  StartServer(cell);
  if (HasFatalFailure()) return times;
  const auto client = net::HttpClient::Create({.base_url = url_});
  EXPECT_TRUE(client);
  Calls calls;
  if (cell.phase != Phase::kStart) {
    WaitUntilReady();
    if (HasFatalFailure()) return times;
  }
  const pid_t victim = WaitForVictim(cell);
  EXPECT_NE(victim, 0) << ReadFile(folder_ + "server_err");
  if (victim == 0) return times;
  if (cell.moment == Moment::kBeforeFlip) {
    WaitUntilCommitted(cell);
    kill(victim, SIGSTOP);
  }
  if (cell.phase != Phase::kStart && cell.phase != Phase::kIdle) calls = StartCalls(**client, cell);
  const bool sees_moves = cell.layout->moves && cell.phase == Phase::kDecode;
  if (cell.moment == Moment::kBeforeCommit) {
    WaitUntilFetching();
  } else if (cell.moment == Moment::kBeforeFlip) {
    std::this_thread::sleep_for(milliseconds(300));  // its peers have come to the step
  } else if (sees_moves) {
    WaitUntilMoved();
  }
  // From the very first moment to about when they are ready; steps take some milliseconds.
  const int most_ms = cell.phase == Phase::kStart ? 400 : 60;
  const auto delay = std::chrono::microseconds(
      random() % 4 == 0 ? 0 : static_cast<int64_t>(random()) % (most_ms * 1000));
  std::this_thread::sleep_for(delay);
  SCOPED_TRACE(fmt::format("after {} us", delay.count()));
  const auto sent = Clock::now();
  kill(victim, cell.signal);

  const bool in_words = cell.victim != kFrontend;
  const std::string name = fmt::format("rank {} (process {})", cell.victim, victim);
  if (in_words && cell.phase == Phase::kIdle) ExpectHealthSays(cell, name, sent);
  if (!calls.empty()) times.error = ExpectErrors(cell, calls, in_words, sent);
  times.exit = ExpectExit(cell, name, sent);
  ExpectNothingLeft();
  if (sees_moves) ExpectNoWrongToken(cell, calls);
  return times;
}

}  // namespace moebius
