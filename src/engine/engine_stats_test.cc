// What an engine says about itself: counters, histograms, progress, step records, and that it rests
// when it has nothing to do.
#include "engine/engine_stats.h"

#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <mutex>
#include <numeric>
#include <thread>

#include "engine/scheduler.h"
#include "engine/testing/engine_fixture.h"

namespace moebius::engine {
namespace {

using std::chrono::milliseconds;
using testing::EngineTest;
using testing::kLong;
using testing::SmallOptions;

// A record whose counts outlive the observer's call.
struct KeptRecord : StepRecord {
  std::vector<int32_t> counts;
};

class Recorder {
 public:
  StepObserver Observer() {
    return [this](const StepRecord& record) {
      const std::lock_guard lock(mutex_);
      records_.push_back({record, {record.expert_counts.begin(), record.expert_counts.end()}});
    };
  }
  std::vector<KeptRecord> records() const {
    const std::lock_guard lock(mutex_);
    return records_;
  }
  // The engine's statistics know of a step a little earlier.
  std::vector<KeptRecord> RecordsOf(int64_t num_steps) const {
    const auto deadline = std::chrono::steady_clock::now() + kLong;
    while (std::ssize(records()) < num_steps && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    return records();
  }

 private:
  mutable std::mutex mutex_;
  std::vector<KeptRecord> records_;
};

TEST_F(EngineTest, HistogramsCountRequestsTokensAndSteps) {
  hooks_.delay_ms = 2;
  const auto client = Start();
  std::vector<TokenStream> streams(12);
  for (const TokenStream& stream : streams) {
    ASSERT_TRUE(client->Submit(Make(std::vector<TokenId>(20, 3), 5), stream.Sink()).has_value());
  }
  for (TokenStream& stream : streams) ASSERT_EQ(stream.Collect(kLong)->tokens.size(), 5u);
  const EngineStats stats = StatsAtRest(*client, 12);
  EXPECT_EQ(stats.num_finished_length, 12);
  EXPECT_EQ(stats.time_to_first_token.count(), 12);
  EXPECT_EQ(stats.inter_token_latency.count(), 12 * 4);
  EXPECT_EQ(stats.time_per_output_token.count(), 12);
  for (const Histogram* histogram : {&stats.e2e_latency, &stats.queue_time, &stats.prefill_time,
                                     &stats.decode_time, &stats.inference_time}) {
    EXPECT_EQ(histogram->count(), 12);
  }
  // A step takes two milliseconds and more.
  EXPECT_GE(stats.inter_token_latency.sum(), 12 * 4 * 0.002);
  EXPECT_GE(stats.time_to_first_token.sum(), 12 * 0.002);
  EXPECT_NEAR(stats.decode_time.sum(), stats.inter_token_latency.sum(), 1e-9);
  EXPECT_NEAR(stats.inference_time.sum(), stats.prefill_time.sum() + stats.decode_time.sum(), 1e-9);
  EXPECT_NEAR(stats.time_to_first_token.sum(), stats.queue_time.sum() + stats.prefill_time.sum(),
              1e-9);
  EXPECT_GE(stats.e2e_latency.sum(), stats.queue_time.sum() + stats.inference_time.sum());
  EXPECT_EQ(stats.prompt_length.sum(), 12 * 20);
  EXPECT_EQ(stats.output_length.sum(), 12 * 5);
  EXPECT_EQ(stats.max_tokens.sum(), 12 * 5);
  EXPECT_EQ(stats.computed_prompt_tokens.sum(), 12 * 20 - stats.num_cached_tokens);
  EXPECT_GT(stats.num_cached_tokens, 0);
  EXPECT_EQ(stats.step_tokens.count(), stats.num_steps);
  // Rows: what was not cached of the prompts, and a decode for every token but the first.
  EXPECT_EQ(stats.step_tokens.sum() - static_cast<double>(stats.num_dropped_tokens),
            12 * 20 - static_cast<double>(stats.num_cached_tokens) + 12 * 4);
  EXPECT_EQ(stats.num_corrupted, 0);
}

TEST_F(EngineTest, ReadingStatsAgainAllocatesNothingForHistograms) {
  const auto client = Start();
  Run(*client, Make({1, 2}, 3));
  SchedulerConfig config;
  config.num_blocks = 8;
  config.max_model_len = 64;
  config.vocab_size = 10;
  const Scheduler scheduler(config);
  EngineStats stats;
  scheduler.ReadStats(&stats);
  const double* bounds = stats.e2e_latency.bounds().data();
  const int64_t* counts = stats.prompt_length.counts().data();
  scheduler.ReadStats(&stats);
  EXPECT_EQ(stats.e2e_latency.bounds().data(), bounds);
  EXPECT_EQ(stats.prompt_length.counts().data(), counts);
}

TEST_F(EngineTest, AStepThatHangsShowsAsTimeWithoutProgress) {
  const auto client = Start();
  EXPECT_FALSE(client->Stats().has_work);
  Run(*client, Make({1}, 1));
  EXPECT_FALSE(StatsAtRest(*client, 1).has_work);
  std::this_thread::sleep_for(milliseconds(30));  // rest is no lack of progress
  EXPECT_EQ(client->Stats().seconds_without_progress, 0);

  hooks_.hangs = true;
  TokenStream stream;
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(client->Submit(Make({1}, 1), stream.Sink()).has_value());
  double last = 0;
  while (last < 0.1) {
    const EngineStats stats = client->Stats();
    ASSERT_TRUE(stats.has_work);
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begin;
    ASSERT_LE(stats.seconds_without_progress, passed.count());  // not since the engine's start
    ASSERT_GE(stats.seconds_without_progress, last);
    last = stats.seconds_without_progress;
    ASSERT_LT(passed, kLong);
    std::this_thread::sleep_for(milliseconds(1));
  }
  hooks_.hangs = false;
  ASSERT_TRUE(stream.Collect(kLong).has_value());
  EXPECT_FALSE(StatsAtRest(*client, 2).has_work);
}

TEST_F(EngineTest, StepsThatAreDoneAreProgress) {
  hooks_.delay_ms = 10;
  const auto client = Start();
  TokenStream stream;
  ASSERT_TRUE(client->Submit(Make({1}, 60), stream.Sink()).has_value());
  int num_drops = 0;
  double last = 0;
  while (client->Stats().has_work) {
    const double now = client->Stats().seconds_without_progress;
    if (now < last) ++num_drops;
    last = now;
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_GT(num_drops, 5);  // of about sixty steps
}

TEST_F(EngineTest, AnObserverHearsOfEveryStep) {
  hooks_.delay_ms = 1;
  Recorder recorder;
  EngineOptions options = SmallOptions();
  options.on_step = recorder.Observer();
  const auto client = Start(options);
  std::vector<TokenStream> streams(10);
  for (const TokenStream& stream : streams) {
    ASSERT_TRUE(client->Submit(Make({1, 2, 3, 7, 9}, 6), stream.Sink()).has_value());
  }
  for (TokenStream& stream : streams) ASSERT_TRUE(stream.Collect(kLong).has_value());
  const EngineStats stats = StatsAtRest(*client, 10);
  const std::vector<KeptRecord> records = recorder.RecordsOf(stats.num_steps);
  ASSERT_EQ(std::ssize(records), stats.num_steps);
  int64_t num_prefill = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    const KeptRecord& record = records[i];
    EXPECT_EQ(record.step_id, static_cast<int64_t>(i));
    EXPECT_NEAR(record.unix_time, static_cast<double>(std::time(nullptr)), 60);
    num_prefill += record.num_prefill_tokens;
    EXPECT_GT(record.num_requests, 0);
    EXPECT_LE(record.num_requests, record.num_prefill_tokens + record.num_decode_tokens);
    EXPECT_EQ(record.num_kv_blocks, 64);
    EXPECT_GE(record.device, 0.001);
    EXPECT_GT(record.schedule, 0);
    EXPECT_GT(record.parts.sampling, 0);
    EXPECT_GE(record.parts.other, 0.001);  // the model sleeps outside of its parts
    double sum = 0;
    for (const StepPart& part : kStepParts) sum += record.parts.*part.seconds;
    EXPECT_NEAR(sum, record.device, 1e-9);
    EXPECT_EQ(record.parts.wait, 0);
    EXPECT_TRUE(record.dp_rows.empty());
    EXPECT_EQ(record.num_experts, 4);
    ASSERT_EQ(record.counts.size(), 4u);
    // This model counts one assignment a row.
    EXPECT_EQ(std::accumulate(record.counts.begin(), record.counts.end(), int64_t{0}),
              record.num_prefill_tokens + record.num_decode_tokens);
  }
  EXPECT_EQ(num_prefill, stats.num_prefill_tokens);
  const std::vector<RankLoad> ranks = client->RankLoads();
  ASSERT_EQ(ranks.size(), 1u);
  EXPECT_EQ(ranks[0].num_steps, stats.num_steps);
  EXPECT_EQ(ranks[0].last_step, records.back().step_id);
  EXPECT_EQ(ranks[0].num_rows, static_cast<int64_t>(stats.step_tokens.sum()));
  EXPECT_EQ(ranks[0].num_empty_steps, 0);
  EXPECT_NEAR(ranks[0].seconds, stats.device_time.sum, 1e-6);
  EXPECT_GT(ranks[0].parts.sampling, 0);
  EXPECT_EQ(records.back().num_used_kv_blocks, 0);
  EXPECT_EQ(records.back().num_running, 0);
}

// The step that was in flight when the request was cancelled is the last one that holds its blocks.
TEST_F(EngineTest, ACancelledRequestsBlocksAreFreeAfterTheStepsInFlight) {
  for (const bool async : {true, false}) {
    EngineOptions options = SmallOptions();
    options.async_scheduling = async;
    Recorder recorder;
    std::atomic<EngineClient*> engine = nullptr;
    std::atomic<int64_t> victim = -1;
    options.on_step = [&, record = recorder.Observer()](const StepRecord& step) {
      record(step);
      if (step.step_id == 4) engine.load()->Cancel(RequestId(victim.load()));
    };
    hooks_.delay_ms = 5;
    const auto client = Start(options);
    engine = client.get();
    TokenStream stream;
    const auto id = client->Submit(Make(std::vector<TokenId>(30, 2), 30), stream.Sink());
    ASSERT_TRUE(id.has_value());
    victim = id->value();
    EXPECT_EQ(stream.Collect(kLong)->finish, FinishReason::kCancelled);
    const EngineStats stats = StatsAtRest(*client, 1);
    EXPECT_EQ(stats.num_used_kv_blocks, 0);
    const std::vector<KeptRecord> records = recorder.RecordsOf(stats.num_steps);
    EXPECT_GT(records[4].num_used_kv_blocks, 0);
    // One more step where one was in flight, and then none has blocks.
    ASSERT_EQ(records.size(), async ? 6u : 5u);
    if (async) {
      EXPECT_EQ(records.back().num_used_kv_blocks, 0);
    }
  }
}

TEST_F(EngineTest, AnIdleEngineDoesNotSpin) {
  const auto client = Start();
  Run(*client, Make({1, 2}, 3));
  (void)StatsAtRest(*client, 1);
  const std::clock_t begin = std::clock();  // processor time of all threads
  std::this_thread::sleep_for(milliseconds(500));
  EXPECT_LT(std::clock() - begin, CLOCKS_PER_SEC / 20);
}

// Of a processor, by this thread.
double ThreadSeconds() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

TEST_F(EngineTest, ThousandsMayWait) {
  constexpr int kRequests = 6000;
  EngineOptions options = SmallOptions();
  options.max_num_waiting = kRequests;
  hooks_.delay_ms = 100;  // all of them wait while one step runs
  const auto client = Start(options);
  std::atomic<int> num_ended{0};
  const double begin = ThreadSeconds();
  for (int i = 0; i < kRequests; ++i) {
    const auto id =
        client->Submit(Make({static_cast<TokenId>(i % 50)}, 1), [&](const TokenEvent& event) {
          if (event.finish == FinishReason::kLength) ++num_ended;
        });
    ASSERT_TRUE(id.has_value()) << id.error().message();
  }
  EXPECT_LT((ThreadSeconds() - begin) / kRequests, 100e-6);
  EXPECT_GT(client->Stats().num_waiting, kRequests / 2);
  hooks_.delay_ms = 0;
  EXPECT_EQ(StatsAtRest(*client, kRequests).num_finished_length, kRequests);
  EXPECT_EQ(num_ended, kRequests);
}

}  // namespace
}  // namespace moebius::engine
