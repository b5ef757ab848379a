#include "bench/load/generator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <thread>

#include "bench/load/figures.h"

namespace moebius::load {
namespace {

using Clock = std::chrono::steady_clock;

// Answers every request after a fixed time, from its own thread, in real time; the first ones only
// when `num_first` wait, or after ten seconds.
class FixedTimeServer {
 public:
  explicit FixedTimeServer(double seconds, size_t num_first = 1)
      : seconds_(seconds), num_first_(num_first), thread_([this] { Serve(); }) {}
  ~FixedTimeServer() {
    is_over_ = true;
    thread_.join();
  }

  Transport transport() {
    Transport transport;
    transport.now = [this] { return Now(); };
    transport.send = [this](RequestRecord record, std::function<void(RequestRecord)> done) {
      record.sent = Now();
      record.events.push_back({record.sent + seconds_, 1});
      record.output_tokens = 1;
      const std::lock_guard lock(mutex_);
      waiting_.emplace(record.sent + seconds_, std::pair(std::move(record), std::move(done)));
    };
    transport.cancel_all = [this] { is_cancelled_ = true; };
    return transport;
  }

 private:
  double Now() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }
  void Serve() {
    while (!is_over_) {
      std::unique_lock lock(mutex_);
      has_begun_ = has_begun_ || waiting_.size() >= num_first_ || Now() >= 10;
      while (!waiting_.empty() &&
             (is_cancelled_ || (has_begun_ && waiting_.begin()->first <= Now()))) {
        auto node = waiting_.extract(waiting_.begin());
        lock.unlock();
        auto& [record, done] = node.mapped();
        record.end = Now();
        if (is_cancelled_) record.outcome = Outcome::kCancelled;
        done(std::move(record));
        lock.lock();
      }
      lock.unlock();
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  }

  const double seconds_;
  const size_t num_first_;
  bool has_begun_ = false;
  const Clock::time_point start_ = Clock::now();
  std::atomic<bool> is_over_{false};
  std::atomic<bool> is_cancelled_{false};
  std::mutex mutex_;
  std::multimap<double, std::pair<RequestRecord, std::function<void(RequestRecord)>>> waiting_;
  std::thread thread_;
};

int64_t MostInFlight(const LoadRun& run) {
  int64_t most = 0;
  for (const InFlight& step : InFlightOverTime(run.records)) most = std::max(most, step.count);
  return most;
}

TEST(Generator, ABurstIsAllInFlight) {
  FixedTimeServer server(0.01, 20);
  LoadShape shape;
  shape.num_requests = 20;
  const LoadRun run = RunLoad(shape, server.transport(), {});
  ASSERT_EQ(run.records.size(), 20u);
  EXPECT_EQ(MostInFlight(run), 20);
  EXPECT_FALSE(run.was_stopped);
  for (int64_t i = 0; i < 20; ++i) EXPECT_EQ(run.records[static_cast<size_t>(i)].index, i);
}

TEST(Generator, AClosedLoopKeepsItsConcurrency) {
  FixedTimeServer server(0.02, 4);
  LoadShape shape;
  shape.num_requests = 16;
  shape.max_concurrency = 4;
  const LoadRun run = RunLoad(shape, server.transport(), {});
  ASSERT_EQ(run.records.size(), 16u);
  EXPECT_EQ(MostInFlight(run), 4);
  EXPECT_GE(run.duration, 4 * 0.02);
  // What waits for a place is queued at the client, and no fault of the generator.
  EXPECT_GT(run.records[15].released, run.records[15].scheduled + 0.05);
}

TEST(Generator, AnOpenLoopDoesNotWaitForTheServer) {
  FixedTimeServer server(0.01, 20);
  LoadShape shape;
  shape.num_requests = 20;
  shape.arrivals.request_rate = 100;
  const LoadRun run = RunLoad(shape, server.transport(), {});
  ASSERT_EQ(run.records.size(), 20u);
  EXPECT_EQ(run.records.back().scheduled, 0.2);
  for (const RequestRecord& record : run.records) EXPECT_GE(record.sent, record.scheduled);
  EXPECT_EQ(MostInFlight(run), 20);
}

TEST(Generator, ADurationBeginsTheRequestsAnew) {
  // Time goes on with the answers alone, however slow this machine is.
  std::atomic<int> num_answered = 0;
  std::vector<std::jthread> answers;
  Transport transport;
  transport.now = [&] { return 0.03 * num_answered; };
  transport.send = [&](RequestRecord record, std::function<void(RequestRecord)> done) {
    record.sent = transport.now();
    answers.emplace_back([&, record = std::move(record), done = std::move(done)]() mutable {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      record.end = 0.03 * ++num_answered;
      done(std::move(record));
    });
  };
  LoadShape shape;
  shape.num_requests = 2;
  shape.max_concurrency = 2;
  shape.duration = 0.2;
  const LoadRun run = RunLoad(shape, transport, {});
  EXPECT_GT(run.records.size(), 6u);
  for (const RequestRecord& record : run.records) EXPECT_LT(record.released, 0.2);
  EXPECT_LE(MostInFlight(run), 2);
}

TEST(Generator, TheConcurrencyRampFillsOneByOne) {
  FixedTimeServer server(0.5);
  LoadShape shape;
  shape.num_requests = 5;
  shape.max_concurrency = 5;
  shape.concurrency_ramp_seconds = 0.2;
  const LoadRun run = RunLoad(shape, server.transport(), {});
  ASSERT_EQ(run.records.size(), 5u);
  EXPECT_LT(run.records[0].sent, 0.1);
  for (size_t i = 1; i < 5; ++i) EXPECT_GE(run.records[i].sent, 0.05 * static_cast<double>(i));
}

TEST(Generator, ATraceKeepsItsTimes) {
  FixedTimeServer server(0.01);
  LoadShape shape;
  shape.num_requests = 3;
  shape.timed = {0, 0.05, 0.12};
  const LoadRun run = RunLoad(shape, server.transport(), {});
  ASSERT_EQ(run.records.size(), 3u);
  EXPECT_DOUBLE_EQ(run.records[2].scheduled, 0.12);
  EXPECT_GE(run.records[2].sent, 0.12);
}

TEST(Generator, AStopCancelsWhatIsUnderWay) {
  FixedTimeServer server(60);
  LoadShape shape;
  shape.num_requests = 100;
  shape.max_concurrency = 3;
  std::stop_source stop;
  std::jthread stopper([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    stop.request_stop();
  });
  const LoadRun run = RunLoad(shape, server.transport(), stop.get_token());
  EXPECT_TRUE(run.was_stopped);
  ASSERT_EQ(run.records.size(), 3u);
  for (const RequestRecord& record : run.records) {
    EXPECT_EQ(record.outcome, Outcome::kCancelled);
  }
}

TEST(Generator, WarnsWhenItWasTheLimit) {
  LoadRun run;
  run.records.resize(100);
  run.duration = 10;
  run.cpu_seconds = 1;
  EXPECT_TRUE(GeneratorWarnings(run).empty());
  for (size_t i = 0; i < 5; ++i) run.records[i].sent = 0.02;
  EXPECT_TRUE(GeneratorWarnings(run).empty());
  run.records[5].sent = 0.02;
  EXPECT_EQ(GeneratorWarnings(run).size(), 1u);
  run.cpu_seconds = 9;
  EXPECT_EQ(GeneratorWarnings(run).size(), 2u);
}

TEST(Generator, ShapesThatMakeNoSenseAreNamed) {
  LoadShape shape;
  EXPECT_FALSE(CheckShape(shape));
  shape.num_requests = 1;
  EXPECT_TRUE(CheckShape(shape));
  shape.duration = 3;
  EXPECT_NE(CheckShape(shape).error().message().find("--duration needs"), std::string::npos);
  shape.max_concurrency = 0;
  EXPECT_FALSE(CheckShape(shape));
  shape.max_concurrency = 1;
  EXPECT_TRUE(CheckShape(shape));
  shape.max_concurrency.reset();
  shape.duration = 0;
  shape.concurrency_ramp_seconds = 1;
  EXPECT_FALSE(CheckShape(shape));
}

}  // namespace
}  // namespace moebius::load
