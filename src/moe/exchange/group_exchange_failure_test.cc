// What a late, dead or silent member does to the others, as threads and as processes.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "moe/exchange/group_exchange.h"
#include "moe/exchange/test_util.h"

namespace moebius::moe {
namespace {

using testing::Clock;
using testing::TestMat;
using testing::Tokens;

constexpr ExchangeShape kShape{
    .num_ranks = 4, .num_slots = 12, .max_tokens = 4, .top_k = 3, .hidden = 16};
constexpr int kNumSteps = 6;
constexpr int kCulprit = 2;

// Of a step that is to end well, and of one that somebody does not come to.
constexpr std::chrono::milliseconds kPatient = std::chrono::seconds(30);
constexpr std::chrono::milliseconds kImpatient = std::chrono::seconds(1);

struct Failure {
  std::string message;
  ErrorCode code = ErrorCode::kInternal;
  double seconds = 0;  // from the begin of the step that failed
};

// Steps of one call by one rank, until one fails or `leave_at` comes; patience ends at `lost_at`.
Failure RunSteps(GroupExchange& exchange, int rank, const Tokens& tokens, Mat out,
                 int lost_at = kNumSteps, int leave_at = kNumSteps) {
  const auto pool = testing::MakePool(1);
  kernels::ExecContext ctx = testing::ContextOn(testing::Best(), pool.get());
  for (int step = 0; step < leave_at; ++step) {
    const Clock::time_point begin = Clock::now();
    exchange.BeginStep(step, begin + (step < lost_at ? kPatient : kImpatient));
    testing::RunChunks(exchange, ctx, kShape, rank, 1, tokens, {}, out);
    if (exchange.status()) continue;
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    // Later calls return at once and leave the output alone.
    const Clock::time_point again = Clock::now();
    exchange.BeginStep(step + 1, again + kPatient);
    TestMat untouched(kShape.act, tokens.count(), kShape.hidden);
    const std::vector<uint8_t> before = untouched.RowCopy(0);
    testing::RunChunks(exchange, ctx, kShape, rank, 1, tokens, {}, untouched.view());
    EXPECT_LT(Clock::now() - again, kPatient / 3);
    EXPECT_EQ(untouched.RowCopy(0), before);
    const Status status = exchange.status();
    return {status.error().message(), status.error().code(), seconds};
  }
  return {};
}

std::vector<Failure> RunThreads(const std::function<FlagHook(int)>& hook, comm::AbortWord& abort,
                                int lost_at = kNumSteps, int leave_at = kNumSteps) {
  const std::vector<Tokens> tokens = testing::DrawAll(4, kShape, {4, 1, 4, 2});
  testing::SharedMemory memory(GroupExchange::NumBytes(kShape));
  std::vector<Failure> failures(4);
  testing::OnThreads(kShape.num_ranks, [&](int rank) {
    const auto r = static_cast<size_t>(rank);
    GroupExchange exchange(kShape, testing::MemberInfo(kShape.num_ranks, rank, &abort),
                           memory.bytes(), {.hook = hook ? hook(rank) : FlagHook()});
    TestMat out(kShape.act, tokens[r].count(), kShape.hidden);
    failures[r] = RunSteps(exchange, rank, tokens[r], out.view(), lost_at,
                           rank == kCulprit ? leave_at : kNumSteps);
  });
  return failures;
}

// One rank says who was late, the others that they heard of it; all in time.
void ExpectNamed(const std::vector<Failure>& failures, const comm::AbortWord& abort, int step,
                 bool culprit_fails) {
  EXPECT_EQ(abort.culprit(), 100 + kCulprit);
  int num_named = 0;
  for (size_t r = 0; r < failures.size(); ++r) {
    const Failure& failure = failures[r];
    if (!culprit_fails && r == kCulprit) continue;
    EXPECT_NE(failure.message.find(fmt::format("of test group, step {}", step)), std::string::npos)
        << r << ": " << failure.message;
    EXPECT_LT(failure.seconds, 5);
    if (failure.code == ErrorCode::kDeadline) {
      ++num_named;
      EXPECT_EQ(failure.message.find("rank 102 did not come in time"), 0U) << failure.message;
    } else {
      EXPECT_EQ(failure.code, ErrorCode::kUnavailable);
      EXPECT_NE(failure.message.find("a failure of rank 102"), std::string::npos);
    }
  }
  EXPECT_EQ(num_named, 1);
}

TEST(GroupExchangeFailure, AMemberThatLeavesIsNamed) {
  comm::AbortWord abort;
  const auto failures = RunThreads({}, abort, 3, 3);
  ExpectNamed(failures, abort, 3, false);
}

// Whichever flag is lost: who waits for those that wait for the culprit does not blame them.
TEST(GroupExchangeFailure, ALostFlagIsItsSendersFault) {
  for (const ExchangeHalf half : {ExchangeHalf::kDispatch, ExchangeHalf::kCombine}) {
    for (const int deaf : {0, 3}) {
      comm::AbortWord abort;
      const auto failures = RunThreads(
          [&](int rank) -> FlagHook {
            if (rank != kCulprit) return {};
            return [=](ExchangeHalf at, int to, uint32_t number) {
              return at != half || to != deaf || number != CallNumber(2, 0);
            };
          },
          abort, 2);
      EXPECT_EQ(abort.culprit(), 100 + kCulprit);
      EXPECT_EQ(failures[static_cast<size_t>(deaf)].message.empty(), false);
    }
  }
}

TEST(GroupExchangeFailure, ASlowMemberIsWaitedFor) {
  comm::AbortWord abort;
  const auto failures = RunThreads(
      [](int rank) -> FlagHook {
        if (rank != kCulprit) return {};
        return [](ExchangeHalf, int, uint32_t) {
          std::this_thread::sleep_for(std::chrono::milliseconds(5));
          return true;
        };
      },
      abort);
  for (const Failure& failure : failures) EXPECT_EQ(failure.message, "");
  EXPECT_FALSE(abort.is_set());
}

TEST(GroupExchangeFailure, AnAbortFromOutsideEndsTheWait) {
  comm::AbortWord abort;
  std::thread host([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    abort.Set(100, 100 + kCulprit);  // say, by a watcher of processes
  });
  const auto failures = RunThreads({}, abort, kNumSteps, 3);
  host.join();
  for (size_t r = 0; r < failures.size(); ++r) {
    if (r == kCulprit) continue;
    EXPECT_EQ(failures[r].code, ErrorCode::kUnavailable);
    EXPECT_LT(failures[r].seconds, 5);
  }
}

// Memory that processes share: the exchange's, the abort word, and what they found.
struct ProcessMemory {
  comm::AbortWord abort;
  bool same_bits[4] = {};
  int code[4] = {};
  bool named[4] = {};
};

class Processes {
 public:
  Processes() {
    const size_t bytes = sizeof(ProcessMemory) + 64 + GroupExchange::NumBytes(kShape);
    void* const map =
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    MOEBIUS_CHECK(map != MAP_FAILED);
    bytes_ = {static_cast<std::byte*>(map), bytes};
    shared_ = new (map) ProcessMemory;
  }
  ~Processes() { munmap(bytes_.data(), bytes_.size()); }
  Processes(const Processes&) = delete;
  Processes& operator=(const Processes&) = delete;

