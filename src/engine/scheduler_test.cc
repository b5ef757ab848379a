#include "engine/scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>

#include "engine/planning_benchmark.h"
#include "engine/testing/fake_device.h"

namespace moebius::engine {
namespace {

using testing::ExpectedOutput;
using testing::FakeDevice;

constexpr int64_t kVocabSize = 50;
constexpr TokenId kEos = 7;

// What one request got, and what it should get.
struct Record {
  RequestInput input;
  std::vector<TokenId> tokens;
  std::optional<FinishReason> finish;
  std::optional<TokenId> stop_token;
  std::optional<Error> error;
  Usage usage;
  bool was_cancelled = false;
};

// A scheduler and a fake device, driven step by step on one thread.
class Harness {
 public:
  Harness(const SchedulerConfig& config, int depth, uint32_t random_seed)
      : config_(config),
        depth_(depth),
        scheduler_(config),
        device_(config.num_blocks, config.block_size, config.vocab_size),
        random_(random_seed) {}

  RequestId Add(RequestInput input) {
    const RequestId id(next_id_++);
    Record& record = records_[id];
    record.input = input;
    scheduler_.Add(id, std::move(input), [&record](const TokenEvent& event) {
      ASSERT_FALSE(record.finish.has_value()) << "an event after the last";
      record.tokens.insert(record.tokens.end(), event.tokens.begin(), event.tokens.end());
      record.finish = event.finish;
      record.stop_token = event.stop_token;
      if (event.error != nullptr) record.error = *event.error;
      record.usage = event.usage;
      ASSERT_EQ(event.usage.num_output_tokens, static_cast<int64_t>(record.tokens.size()));
    });
    return id;
  }

  void Cancel(RequestId id) {
    records_[id].was_cancelled = true;
    scheduler_.Cancel(id, FinishReason::kCancelled);
  }

  // Plans as far ahead as allowed, then commits the oldest step. False: nothing was left to do.
  bool Step() {
    while (scheduler_.num_steps_in_flight() < depth_) {
      const StepPlan* plan = scheduler_.Plan();
      if (plan == nullptr) break;
      Check(*plan);
      if (take_back_ && random_() % 4 == 0) {
        scheduler_.TakeBack();
        scheduler_.CheckInvariants();
        plan = scheduler_.Plan();
        if (plan == nullptr) break;
        Check(*plan);
      }
      // The device runs a step at any time between its launch and its wait.
      launched_.push_back({plan, std::nullopt});
      if (random_() % 2 == 0) RunLaunched();
    }
    if (launched_.empty()) {
      EXPECT_EQ(scheduler_.num_waiting(), 0) << "requests wait and nothing runs";
      return false;
    }
    if (!launched_.front().output) RunLaunched();
    const StepOutput output = std::move(*launched_.front().output);
    launched_.pop_front();
    scheduler_.Commit(output);
    scheduler_.CheckInvariants();
    return true;
  }

  // The youngest steps are taken back, the oldest fails.
  void FailStep() {
    while (scheduler_.num_steps_in_flight() > 1) {
      scheduler_.TakeBack();
      scheduler_.CheckInvariants();
      launched_.pop_back();
    }
    scheduler_.Fail(Error(ErrorCode::kInternal, "injected"));
    launched_.clear();
    scheduler_.CheckInvariants();
  }

  void RunToEnd(int64_t max_steps) {
    for (int64_t step = 0; Step(); ++step) ASSERT_LT(step, max_steps) << "somebody starves";
    CheckEnd();
  }

  void CheckEnd() const {
    const EngineStats stats = scheduler_.Stats();
    EXPECT_EQ(stats.num_used_kv_blocks, 0) << "leaked blocks";
    EXPECT_EQ(stats.num_running, 0);
    EXPECT_EQ(scheduler_.num_requests(), 0);
    for (const auto& [id, record] : records_) {
      ASSERT_TRUE(record.finish.has_value());
      CheckRecord(record);
    }
  }

