// One round of the failure matrix: a server with ranks, calls on it, a signal to one of its
// processes, and what must follow. For tests/failure_test.cc.
#pragma once

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "serve_runner.h"

namespace moebius {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

inline int64_t NumberOf(const char* variable, int64_t otherwise) {
  const char* text = std::getenv(variable);
  return text != nullptr ? std::max<int64_t>(1, std::atoll(text)) : otherwise;
}

inline int64_t MillisecondsFrom(Clock::time_point begin) {
  return std::chrono::duration_cast<milliseconds>(Clock::now() - begin).count();
}

struct TestModel {
  const char* folder;
  int max_model_len;
  int vocab;
};
inline const TestModel kDemo = {"/models/demo", 2048, 8000};
// The demo's experts are not cut.
inline const TestModel kSmall = {"/tests/golden/deepseek_v3", 512, 120};

struct Layout {
  const char* name;
  Args flags;
  int num_ranks;
  const TestModel* model = &kDemo;
  bool moves = false;  // experts, all the time: each plan takes a part of a second
  const char* device = "cpu";
};
// Swaps whenever the ones before are in use, at so many bytes a second.
inline Args MovesAllTheTime(int rate) {
  return {"--deterministic",
          "--enable-eplb",
          "--num-redundant-experts",
          "8",
          "--eplb-config",
          fmt::format(R"({{"random_moves": 5, "layer_updates_per_iter": 3, "step_interval": 1,)"
                      R"( "bytes_per_second": {}}})",
                      rate)};
}
inline const Layout kLayouts[] = {
    {"DP2+EP", {"-dp", "2", "-ep"}, 2},
    {"TP2", {"-tp", "2"}, 2, &kSmall},
    {"PP2", {"-pp", "2"}, 2},
    {"DP4+EP", {"-dp", "4", "-ep"}, 4},
    {"TP2+DP2+EP", {"-tp", "2", "-dp", "2", "-ep"}, 4, &kSmall},
    {"DP2+PP2+EP", {"-dp", "2", "-pp", "2", "-ep"}, 4},
    {"DP4+EP, experts move", Args{"-dp", "4", "-ep"} + MovesAllTheTime(3'000'000), 4, &kDemo,
     true}};
// A process a GPU.
inline const Layout kGpuLayouts[] = {
    {"DP2+EP on GPUs", {"-dp", "2", "-ep"}, 2, &kDemo, false, "cuda"},
    {"TP2 on GPUs", {"-tp", "2"}, 2, &kSmall, false, "cuda"},
    {"PP2 on GPUs", {"-pp", "2"}, 2, &kDemo, false, "cuda"},
    {"DP2+EP on GPUs, experts move", Args{"-dp", "2", "-ep"} + MovesAllTheTime(3'000'000), 2,
     &kDemo, true, "cuda"}};

enum class Phase { kStart, kIdle, kPrefill, kDecode };
inline constexpr const char* kPhaseNames[] = {"start", "idle", "prefill", "decode"};

// Where in a change of placement.
enum class Moment {
  kAny,
  // The first plan is published, and nobody has all that it needs.
  kBeforeCommit,
  // A plan is committed; the victim is stopped before it flips to it, and killed when its peers are
  // in the first step of that epoch or wait for it there.
  kBeforeFlip,
};

inline constexpr const char* kMomentNames[] = {"", ", before a commit", ", before its flip"};

inline constexpr int kFrontend = -1;
struct Cell {
  const Layout* layout;
  int victim = kFrontend;  // or a rank
  int signal = SIGKILL;
  Phase phase = Phase::kDecode;
  Moment moment = Moment::kAny;

  std::string Name() const {
    const std::string who = victim == kFrontend ? "the server" : fmt::format("rank {}", victim);
    return fmt::format("{}: signal {} to {}, {}{}", layout->name, signal, who,
                       kPhaseNames[static_cast<int>(phase)],
                       kMomentNames[static_cast<int>(moment)]);
  }
};

// What one round took, in milliseconds after the signal; -1: there was none.
struct Times {
  int64_t error = -1;  // until the last caller had its error
  int64_t exit = -1;
};

// A call under way, and how it ended.
struct Call;

class FailureTest : public ServeTest {
 protected:
  Times RunCell(const Cell& cell, std::mt19937& random);

 private:
  using Calls = std::vector<std::shared_ptr<Call>>;

  void StartServer(const Cell& cell);
  pid_t WaitForVictim(const Cell& cell) const;
  void WaitUntilReady();
  std::vector<int> PromptOf(const Cell& cell, size_t call) const;
  Calls StartCalls(net::HttpClient& client, const Cell& cell) const;
  double MetricOf(const std::string& sample) const;
  void WaitUntilMoved() const;
  void WaitUntilFetching() const;
  void WaitUntilCommitted(const Cell& cell) const;
  void ExpectNoWrongToken(const Cell& cell, const Calls& calls) const;
  int64_t ExpectErrors(const Cell& cell, const Calls& calls, bool in_words,
                       Clock::time_point sent) const;
  void ExpectHealthSays(const Cell& cell, const std::string& name, Clock::time_point sent) const;
  int64_t ExpectExit(const Cell& cell, const std::string& name, Clock::time_point sent);
  void ExpectNothingLeft() const;

  int round_ = 0;
  std::string mark_;          // a variable that all processes of the round have
  std::string segment_base_;  // of the names of what they share; all other memory has none
  int port_ = 0;
};

}  // namespace moebius
