// Hours of a server's life in minutes: 8 expert-parallel ranks under random requests, chats of many
// turns, clients that leave and lengths at the limit. MOEBIUS_SOAK_SECONDS says how long (900).
#include <fmt/core.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "serve_runner.h"

namespace moebius {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;
using std::chrono::seconds;

constexpr int kRanks = 8;
constexpr int kClients = 12;
constexpr int kVocab = 8192;
constexpr int kMaxModelLen = 512;
constexpr auto kStall = seconds(120);  // of one request; two cores carry all

seconds SoakTime() {
  const char* text = std::getenv("MOEBIUS_SOAK_SECONDS");
  return seconds(text != nullptr ? std::max(1, std::atoi(text)) : 900);
}

// Bytes that a process alone holds.
double PrivateBytes(pid_t pid) {
  std::istringstream status(ReadFile(fmt::format("/proc/{}/status", pid)));
  std::string word;
  while (status >> word) {
    double kilobytes = 0;
    if (word == "RssAnon:" && status >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

std::vector<pid_t> FamilyOf(pid_t parent) {
  std::vector<pid_t> family = ChildrenOf(parent);
  family.insert(family.begin(), parent);
  return family;
}

// What all clients saw.
struct Counts {
  std::atomic<int64_t> completions = 0;
  std::atomic<int64_t> turns = 0;
  std::atomic<int64_t> cancelled = 0;
  std::atomic<int64_t> at_limit = 0;
  std::atomic<int64_t> refused = 0;  // one token over the limit
  std::atomic<int64_t> tokens = 0;
  std::atomic<int64_t> repetitive = 0;  // chat answers that end in the same words again and again
  std::atomic<int64_t> slowest_ms = 0;

  void Saw(Clock::duration time) {
    const int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(time).count();
    int64_t most = slowest_ms;
    while (ms > most && !slowest_ms.compare_exchange_weak(most, ms)) {
    }
  }
};

// Whether the last quarter of an answer is one short piece over and over.
bool IsRepetitive(const std::string& text) {
  if (text.size() < 64) return false;
  const std::string end = text.substr(text.size() - text.size() / 4);
  for (size_t period = 1; period <= end.size() / 4; ++period) {
    if (std::equal(end.begin() + static_cast<ptrdiff_t>(period), end.end(), end.begin())) {
      return true;
    }
  }
  return false;
}

class SoakTest : public ServeTest {
 protected:
  // One client: random work until the time is over.
  void Run(int number, Clock::time_point end) {
    net::HttpClientOptions options;
    options.base_url = url_;
    options.total_timeout = kStall;
    const auto client = net::HttpClient::Create(options);
    ASSERT_TRUE(client) << client.error().message();
    std::mt19937 random(static_cast<unsigned>(number));
    while (Clock::now() < end && !HasFailure()) {
      switch (random() % 4) {
        case 0:
          Complete(**client, random);
          break;
        case 1:
          Converse(**client, random);
          break;
        case 2:
          Leave(**client, random);
          break;
        default:
          FillUp(**client, random);
      }
    }
  }

  net::HttpResponse Post(net::HttpClient& client, const std::string& target, const json& body) {
    const Clock::time_point start = Clock::now();
    net::HttpRequest request;
    request.method = "POST";
    request.target = target;
    request.body = body.dump();
    request.headers.push_back({"Content-Type", "application/json"});
    auto response = client.Fetch(std::move(request));
    counts_.Saw(Clock::now() - start);
    EXPECT_TRUE(response) << response.error().message();
    return response ? *response : net::HttpResponse{};
  }

  static std::vector<int> RandomPrompt(std::mt19937& random, int length) {
    std::vector<int> prompt(static_cast<size_t>(length));
    for (int& token : prompt) token = static_cast<int>(random() % kVocab);
    return prompt;
  }

  // Tokens are of the vocabulary, as many as asked for, and their log probabilities are numbers.
  void CheckTokens(const json& choice, size_t count) {
    const json& ids = choice["token_ids"];
    EXPECT_EQ(ids.size(), count);
    for (const json& id : ids) {
      EXPECT_GE(id.get<int>(), 0);
      EXPECT_LT(id.get<int>(), kVocab);
    }
    for (const json& logprob : choice["logprobs"]["token_logprobs"]) {
      ASSERT_TRUE(logprob.is_number()) << choice.dump();
      EXPECT_LE(logprob.get<double>(), 1e-6);
    }
    counts_.tokens += static_cast<int64_t>(ids.size());
  }

  void Complete(net::HttpClient& client, std::mt19937& random) {
    const size_t count = 1 + random() % 48;
    const net::HttpResponse response =
        Post(client, "/v1/completions",
             {{"prompt", RandomPrompt(random, 1 + static_cast<int>(random() % 200))},
              {"max_tokens", count},
              {"temperature", static_cast<double>(random() % 3) / 2},
              {"ignore_eos", true},
              {"logprobs", random() % 4},
              {"return_token_ids", true}});
    ASSERT_EQ(response.status, 200) << response.body;
    CheckTokens(json::parse(response.body)["choices"][0], count);
    ++counts_.completions;
  }

  void Converse(net::HttpClient& client, std::mt19937& random) {
    json messages = json::array();
    const int num_turns = 2 + static_cast<int>(random() % 3);
    for (int turn = 0; turn < num_turns; ++turn) {
      const std::string question =
          random() % 2 == 0 ? fmt::format("What is {} + {}?", random() % 50, random() % 50)
                            : "Write a poem about the sea.";
      messages.push_back({{"role", "user"}, {"content", question}});
      const net::HttpResponse response =
          Post(client, "/v1/chat/completions", {{"messages", messages}, {"max_tokens", 40}});
      ASSERT_EQ(response.status, 200) << response.body;
      const json answer = json::parse(response.body);
      const std::string text = answer["choices"][0]["message"]["content"].get<std::string>();
      counts_.tokens += answer["usage"]["completion_tokens"].get<int64_t>();
      if (IsRepetitive(text)) ++counts_.repetitive;
      messages.push_back({{"role", "assistant"}, {"content", text}});
      ++counts_.turns;
    }
  }

  // A stream whose reader goes after some pieces.
  void Leave(net::HttpClient& client, std::mt19937& random) {
    struct Call {
      std::mutex mutex;
      std::condition_variable changed;
      int num_pieces = 0;
      bool is_over = false;
    };
    const auto call = std::make_shared<Call>();
    const json body = {{"prompt", RandomPrompt(random, 40)},
                       {"max_tokens", 400},
                       {"ignore_eos", true},
                       {"stream", true}};
    net::HttpRequest request;
    request.method = "POST";
    request.target = "/v1/completions";
    request.body = body.dump();
    request.headers.push_back({"Content-Type", "application/json"});
    const int64_t handle =
        client.Start(std::move(request), {.on_head = {},
                                          .on_data =
                                              [call](auto, auto) {
                                                const std::lock_guard lock(call->mutex);
                                                ++call->num_pieces;
                                                call->changed.notify_all();
                                              },
                                          .on_end =
                                              [call](const Status&) {
                                                const std::lock_guard lock(call->mutex);
                                                call->is_over = true;
                                                call->changed.notify_all();
                                              }});
    const int enough = static_cast<int>(random() % 20);
    std::unique_lock lock(call->mutex);
    EXPECT_TRUE(call->changed.wait_for(lock, kStall, [&] {
      return call->num_pieces >= enough || call->is_over;
    })) << "a stream stands still";
    lock.unlock();
    client.Cancel(handle);
    lock.lock();
    EXPECT_TRUE(call->changed.wait_for(lock, kStall, [&] { return call->is_over; }));
    ++counts_.cancelled;
  }

  // Exactly as long as may be, and one token longer.
  void FillUp(net::HttpClient& client, std::mt19937& random) {
    const int count = 1 + static_cast<int>(random() % 8);
    json body = {{"prompt", RandomPrompt(random, kMaxModelLen - count)},
                 {"max_tokens", count},
                 {"ignore_eos", true},
                 {"logprobs", 0},
                 {"return_token_ids", true}};
    const net::HttpResponse fits = Post(client, "/v1/completions", body);
    ASSERT_EQ(fits.status, 200) << fits.body;
    CheckTokens(json::parse(fits.body)["choices"][0], static_cast<size_t>(count));
    ++counts_.at_limit;
    body["max_tokens"] = count + 1;
    EXPECT_EQ(Post(client, "/v1/completions", body).status, 400);
    ++counts_.refused;
  }

  double Metric(const std::string& name) const {
    const std::string metrics = Fetch("GET", "/metrics").body;
    const size_t at = metrics.find("\n" + name + "{");
    const size_t value = metrics.find("} ", at);
    EXPECT_NE(value, std::string::npos) << name;
    return value == std::string::npos ? -1 : std::stod(metrics.substr(value + 2));
  }

  // What the last client left may take a step or two to end.
  bool ComesToNothing(const std::string& name) const {
    for (int i = 0; i < 100; ++i) {
      if (Metric(name) == 0) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
    return false;
  }

  Counts counts_;
};

double MeanOf(const std::vector<double>& values, double from, double to) {
  const auto count = static_cast<double>(values.size());
  const auto first = values.begin() + static_cast<ptrdiff_t>(from * count);
  const auto last = values.begin() + static_cast<ptrdiff_t>(to * count);
  return std::accumulate(first, last, 0.0) /
         static_cast<double>(std::max<ptrdiff_t>(1, last - first));
}

TEST_F(SoakTest, EightRanksStayAsTheyAre) {
  Serve({std::string(MOEBIUS_SOURCE_DIR) + "/models/demo", "--data-parallel-size",
         std::to_string(kRanks), "--enable-expert-parallel", "--max-model-len",
         std::to_string(kMaxModelLen), "--max-num-seqs", "4", "--kv-cache-memory-bytes", "8M"});
  const std::vector<pid_t> family = FamilyOf(server_);
  ASSERT_EQ(family.size(), 1U + kRanks);
  const Clock::time_point end = Clock::now() + SoakTime();
  std::vector<std::thread> clients;
  for (int i = 0; i < kClients; ++i) clients.emplace_back([this, i, end] { Run(i, end); });
  std::vector<double> bytes;
  while (Clock::now() < end && !HasFailure()) {
    double sum = 0;
    for (const pid_t pid : family) sum += PrivateBytes(pid);
    bytes.push_back(sum);
    EXPECT_EQ(Fetch("GET", "/health").status, 200);
    std::this_thread::sleep_for(std::max<Clock::duration>(SoakTime(), seconds(60)) / 180);
  }
  for (std::thread& client : clients) client.join();

  for (const std::string name : {"vllm:num_requests_running", "vllm:num_requests_waiting",
                                 "vllm:kv_cache_usage_perc", "vllm:corrupted_requests_total"}) {
    EXPECT_TRUE(ComesToNothing(name)) << name << " stays at " << Metric(name);
  }
  const double early = MeanOf(bytes, 0.4, 0.6);
  const double late = MeanOf(bytes, 0.8, 1.0);
  fmt::print(
      "{} s: {} completions, {} chat turns ({} repetitive), {} left, {} at the limit, {} over it; "
      "{} tokens; slowest answer {} ms; private memory {:.1f} MB in the middle, {:.1f} at the "
      "end\n",
      SoakTime().count(), counts_.completions.load(), counts_.turns.load(),
      counts_.repetitive.load(), counts_.cancelled.load(), counts_.at_limit.load(),
      counts_.refused.load(), counts_.tokens.load(), counts_.slowest_ms.load(), early / 1e6,
      late / 1e6);
  EXPECT_LT(late, early * 1.02 + 4e6) << "memory grows";
  EXPECT_EQ(End(SIGTERM), 0) << ReadFile(folder_ + "server_err");
  for (const pid_t pid : family) EXPECT_NE(kill(pid, 0), 0) << pid << " is left";
}

}  // namespace
}  // namespace moebius