  void CheckRecord(const Record& record) const {
    const std::vector<TokenId> expected = ExpectedOutput(
        record.input, config_.vocab_size, config_.max_model_len, config_.eos_token_ids);
    if (record.was_cancelled || record.error) {  // a beginning of it
      ASSERT_LE(record.tokens.size(), expected.size());
      EXPECT_TRUE(std::equal(record.tokens.begin(), record.tokens.end(), expected.begin()));
      return;
    }
    EXPECT_EQ(record.tokens, expected);
    const bool ended = record.stop_token.has_value();
    EXPECT_EQ(*record.finish, ended ? FinishReason::kStop : FinishReason::kLength);
    if (ended) {
      EXPECT_EQ(*record.stop_token, expected.back());
    }
  }

  Scheduler& scheduler() { return scheduler_; }
  std::map<RequestId, Record>& records() { return records_; }
  void set_take_back(bool take_back) { take_back_ = take_back; }
  const StepPlan* last_plan() const { return launched_.empty() ? nullptr : launched_.back().plan; }

 private:
  struct Launched {
    const StepPlan* plan;
    std::optional<StepOutput> output;
  };

  void RunLaunched() {
    for (Launched& step : launched_) {
      if (!step.output) step.output = device_.Run(*step.plan);
    }
  }

  void Check(const StepPlan& plan) {
    scheduler_.CheckInvariants();
    EXPECT_GT(plan.num_rows(), 0);
    EXPECT_LE(plan.num_rows(), config_.max_num_batched_tokens);
    EXPECT_LE(plan.num_seqs(), config_.max_num_seqs);
  }

