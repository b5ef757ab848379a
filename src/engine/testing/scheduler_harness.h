// For tests: a scheduler and a fake device, driven step by step on one thread, with the device's
// work done as early or as late as it may be, and every invariant checked at every step.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <optional>
#include <random>

#include "engine/scheduler.h"
#include "engine/testing/fake_device.h"
#include "engine/token_stream.h"

namespace moebius::engine::testing {

constexpr int64_t kVocabSize = 50;
constexpr TokenId kEos = 7;

// What one request got, and what it should get.
struct Record {
  RequestInput input;
  std::vector<TokenId> tokens;
  std::vector<LogprobEntry> prompt_logprobs;
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
      if (!event.prompt_logprobs.empty()) {
        ASSERT_TRUE(record.tokens.empty() && !event.tokens.empty()) << "not with the first token";
      }
      for (const TokenLogprobs& entry : event.prompt_logprobs) {
        record.prompt_logprobs.push_back({entry.token,
                                          entry.logprob,
                                          entry.rank,
                                          {entry.top_tokens.begin(), entry.top_tokens.end()},
                                          {}});
      }
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
      const StepPlan* plan = Plan();
      if (plan == nullptr) break;
      Check(*plan);
      if (take_back_ && random_() % 4 == 0) {
        scheduler_.TakeBack();
        scheduler_.CheckInvariants();
        plan = Plan();
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
    const FakeAnswer answer = ExpectedAnswer(record.input, config_.vocab_size,
                                             config_.max_model_len, config_.eos_token_ids);
    const std::vector<TokenId>& expected = answer.tokens;
    if (!record.tokens.empty()) CheckPromptLogprobs(record, answer);
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

  void CheckPromptLogprobs(const Record& record, const FakeAnswer& answer) const {
    ASSERT_EQ(record.prompt_logprobs.size(), answer.prompt_scores.size());
    for (size_t i = 0; i < answer.prompt_scores.size(); ++i) {
      EXPECT_EQ(record.prompt_logprobs[i].token, record.input.prompt[i + 1]);
      EXPECT_EQ(record.prompt_logprobs[i].logprob, answer.prompt_scores[i]) << i;
      EXPECT_EQ(record.prompt_logprobs[i].top_tokens, answer.prompt_top[i]);
    }
  }

  Scheduler& scheduler() { return scheduler_; }
  std::map<RequestId, Record>& records() { return records_; }
  void set_take_back(bool take_back) { take_back_ = take_back; }
  // Only one plan of so many may compute prompts.
  void set_prefill_interval(int64_t interval) { prefill_interval_ = interval; }
  const StepPlan* last_plan() const { return launched_.empty() ? nullptr : launched_.back().plan; }

 private:
  struct Launched {
    const StepPlan* plan;
    std::optional<StepOutput> output;
  };

  const StepPlan* Plan() { return scheduler_.Plan(num_plans_++ % prefill_interval_ == 0); }

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
    if (config_.num_micro_batches == 1) return;
    for (const TokenId token : plan.tokens) EXPECT_FALSE(IsPreviousRow(token));
  }

  SchedulerConfig config_;
  int depth_;
  Scheduler scheduler_;
  FakeDevice device_;
  std::mt19937 random_;
  bool take_back_ = false;
  int64_t prefill_interval_ = 1;
  int64_t num_plans_ = 0;
  int64_t next_id_ = 0;
  std::map<RequestId, Record> records_;
  std::deque<Launched> launched_;
};

inline SchedulerConfig SmallConfig() {
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

inline RequestInput MakeRequest(std::vector<TokenId> prompt, int32_t max_tokens,
                                uint64_t seed = 1) {
  RequestInput input;
  input.prompt = std::move(prompt);
  input.sampling.max_tokens = max_tokens;
  input.sampling.seed = seed;
  return input;
}

}  // namespace moebius::engine::testing