  ProcessMemory& shared() { return *shared_; }

  // Each rank in a process of its own; kCulprit dies before step `die_at`.
  void Run(const std::vector<Tokens>& tokens, const std::vector<TestMat>& expected, int die_at) {
    std::vector<pid_t> pids;
    for (int rank = 0; rank < kShape.num_ranks; ++rank) {
      const pid_t pid = fork();
      if (pid == 0) {
        RunRank(rank, tokens, expected, die_at);
        _exit(0);
      }
      pids.push_back(pid);
    }
    for (size_t r = 0; r < pids.size(); ++r) {
      int status = 0;
      ASSERT_EQ(waitpid(pids[r], &status, 0), pids[r]);
      if (die_at < kNumSteps && r == kCulprit) {
        EXPECT_TRUE(WIFSIGNALED(status));
      } else {
        EXPECT_TRUE(WIFEXITED(status));
      }
    }
  }

 private:
  void RunRank(int rank, const std::vector<Tokens>& tokens, const std::vector<TestMat>& expected,
               int die_at) {
    const auto r = static_cast<size_t>(rank);
    const size_t begin = (sizeof(ProcessMemory) + 63) / 64 * 64;
    GroupExchange exchange(kShape, testing::MemberInfo(kShape.num_ranks, rank, &shared_->abort),
                           bytes_.subspan(begin));
    TestMat out(kShape.act, tokens[r].count(), kShape.hidden);
    const int leave_at = rank == kCulprit ? die_at : kNumSteps;
    const Failure failure = RunSteps(exchange, rank, tokens[r], out.view(), die_at, leave_at);
    if (leave_at < kNumSteps) kill(getpid(), SIGKILL);
    shared_->code[r] = failure.message.empty() ? -1 : static_cast<int>(failure.code);
    shared_->named[r] = failure.message.find("rank 102") != std::string::npos;
    bool same = true;
    for (int64_t t = 0; t < tokens[r].count(); ++t) {
      same = same && out.RowCopy(t) == expected[r].RowCopy(t);
    }
    shared_->same_bits[r] = same;
  }

  std::span<std::byte> bytes_;
  ProcessMemory* shared_ = nullptr;
};

TEST(GroupExchangeFailure, ProcessesExchangeAsThreadsDo) {
  const std::vector<Tokens> tokens = testing::DrawAll(4, kShape, {4, 1, 4, 2});
  // Threads are the measure here; they are compared with one rank elsewhere.
  std::vector<TestMat> expected;
  for (const Tokens& part : tokens) {
    expected.emplace_back(kShape.act, part.count(), kShape.hidden);
  }
  {
    testing::SharedMemory memory(GroupExchange::NumBytes(kShape));
    comm::AbortWord abort;
    testing::OnThreads(kShape.num_ranks, [&](int rank) {
      const auto r = static_cast<size_t>(rank);
      GroupExchange exchange(kShape, testing::MemberInfo(kShape.num_ranks, rank, &abort),
                             memory.bytes());
      RunSteps(exchange, rank, tokens[r], expected[r].view());
    });
  }
  Processes processes;
  processes.Run(tokens, expected, kNumSteps);
  for (size_t r = 0; r < 4; ++r) {
    EXPECT_TRUE(processes.shared().same_bits[r]);
    EXPECT_EQ(processes.shared().code[r], -1);
  }
}

TEST(GroupExchangeFailure, AKilledProcessIsNamed) {
  const std::vector<Tokens> tokens = testing::DrawAll(4, kShape, {4, 1, 4, 2});
  std::vector<TestMat> unused;
  for (const Tokens& part : tokens) {
    unused.emplace_back(kShape.act, part.count(), kShape.hidden);
  }
  Processes processes;
  processes.Run(tokens, unused, 3);
  EXPECT_EQ(processes.shared().abort.culprit(), 100 + kCulprit);
  for (size_t r = 0; r < 4; ++r) {
    EXPECT_TRUE(r == kCulprit || processes.shared().named[r]);
  }
}

}  // namespace
}  // namespace moebius::moe