  SchedulerConfig config_;
  int depth_;
  Scheduler scheduler_;
  FakeDevice device_;
  std::mt19937 random_;
  bool take_back_ = false;
  int64_t next_id_ = 0;
  std::map<RequestId, Record> records_;
  std::deque<Launched> launched_;
};

SchedulerConfig SmallConfig() {
  SchedulerConfig config;
  config.vocab_size = kVocabSize;
  config.num_blocks = 64;
  config.block_size = 4;
  config.max_model_len = 64;
  config.max_num_seqs = 8;
  config.max_num_batched_tokens = 32;
  config.eos_token_ids = {kEos};
  return config;
}

RequestInput MakeRequest(std::vector<TokenId> prompt, int32_t max_tokens, uint64_t seed = 1) {
  RequestInput input;
  input.prompt = std::move(prompt);
  input.sampling.max_tokens = max_tokens;
  input.sampling.seed = seed;
  return input;
}

std::vector<TokenId> Repeat(size_t count) {
  std::vector<TokenId> tokens(count);
  for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<TokenId>(i * 3 % 11);
  return tokens;
}

TEST(Scheduler, DecodesComeFirstAndPromptsRunInChunksOfTheBudget) {
  SchedulerConfig config = SmallConfig();
  config.max_num_batched_tokens = 8;
  Harness harness(config, 1, 0);
  RequestInput input = MakeRequest({1, 2}, 20);
  input.sampling.ignore_eos = true;
  harness.Add(input);
  ASSERT_TRUE(harness.Step());
  harness.Add(MakeRequest(Repeat(20), 1));
  const StepPlan* plan = harness.scheduler().Plan();
  ASSERT_NE(plan, nullptr);
  EXPECT_EQ(plan->query_start, (std::vector<int32_t>{0, 1, 8}));
  EXPECT_EQ(plan->context_len, (std::vector<int32_t>{3, 7}));
  EXPECT_EQ(plan->logit_rows, (std::vector<int32_t>{0}));  // the chunk draws nothing yet
  harness.scheduler().TakeBack();
  harness.RunToEnd(100);
}

TEST(Scheduler, TheNextStepIsPlannedBeforeTheTokenIsKnown) {
  Harness harness(SmallConfig(), 2, 0);
  harness.Add(MakeRequest({1, 2, 3}, 8));
  Scheduler& scheduler = harness.scheduler();
  FakeDevice device(64, 4, kVocabSize);
  const StepPlan* first = scheduler.Plan();
  const StepPlan* second = scheduler.Plan();
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->tokens, (std::vector<TokenId>{PreviousRow(0)}));
  EXPECT_EQ(second->previous_step, first->step_id);
  EXPECT_EQ(second->positions, (std::vector<Position>{3}));
  scheduler.Commit(device.Run(*first));
  scheduler.Commit(device.Run(*second));
  EXPECT_EQ(harness.records()[RequestId(0)].tokens.size(), 2u);
}

TEST(Scheduler, AStopSeenOneStepLateDropsTheRowAndKeepsItsBlocksUntilThen) {
  Harness harness(SmallConfig(), 2, 0);
  RequestInput input = MakeRequest({1, 2, 3}, 30);
  const TokenId first_token = ExpectedOutput(input, kVocabSize, 64, {kEos})[0];
  input.sampling.stop_token_ids = {first_token};
  harness.Add(input);
  ASSERT_TRUE(harness.Step());
  EXPECT_EQ(harness.records()[RequestId(0)].finish, FinishReason::kStop);
  EXPECT_EQ(harness.records()[RequestId(0)].stop_token, first_token);
  EXPECT_EQ(harness.scheduler().Stats().num_used_kv_blocks, 1);
  EXPECT_EQ(harness.scheduler().num_requests(), 1);
  ASSERT_TRUE(harness.Step());
  EXPECT_EQ(harness.scheduler().Stats().num_used_kv_blocks, 0);
  EXPECT_EQ(harness.scheduler().Stats().num_dropped_tokens, 1);
  EXPECT_EQ(harness.scheduler().Stats().num_output_tokens, 1);
  harness.RunToEnd(1);
}

TEST(Scheduler, NoRowIsPlannedBeyondMaxTokens) {
  Harness harness(SmallConfig(), 2, 0);
  RequestInput input = MakeRequest({1, 2, 3}, 3);
  input.sampling.ignore_eos = true;
  harness.Add(input);
  harness.RunToEnd(10);
  EXPECT_EQ(harness.scheduler().Stats().num_steps, 3);
  EXPECT_EQ(harness.scheduler().Stats().num_dropped_tokens, 0);
  EXPECT_EQ(harness.records()[RequestId(0)].finish, FinishReason::kLength);
}

TEST(Scheduler, ACachedPrefixIsNotComputedAgain) {
  Harness harness(SmallConfig(), 1, 0);
  harness.Add(MakeRequest(Repeat(21), 2));
  harness.RunToEnd(100);
  const RequestId again = harness.Add(MakeRequest(Repeat(21), 2));
  ASSERT_TRUE(harness.Step());
  EXPECT_EQ(harness.records()[again].usage.num_cached_tokens, 20);
  RequestInput other = MakeRequest(Repeat(21), 2);
  other.cache_salt = "somebody else";
  const RequestId salted = harness.Add(other);
  harness.RunToEnd(100);
  EXPECT_EQ(harness.records()[salted].usage.num_cached_tokens, 0);
  // A prompt that is cached to its end still computes its last token.
  const RequestId whole = harness.Add(MakeRequest(Repeat(20), 2));
  harness.RunToEnd(100);
  EXPECT_EQ(harness.records()[whole].usage.num_cached_tokens, 16);
}

TEST(Scheduler, TheLatestRequestGivesWayAndReturns) {
  SchedulerConfig config = SmallConfig();
  config.num_blocks = 16;  // 64 tokens, as many as one request may have
  for (const int depth : {1, 2}) {
    Harness harness(config, depth, 0);
    std::vector<RequestId> ids;
    for (uint64_t i = 0; i < 3; ++i) {
      RequestInput input = MakeRequest(Repeat(12), 50, i);
      input.sampling.ignore_eos = true;
      ids.push_back(harness.Add(input));
    }
    harness.RunToEnd(1000);
    EXPECT_GT(harness.scheduler().Stats().num_preemptions, 0);
  }
}

TEST(Scheduler, PriorityGoesFirstButIsWorthOnlySoManyArrivals) {
  SchedulerConfig config = SmallConfig();
  config.max_num_seqs = 1;
  Harness harness(config, 1, 0);
  const RequestId plain = harness.Add(MakeRequest({1}, 1));
  RequestInput urgent = MakeRequest({2}, 1);
  urgent.priority = -1;
  const RequestId second = harness.Add(urgent);
  ASSERT_TRUE(harness.Step());
  EXPECT_TRUE(harness.records()[second].finish);
  EXPECT_FALSE(harness.records()[plain].finish);
  // A flood of urgent ones does not hold the plain one back for ever.
  int64_t num_steps = 0;
  for (; !harness.records()[plain].finish; ++num_steps) {
    ASSERT_LT(num_steps, kPriorityArrivals + 10);
    harness.Add(urgent);
    ASSERT_TRUE(harness.Step());
  }
  EXPECT_GT(num_steps, kPriorityArrivals / 2);
  harness.RunToEnd(10);
}

TEST(Scheduler, CancelAtAnyPointFreesEverything) {
  for (const int depth : {1, 2}) {
    for (int num_steps = 0; num_steps < 6; ++num_steps) {
      SchedulerConfig config = SmallConfig();
      config.max_num_batched_tokens = 8;
      Harness harness(config, depth, 0);
      RequestInput input = MakeRequest(Repeat(20), 20);
      input.sampling.ignore_eos = true;
      const RequestId id = harness.Add(input);
      const RequestId other = harness.Add(input);
      for (int i = 0; i < num_steps; ++i) harness.Step();
      harness.Cancel(id);
      harness.Cancel(id);
      harness.scheduler().Cancel(RequestId(99), FinishReason::kCancelled);
      EXPECT_EQ(harness.records()[id].finish, FinishReason::kCancelled);
      harness.RunToEnd(100);
      EXPECT_EQ(harness.records()[other].finish, FinishReason::kLength);
    }
  }
}

TEST(Scheduler, AFailedStepFailsItsRequestsAndNobodyElse) {
  SchedulerConfig config = SmallConfig();
  config.max_num_seqs = 2;
  for (const int depth : {1, 2}) {
    Harness harness(config, depth, 0);
    std::vector<RequestId> ids;
    for (uint64_t i = 0; i < 4; ++i) {
      RequestInput input = MakeRequest({1, 2, 3}, 6, i);
      input.sampling.ignore_eos = true;
      ids.push_back(harness.Add(input));
    }
    harness.Step();
    if (depth == 1) {
      ASSERT_NE(harness.scheduler().Plan(), nullptr);
    }
    harness.FailStep();
    EXPECT_EQ(harness.records()[ids[0]].finish, FinishReason::kError);
    EXPECT_EQ(harness.records()[ids[1]].error->message(), "injected");
    EXPECT_FALSE(harness.records()[ids[2]].finish);
    harness.RunToEnd(100);
    EXPECT_EQ(harness.records()[ids[2]].finish, FinishReason::kLength);
    EXPECT_EQ(harness.records()[ids[3]].finish, FinishReason::kLength);
    EXPECT_EQ(harness.scheduler().Stats().num_failed, 2);
  }
}

TEST(Scheduler, EndAllEndsEverybodyOnce) {
  Harness harness(SmallConfig(), 2, 0);
  for (uint64_t i = 0; i < 12; ++i) harness.Cancel(harness.Add(MakeRequest(Repeat(9), 9, i)));
  std::vector<RequestId> ids;
  for (uint64_t i = 0; i < 12; ++i) ids.push_back(harness.Add(MakeRequest(Repeat(9), 9, i)));
  harness.Step();
  harness.scheduler().EndAll(FinishReason::kCancelled, nullptr);
  for (const RequestId id : ids) {
    EXPECT_TRUE(harness.records()[id].finish);
    harness.records()[id].was_cancelled = true;
  }
  harness.RunToEnd(3);
}

class EvenTokens : public TokenConstraint {
 public:
  void FillMask(std::span<uint32_t> mask) override {
    std::ranges::fill(mask, 0x55555555u);
    ++num_masks;
  }
  void Accept(TokenId token) override { accepted.push_back(token); }
  std::vector<TokenId> accepted;
  int num_masks = 0;
};

TEST(Scheduler, AConstraintSeesEveryTokenBeforeItsNextMask) {
  Harness harness(SmallConfig(), 2, 0);
  RequestInput input = MakeRequest({1, 2, 3}, 5);
  input.sampling.ignore_eos = true;
  const auto constraint = std::make_shared<EvenTokens>();
  input.constraint = constraint;
  harness.Add(input);
  for (int i = 0; i < 5; ++i) {
    const StepPlan* plan = harness.scheduler().Plan();
    ASSERT_NE(plan, nullptr);
    EXPECT_EQ(plan->samples[0].mask.count, 2);
    EXPECT_EQ(plan->masks[0], 0x55555555u);
    EXPECT_EQ(harness.scheduler().Plan(), nullptr);  // the next mask needs this token
    EXPECT_EQ(constraint->num_masks, i + 1);
    StepOutput output;
    output.step_id = plan->step_id;
    output.sampled = {{2 * i, 0, 0, 0}};
    harness.scheduler().Commit(output);
  }
  EXPECT_EQ(constraint->accepted, (std::vector<TokenId>{0, 2, 4, 6, 8}));
  EXPECT_EQ(harness.scheduler().num_requests(), 0);
}

TEST(Scheduler, PenaltiesCarryWhatIsKnown) {
  Harness harness(SmallConfig(), 2, 0);
  RequestInput input = MakeRequest({4, 5, 4}, 5);
  input.sampling.ignore_eos = true;
  input.sampling.repetition_penalty = 1.5f;
  input.sampling.frequency_penalty = 0.5f;
  harness.Add(input);
  const StepPlan* first = harness.scheduler().Plan();
  const auto seen = [](const StepPlan& plan) {
    const std::span<const TokenId> tokens = plan.samples[0].row.seen_tokens;
    return std::vector<TokenId>(tokens.begin(), tokens.end());
  };
  EXPECT_EQ(seen(*first), (std::vector<TokenId>{4, 5}));
  const StepPlan* second = harness.scheduler().Plan();
  EXPECT_EQ(seen(*second), (std::vector<TokenId>{4, 5}));  // and the runner adds its input row
  StepOutput output;
  output.step_id = first->step_id;
  output.sampled = {{9, 0, 0, 0}};
  harness.scheduler().Commit(output);
  const StepPlan* third = harness.scheduler().Plan();
  EXPECT_EQ(seen(*third), (std::vector<TokenId>{4, 5, 9}));
  EXPECT_EQ(third->samples[0].output.count, 1);
  EXPECT_EQ(third->counts, (std::vector<int32_t>{1}));
}

TEST(Scheduler, ARowWithoutAToken) {
  Harness harness(SmallConfig(), 1, 0);
  const RequestId id = harness.Add(MakeRequest({1}, 5));
  const StepPlan* plan = harness.scheduler().Plan();
  StepOutput output;
  output.step_id = plan->step_id;
  output.sampled = {{-1, 0, 0, 0}};
  harness.scheduler().Commit(output);
  EXPECT_EQ(harness.records()[id].finish, FinishReason::kError);
  EXPECT_NE(harness.records()[id].error->message().find("position 1"), std::string::npos);
  harness.RunToEnd(1);
}

// Random lives: arrivals, lengths, shared prefixes, cancellations, failures, plans taken back, few
// blocks. Outputs must equal those of a request alone, whatever happened around it.
struct Weather {
  uint32_t seed;
  int depth;
  bool prefix_caching;
  int64_t num_blocks;
  int64_t budget;
};

class SchedulerProperty : public ::testing::TestWithParam<Weather> {};

RequestInput RandomRequest(std::mt19937& random, int64_t max_model_len) {
  // Few distinct beginnings, so that prefixes are shared and diverge inside and between blocks.
  const size_t num_tokens = 1 + random() % (random() % 5 == 0 ? 56 : 20);
  std::vector<TokenId> prompt(num_tokens);
  const uint32_t family = random() % 3;
  for (size_t i = 0; i < num_tokens; ++i) {
    prompt[i] = static_cast<TokenId>((family * 7 + i * 5) % 19);
  }
  if (random() % 2 == 0) prompt[random() % num_tokens] = static_cast<TokenId>(random() % 50);
  RequestInput input =
      MakeRequest(std::move(prompt), static_cast<int32_t>(1 + random() % 40), random() % 4);
  if (random() % 3 == 0) input.sampling.max_tokens.reset();
  input.sampling.ignore_eos = random() % 3 == 0;
  if (random() % 4 == 0) input.sampling.stop_token_ids = {3, 11};
  if (random() % 4 == 0) {
    input.sampling.min_tokens = static_cast<int32_t>(
        random() % static_cast<uint32_t>(input.sampling.max_tokens.value_or(6)));
  }
  if (random() % 6 == 0) input.cache_salt = "salt";
  if (random() % 8 == 0) input.priority = static_cast<int32_t>(random() % 3) - 1;
  EXPECT_LT(static_cast<int64_t>(input.prompt.size()), max_model_len);
  return input;
}

TEST_P(SchedulerProperty, OutputsAreThoseOfARequestAlone) {
  const Weather weather = GetParam();
  SchedulerConfig config = SmallConfig();
  config.num_blocks = weather.num_blocks;
  config.max_num_batched_tokens = weather.budget;
  config.enable_prefix_caching = weather.prefix_caching;
  Harness harness(config, weather.depth, weather.seed);
  harness.set_take_back(weather.seed % 2 == 1);
  std::mt19937 random(weather.seed);
  std::vector<RequestId> ids;
  int64_t num_failures = 0;
  for (int step = 0; step < 3000; ++step) {
    // Bursts, then lulls, so that both a full queue and an idle engine occur.
    const bool is_burst = step / 200 % 2 == 0;
    if (random() % (is_burst ? 3 : 40) == 0) {
      ids.push_back(harness.Add(RandomRequest(random, config.max_model_len)));
    }
    if (!ids.empty() && random() % 25 == 0) {
      const RequestId id = ids[random() % ids.size()];
      if (!harness.records()[id].finish) harness.Cancel(id);
    }
    if (harness.scheduler().num_steps_in_flight() > 0 && random() % 300 == 0) {
      harness.FailStep();
      ++num_failures;
    }
    harness.Step();
    if (HasFailure()) return;
  }
  const int64_t num_left = harness.scheduler().num_requests();
  harness.RunToEnd((num_left + 1) * config.max_model_len * 3);
  const EngineStats stats = harness.scheduler().Stats();
  int64_t num_whole = 0;
  for (const auto& [id, record] : harness.records()) {
    num_whole += !record.was_cancelled && !record.error ? 1 : 0;
  }
  EXPECT_GT(num_whole, 100);
  if (weather.num_blocks < 40) {
    EXPECT_GT(stats.num_preemptions, 0);
  }
  if (weather.prefix_caching) {
    EXPECT_GT(stats.num_cached_tokens, 0);
  } else {
    EXPECT_EQ(stats.num_cached_tokens, 0);
  }
  if (weather.depth == 2) {
    EXPECT_GT(stats.num_dropped_tokens, 0);
    EXPECT_GT(num_failures, 0);
  }
}

std::vector<Weather> AllWeathers() {
  std::vector<Weather> all;
  uint32_t seed = 1;
  for (const int depth : {1, 2}) {
    for (const bool caching : {true, false}) {
      for (const int64_t num_blocks : {16, 24, 128}) {
        for (const int64_t budget : {8, 64})
          all.push_back({seed++, depth, caching, num_blocks, budget});
      }
    }
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(All, SchedulerProperty, ::testing::ValuesIn(AllWeathers()),
                         [](const auto& info) {
                           const Weather& w = info.param;
                           return fmt::format("depth{}_{}_blocks{}_budget{}", w.depth,
                                              w.prefix_caching ? "cached" : "uncached",
                                              w.num_blocks, w.budget);
                         });

// The target is 100 us (measured by `bench`); a sanitizer on a busy machine gets ten times that
// thrice over. What this catches is work that grows with the context or squares with the requests.
TEST(Scheduler, PlanningIsCheap) {
  PlanningLoad load;
  load.num_steps = 100;
  EXPECT_LT(MeasurePlanning(load).median, 3000);
}

}  // namespace
}  // namespace moebius::engine
