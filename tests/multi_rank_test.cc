// Ranks as processes: one rank's answers, and an end in order whatever happens to any of them.

#include <fcntl.h>
#include <fmt/core.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/testing/slow.h"
#include "rank/process_ranks.h"
#include "rank/rank_process.h"
#include "rank/testing/golden_ranks.h"

namespace moebius::rank {
namespace {

using engine::EngineClient;
using Clock = std::chrono::steady_clock;

RankOptions OptionsOf(int tp, int dp, int pp, bool ep) {
  RankOptions options = testing::GoldenOptions(testing::Parallel(tp, dp, pp, ep));
  options.engine.num_kv_blocks = 256;
  return options;
}

engine::RequestInput InputOf(int i) {
  engine::RequestInput input = testing::InputOf(i, 2);
  if (i % 3 == 0) input.sampling.num_prompt_logprobs = 1;
  return input;
}

const std::vector<engine::TokenChunk>& OneRanksAnswers(int num_requests) {
  static const std::vector<engine::TokenChunk> answers =
      testing::Ask(*testing::OneRank(OptionsOf(1, 1, 1, false)), num_requests, InputOf);
  return answers;
}

// The processes that live (a zombie does not) and whose parent is `parent`.
std::vector<pid_t> ChildrenOf(pid_t parent) {
  std::vector<pid_t> children;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string line;
    std::getline(std::ifstream(entry.path() / "stat"), line);
    const size_t end = line.rfind(')');
    if (end == std::string::npos || end + 4 >= line.size() || line[end + 2] == 'Z') continue;
    if (std::stoi(line.substr(end + 4)) == parent) children.push_back(std::stoi(name));
  }
  return children;
}

bool IsAlive(pid_t pid) {
  std::string line;
  std::getline(std::ifstream(fmt::format("/proc/{}/stat", pid)), line);
  const size_t end = line.rfind(')');
  return end != std::string::npos && line[end + 2] != 'Z' && line[end + 2] != 'X';
}

template <typename Condition>
bool Becomes(const Condition& condition, std::chrono::milliseconds timeout) {
  const auto deadline = Clock::now() + timeout;
  while (!condition()) {
    if (Clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

// Every rank has taken part in all steps of its group, and its time is told by part.
void ExpectLoads(const RankOptions& options, const std::vector<engine::RankLoad>& loads) {
  ASSERT_EQ(loads.size(), static_cast<size_t>(options.parallel.num_gpus()));
  for (size_t rank = 0; rank < loads.size(); ++rank) {
    SCOPED_TRACE(rank);
    EXPECT_EQ(loads[rank].rank, static_cast<int>(rank));
    EXPECT_GT(loads[rank].num_steps, 0);
    EXPECT_GT(loads[rank].num_expert_rows, 0);
    EXPECT_GT(loads[rank].parts.attention, 0);
    EXPECT_GT(loads[rank].parts.wait, 0);
    const bool exchanges = options.parallel.expert_parallel_active();
    EXPECT_EQ(loads[rank].dispatch_bytes + loads[rank].combine_bytes > 0, exchanges);
  }
}

void ExpectOneRanksAnswers(const RankOptions& options) {
  constexpr int kRequests = 10;
  const std::vector<engine::TokenChunk>& expected = OneRanksAnswers(kRequests);
  {
    const auto client = ProcessRanks::Start(options);
    ASSERT_TRUE(client) << client.error().message();
    EXPECT_EQ(ChildrenOf(getpid()).size(), static_cast<size_t>(options.parallel.num_gpus()));
    const std::vector<engine::TokenChunk> answers = testing::Ask(**client, kRequests, InputOf);
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, expected[i].tokens) << "request " << i;
      EXPECT_EQ(answers[i].logprobs, expected[i].logprobs) << "request " << i;
      EXPECT_EQ(answers[i].prompt_logprobs, expected[i].prompt_logprobs) << "request " << i;
      EXPECT_EQ(answers[i].finish, engine::FinishReason::kLength) << "request " << i;
    }
    EXPECT_TRUE((*client)->Health());
    EXPECT_TRUE(Becomes([&] { return (*client)->Stats().num_finished_length == kRequests; },
                        std::chrono::seconds(2)));
    const auto assignments = [&] {
      moe::ExpertStats experts = (*client)->ExpertLoad();
      int64_t sum = 0;
      for (const int64_t count : experts.counts()) sum += count;
      return sum;
    };
    EXPECT_TRUE(Becomes([&] { return assignments() > 0; }, std::chrono::seconds(2)));
    ExpectLoads(options, (*client)->RankLoads());
  }
  EXPECT_TRUE(ChildrenOf(getpid()).empty());
}

TEST(ProcessRanks, TensorParallel) { ExpectOneRanksAnswers(OptionsOf(2, 1, 1, false)); }
TEST(ProcessRanks, DataAndExpertParallel) { ExpectOneRanksAnswers(OptionsOf(1, 2, 1, true)); }
TEST(ProcessRanks, FourRanks) { ExpectOneRanksAnswers(OptionsOf(2, 2, 1, true)); }
TEST(ProcessRanks, Pipeline) { ExpectOneRanksAnswers(OptionsOf(1, 2, 2, true)); }

// Swaps at random, so that the placement changes whatever the load.
TEST(ProcessRanks, StepsSayThePlacementInUse) {
  std::atomic<const ProcessRanks*> ranks = nullptr;
  std::mutex mutex;
  std::shared_ptr<const moe::PlacementState> last;
  std::map<int64_t, int64_t> epochs;  // by data-parallel rank: of its last step
  std::map<int64_t, std::vector<std::vector<int32_t>>> lists;  // by epoch
  int64_t num_wrong = 0;
  RankOptions options = OptionsOf(1, 2, 1, true);
  options.slots.num_slots = 18;  // of 16 experts
  options.online = {.layer_updates_per_iter = 1, .step_interval = 1, .is_random = true};
  options.engine.on_step = [&](const engine::StepRecord& record) {
    const ProcessRanks* const asked = ranks;
    if (asked == nullptr) return;
    const int64_t most = asked->Placement().epoch;
    const std::lock_guard lock(mutex);
    const int64_t least = std::exchange(epochs[record.dp_rank], record.epoch);
    if (record.epoch < least || record.epoch > most) ++num_wrong;
    if (record.placement == nullptr) return;  // heard of very late
    if (record.placement->epoch != record.epoch) ++num_wrong;
    const auto [known, is_new] = lists.emplace(record.epoch, record.placement->slots.layers);
    if (known->second != record.placement->slots.layers) ++num_wrong;
    last = record.placement;
  };
  const auto client = ProcessRanks::Start(options);
  ASSERT_TRUE(client) << client.error().message();
  EXPECT_TRUE((*client)->Placement().is_moving);
  EXPECT_EQ((*client)->Placement().slots.num_slots, 18);
  ranks = client->get();
  const auto seen = [&] {
    const std::lock_guard lock(mutex);
    return last != nullptr ? *last : moe::PlacementState();
  };
  for (int i = 0; i < 100 && seen().epoch < 3; ++i) testing::Ask(**client, 4, InputOf);
  const moe::SlotAssignment slots = seen().slots;
  ASSERT_GE(seen().epoch, 3);
  ASSERT_EQ(slots.layers.size(), 2U);
  const std::vector<int32_t> in_order = moe::LinearSlots(16, 2, 18);
  EXPECT_TRUE(slots.layers[0] != in_order || slots.layers[1] != in_order);
  const moe::BalanceStatus moves = (*client)->Placement().moves;
  EXPECT_GE(moves.num_committed, 3);
  EXPECT_GT(moves.num_slots, 0);
  EXPECT_GT(moves.num_bytes, 0);
  const std::lock_guard lock(mutex);
  EXPECT_EQ(num_wrong, 0);
}

TEST(ProcessRanks, StepsAreObserved) {
  std::atomic<int64_t> num_steps = 0;
  std::atomic<int64_t> num_rows = 0;
  RankOptions options = OptionsOf(1, 2, 1, true);
  options.engine.on_step = [&](const engine::StepRecord& record) {
    ++num_steps;
    num_rows += record.num_prefill_tokens + record.num_decode_tokens;
  };
  const auto client = ProcessRanks::Start(options);
  ASSERT_TRUE(client) << client.error().message();
  int64_t num_tokens = 0;
  for (const auto& answer : testing::Ask(**client, 4, InputOf))
    num_tokens += answer.usage.num_output_tokens;
  EXPECT_GT(num_steps, 0);
  EXPECT_GE(num_rows, num_tokens);
}

TEST(ProcessRanks, DestructionCancels) {
  auto client = ProcessRanks::Start(OptionsOf(2, 1, 1, false));
  ASSERT_TRUE(client) << client.error().message();
  engine::RequestInput input = InputOf(1);
  input.sampling.max_tokens = 50;
  engine::TokenStream stream;
  const auto id = (*client)->Submit(input, stream.Sink());
  ASSERT_TRUE(id) << id.error().message();
  ASSERT_TRUE(stream.Next(std::chrono::minutes(1)));
  client->reset();
  const auto rest = stream.Collect(std::chrono::milliseconds(0));
  ASSERT_TRUE(rest) << rest.error().message();
  EXPECT_EQ(rest->finish, engine::FinishReason::kCancelled);
  EXPECT_TRUE(ChildrenOf(getpid()).empty());
}

TEST(ProcessRanks, CancelEndsOneRequest) {
  const auto client = ProcessRanks::Start(OptionsOf(1, 2, 1, true));
  ASSERT_TRUE(client) << client.error().message();
  engine::RequestInput input = InputOf(1);
  input.sampling.max_tokens = 50;
  engine::TokenStream stream;
  const auto id = (*client)->Submit(input, stream.Sink());
  ASSERT_TRUE(id) << id.error().message();
  (*client)->Cancel(*id, engine::FinishReason::kStop);
  const auto answer = stream.Collect(std::chrono::seconds(10));
  ASSERT_TRUE(answer) << answer.error().message();
  EXPECT_EQ(answer->finish, engine::FinishReason::kStop);
  EXPECT_LT(answer->tokens.size(), size_t{50});
}

TEST(ProcessRanks, AnErrorOfARankIsTold) {
  RankOptions options = OptionsOf(1, 2, 1, true);
  options.load.mtp = false;
  options.load.hf_overrides = R"({"vocab_size": 97})";  // the checkpoint has another one
  const auto client = ProcessRanks::Start(options);
  ASSERT_FALSE(client);
  EXPECT_NE(client.error().code(), ErrorCode::kUnavailable) << client.error().message();
  EXPECT_NE(client.error().message().find("rank "), std::string::npos) << client.error().message();
  EXPECT_TRUE(ChildrenOf(getpid()).empty());
  options.load.folder += "/not_there";
  EXPECT_FALSE(ProcessRanks::Start(options));
}

// Runs until it is told to stop: a request after the other, so that ranks are always in a step.
void ExpectEndAfter(int signal, int victim, std::chrono::milliseconds bound,
                    const RankOptions& options = OptionsOf(2, 2, 1, true)) {
  SCOPED_TRACE(fmt::format("signal {} to rank {}", signal, victim));
  auto client = ProcessRanks::Start(options);
  ASSERT_TRUE(client) << client.error().message();
  std::vector<engine::TokenStream> streams(8);
  for (engine::TokenStream& stream : streams) {
    engine::RequestInput input = InputOf(1);
    input.sampling.max_tokens = 55;
    ASSERT_TRUE((*client)->Submit(input, stream.Sink()));
  }
  ASSERT_TRUE(streams[0].Next(std::chrono::minutes(1)));
  const pid_t pid = (*client)->Reports()[static_cast<size_t>(victim)].pid;
  const auto begin = Clock::now();
  ASSERT_EQ(kill(pid, signal), 0);
  int num_errors = 0;
  for (engine::TokenStream& stream : streams) {
    const auto end = stream.Collect(bound + std::chrono::seconds(5));
    ASSERT_TRUE(end) << end.error().message();
    ASSERT_TRUE(end->finish);
    if (*end->finish == engine::FinishReason::kError) {
      ++num_errors;
      ASSERT_TRUE(end->error);
      EXPECT_FALSE(end->error->message().empty());
    }
  }
  const auto requests = Clock::now() - begin;
  EXPECT_GT(num_errors, 0);
  EXPECT_LT(requests, bound);
  EXPECT_TRUE(Becomes([&] { return !(*client)->Health(); }, bound));
  const Status health = (*client)->Health();
  ASSERT_FALSE(health);
  EXPECT_NE(health.error().message().find(fmt::format("rank {} (process {})", victim, pid)),
            std::string::npos)
      << health.error().message();
  const auto refused = (*client)->Submit(InputOf(0), [](const engine::TokenEvent&) { FAIL(); });
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnavailable);
  EXPECT_TRUE(Becomes([] { return ChildrenOf(getpid()).empty(); }, std::chrono::seconds(2)));
  fmt::print("signal {} to rank {}: {} of 8 requests failed after {} ms: {}\n", signal, victim,
             num_errors, std::chrono::duration_cast<std::chrono::milliseconds>(requests).count(),
             health.error().message());
}

TEST(ProcessRanks, AKilledRankEndsTheRequestsAtOnce) {
  for (int rank = 0; rank < 4; ++rank) ExpectEndAfter(SIGKILL, rank, std::chrono::seconds(2));
}

TEST(ProcessRanks, AStoppedRankEndsTheRequests) {
  for (int rank = 0; rank < 4; ++rank) ExpectEndAfter(SIGSTOP, rank, std::chrono::seconds(3));
}

TEST(ProcessRanks, APipelineStageThatIsKilledOrStoppedEndsTheRequests) {
  const RankOptions options = OptionsOf(1, 2, 2, true);
  for (int rank = 0; rank < 4; ++rank) {
    ExpectEndAfter(SIGKILL, rank, std::chrono::seconds(2), options);
  }
  for (int rank = 0; rank < 2; ++rank) {
    ExpectEndAfter(SIGSTOP, rank, std::chrono::seconds(3), options);
  }
}

// It stands still most of the time, but never for long. Where others hold up its peers, too (this
// machine may be busy), they may be named beside it.
void ExpectNamed(const RankOptions& options, size_t victim) {
  SCOPED_TRACE(fmt::format("{}, rank {}", ConfigName(options.parallel), victim));
  const std::regex line(fmt::format("rank {} \\([^)]*\\) holds up the others", victim));
  ProcessOptions process;
  process.slow.window = std::chrono::milliseconds(500);
  std::string log;
  ::testing::internal::CaptureStderr();
  {
    const auto client = ProcessRanks::Start(options, process);
    ASSERT_TRUE(client) << client.error().message();
    const pid_t pid = (*client)->Reports()[victim].pid;
    std::atomic<bool> ends = false;
    std::thread slower([&] {
      while (!ends) {
        kill(pid, SIGSTOP);
        std::this_thread::sleep_for(std::chrono::milliseconds(200));
        kill(pid, SIGCONT);
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    });
    const auto end = Clock::now() + std::chrono::seconds(30);
    while (Clock::now() < end && (*client)->Health() && !std::regex_search(log, line)) {
      testing::Ask(**client, 4, InputOf);
      log += ::testing::internal::GetCapturedStderr();
      ::testing::internal::CaptureStderr();
    }
    ends = true;
    slower.join();
    EXPECT_TRUE((*client)->Health());
  }
  log += ::testing::internal::GetCapturedStderr();
  EXPECT_TRUE(std::regex_search(log, line)) << log;
}

TEST(ProcessRanks, ASlowRankIsNamedAndServesOn) {
  for (const size_t rank : {0U, 1U}) ExpectNamed(OptionsOf(1, 2, 1, true), rank);
  for (const size_t rank : {0U, 1U}) ExpectNamed(OptionsOf(2, 1, 1, false), rank);
  for (const size_t rank : {0U, 1U}) ExpectNamed(OptionsOf(1, 1, 2, false), rank);
  ExpectNamed(OptionsOf(2, 2, 1, true), 3);
}

// Which rank a child is: the second of its arguments, once it is the program.
int RankOf(pid_t pid) {
  std::string arguments;
  std::getline(std::ifstream(fmt::format("/proc/{}/cmdline", pid)), arguments);
  const std::string before = std::string("moebius") + '\0' + kRankProcessCommand + '\0';
  return arguments.starts_with(before) ? std::stoi(arguments.substr(before.size())) : -1;
}

void ExpectNoStartAfter(int signal, int victim, std::chrono::milliseconds delay) {
  SCOPED_TRACE(fmt::format("signal {} to rank {} after {} ms", signal, victim, delay.count()));
  Clock::time_point sent;
  pid_t pid = 0;
  std::thread killer([&] {
    (void)Becomes(
        [&] {
          for (const pid_t child : ChildrenOf(getpid())) {
            if (RankOf(child) == victim) pid = child;
          }
          return pid != 0;
        },
        std::chrono::seconds(10));
    std::this_thread::sleep_for(delay);
    sent = Clock::now();
    if (pid != 0) kill(pid, signal);
  });
  ProcessOptions process;
  process.silence.start = moebius::testing::Slow(std::chrono::milliseconds(1700));
  auto client = ProcessRanks::Start(OptionsOf(2, 2, 1, true), process);
  killer.join();
  ASSERT_NE(pid, 0);
  // It may have been ready just before.
  if (client) {
    EXPECT_TRUE(Becomes([&] { return !(*client)->Health(); }, std::chrono::seconds(3)));
    client->reset();
  } else {
    EXPECT_NE(client.error().message().find(fmt::format("rank {}", victim)), std::string::npos)
        << client.error().message();
  }
  EXPECT_LT(Clock::now() - sent, moebius::testing::Slow(std::chrono::seconds(4)));
  EXPECT_TRUE(ChildrenOf(getpid()).empty());
}

TEST(ProcessRanks, ARankThatDiesOrStopsDuringTheStartEndsIt) {
  for (int rank = 0; rank < 4; ++rank) {
    for (const int delay : {0, 3, 30}) {
      ExpectNoStartAfter(SIGKILL, rank, std::chrono::milliseconds(delay));
    }
    ExpectNoStartAfter(SIGSTOP, rank, std::chrono::milliseconds(10 * rank));
  }
}

// A process that starts four ranks, says so, and serves for ever.
int ServeForEver() {
  auto client = ProcessRanks::Start(OptionsOf(2, 2, 1, true));
  if (!client) return 1;
  if (write(STDOUT_FILENO, "+", 1) != 1) return 1;
  while (true) (void)testing::Ask(**client, 4, InputOf);
}

TEST(ProcessRanks, AKilledParentLeavesNoRank) {
  for (const bool during_start : {false, true}) {
    int ends[2];
    ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    std::string name = "multi_rank_test";
    std::string mode = "serve-for-ever";
    std::array<char*, 3> argv = {name.data(), mode.data(), nullptr};
    pid_t parent = 0;
    ASSERT_EQ(posix_spawn(&parent, "/proc/self/exe", &actions, nullptr, argv.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    if (!during_start) {
      pollfd event = {ends[0], POLLIN, 0};
      ASSERT_EQ(poll(&event, 1, 60000), 1);
    }
    ASSERT_TRUE(Becomes([&] { return ChildrenOf(parent).size() == 4; }, std::chrono::seconds(30)));
    const std::vector<pid_t> ranks = ChildrenOf(parent);
    kill(parent, SIGKILL);
    EXPECT_TRUE(Becomes(
        [&] {
          for (const pid_t rank : ranks) {
            if (IsAlive(rank)) return false;
          }
          return true;
        },
        std::chrono::seconds(2)));
    waitpid(parent, nullptr, 0);
    close(ends[0]);
  }
}

}  // namespace

int Main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (!args.empty() && args[0] == kRankProcessCommand) return RankProcessMain(args);
  if (!args.empty() && args[0] == "serve-for-ever") return ServeForEver();
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace moebius::rank

int main(int argc, char** argv) { return moebius::rank::Main(argc, argv); }
