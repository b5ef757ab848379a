#include "rank/engine_messages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "kernels/backend.h"

namespace moebius::rank {
namespace {

template <typename T>
T Back(const Result<ToRank>& message) {
  EXPECT_TRUE(message) << message.error().message();
  return std::get<T>(*message);
}
template <typename T>
T Back(const Result<FromRank>& message) {
  EXPECT_TRUE(message) << message.error().message();
  return std::get<T>(*message);
}

TEST(EngineMessages, Start) {
  StartMessage message;
  message.rank = 3;
  message.layout_hash = 0xfedcba9876543210;
  message.observes_steps = true;
  message.log_level = LogLevel::kError;
  RankOptions& options = message.options;
  options.load.folder = "/models/a b";
  options.load.dtype = model::DTypeChoice::kFloat32;
  options.load.kv_cache_dtype = model::KvCacheDType::kFp8;
  options.load.load_format = model::LoadFormat::kDummy;
  options.load.routing = moe::RoutingSpec{.zipf_exponent = 1.25, .hot_factor = 2};
  options.load.hf_overrides = R"({"a": 1})";
  options.load.moe_mode = model::MoeMode::kDense;
  options.load.mtp = false;
  options.load.backend = &kernels::RefBackend();
  options.engine.num_kv_blocks = 77;
  options.engine.memory_fraction = 0.5;
  options.engine.enable_prefix_caching = false;
  options.engine.seed = 0;
  options.engine.eos_token_ids = {1, 2};
  options.engine.step_timeout = std::chrono::milliseconds(1234);
  options.engine.prefill_interval = 8;
  options.engine.expert_statistics = false;
  options.engine.trace = {77, 5};
  options.parallel.tensor_parallel_size = 2;
  options.parallel.data_parallel_size = 4;
  options.parallel.enable_expert_parallel = true;
  options.deterministic = true;
  options.max_num_tokens = 9216;
  options.threads_per_rank = 5;
  options.exchange_mode = moe::ExchangeMode::kLatency;
  options.online = {.layer_updates_per_iter = 2,
                    .step_interval = 33,
                    .min_tokens_per_expert = 77,
                    .min_gain = 0.25,
                    .flops_per_byte = 3.5,
                    .num_staging = 7,
                    .bytes_per_second = 1 << 20,
                    .host_pool = true,
                    .is_random = true,
                    .seed = 9};
  options.slots = {.num_slots = 5, .layers = {{0, 1, 2, 0, 1}, {2, 1, 0, 2, -1}}};
  options.step_timeout = std::chrono::milliseconds(4321);

  const auto back = Back<StartMessage>(DecodeToRank(Encode(message)));
  EXPECT_EQ(back.rank, 3);
  EXPECT_EQ(back.layout_hash, message.layout_hash);
  EXPECT_TRUE(back.observes_steps);
  EXPECT_EQ(back.log_level, LogLevel::kError);
  EXPECT_EQ(back.options.load.folder, options.load.folder);
  EXPECT_EQ(back.options.load.dtype, options.load.dtype);
  EXPECT_EQ(back.options.load.kv_cache_dtype, options.load.kv_cache_dtype);
  EXPECT_EQ(back.options.load.load_format, options.load.load_format);
  ASSERT_TRUE(back.options.load.routing);
  EXPECT_EQ(*back.options.load.routing, *options.load.routing);
  EXPECT_EQ(back.options.load.hf_overrides, options.load.hf_overrides);
  EXPECT_EQ(back.options.load.moe_mode, options.load.moe_mode);
  EXPECT_FALSE(back.options.load.mtp);
  EXPECT_EQ(back.options.load.backend, options.load.backend);
  EXPECT_EQ(back.options.engine.num_kv_blocks, 77);
  EXPECT_FALSE(back.options.engine.kv_cache_bytes);
  EXPECT_EQ(back.options.engine.memory_fraction, 0.5);
  EXPECT_FALSE(back.options.engine.enable_prefix_caching);
  EXPECT_EQ(back.options.engine.seed, 0u);
  EXPECT_EQ(back.options.engine.eos_token_ids, options.engine.eos_token_ids);
  EXPECT_EQ(back.options.engine.step_timeout, options.engine.step_timeout);
  EXPECT_EQ(back.options.engine.prefill_interval, 8);
  EXPECT_FALSE(back.options.engine.expert_statistics);
  EXPECT_EQ(back.options.engine.trace.descriptor, 5);  // where every rank finds it
  EXPECT_EQ(back.options.parallel, options.parallel);
  EXPECT_TRUE(back.options.deterministic);
  EXPECT_EQ(back.options.max_num_tokens, 9216);
  EXPECT_EQ(back.options.threads_per_rank, 5);
  EXPECT_EQ(back.options.exchange_mode, moe::ExchangeMode::kLatency);
  EXPECT_EQ(back.options.slots.num_slots, 5);
  EXPECT_EQ(back.options.online.layer_updates_per_iter, 2);
  EXPECT_EQ(back.options.online.step_interval, 33);
  EXPECT_EQ(back.options.online.min_tokens_per_expert, 77);
  EXPECT_EQ(back.options.online.min_gain, 0.25);
  EXPECT_EQ(back.options.online.flops_per_byte, 3.5);
  EXPECT_EQ(back.options.online.num_staging, 7);
  EXPECT_EQ(back.options.online.bytes_per_second, 1 << 20);
  EXPECT_TRUE(back.options.online.host_pool);
  EXPECT_TRUE(back.options.online.is_random);
  EXPECT_EQ(back.options.online.seed, 9u);
  EXPECT_EQ(back.options.slots.layers, options.slots.layers);
  EXPECT_EQ(back.options.step_timeout, options.step_timeout);

  message.rank = 8;  // of eight
  EXPECT_FALSE(DecodeToRank(Encode(message)));
}

TEST(EngineMessages, Submit) {
  SubmitMessage message;
  message.request = 12;
  message.input.prompt = {5, 0, 1 << 20};
  message.input.cache_salt = std::string("a\0\xff", 3);
  message.input.priority = -7;
  engine::SamplingParams& sampling = message.input.sampling;
  sampling.temperature = 0.25F;
  sampling.top_k = -1;
  sampling.seed = 0;
  sampling.min_tokens = 2;
  sampling.stop_token_ids = {9};
  sampling.num_logprobs = 0;
  sampling.logit_bias = {{3, -1.5F}, {3, 2.0F}};
  sampling.allowed_token_ids = {1, 2, 3};
  sampling.bad_words = {{1, 2}, {}, {3}};
  const auto back = Back<SubmitMessage>(DecodeToRank(Encode(message)));
  EXPECT_EQ(back.request, 12);
  EXPECT_EQ(back.input.prompt, message.input.prompt);
  EXPECT_EQ(back.input.cache_salt, message.input.cache_salt);
  EXPECT_EQ(back.input.priority, -7);
  EXPECT_EQ(back.input.arrival, message.input.arrival);
  EXPECT_EQ(back.input.sampling.temperature, 0.25F);
  EXPECT_EQ(back.input.sampling.top_k, -1);
  EXPECT_EQ(back.input.sampling.seed, 0u);
  EXPECT_FALSE(back.input.sampling.max_tokens);
  EXPECT_EQ(back.input.sampling.min_tokens, 2);
  EXPECT_EQ(back.input.sampling.stop_token_ids, sampling.stop_token_ids);
  EXPECT_EQ(back.input.sampling.num_logprobs, 0);
  EXPECT_EQ(back.input.sampling.num_prompt_logprobs, -1);
  EXPECT_EQ(back.input.sampling.logit_bias, sampling.logit_bias);
  EXPECT_EQ(back.input.sampling.allowed_token_ids, sampling.allowed_token_ids);
  EXPECT_EQ(back.input.sampling.bad_words, sampling.bad_words);
}

TEST(EngineMessages, Event) {
  const std::vector<TokenId> tokens = {4, 5};
  const std::vector<TokenId> tops = {4, 1, 5};
  const std::vector<float> top_logprobs = {-0.5F, -2.0F, -0.25F};
  const std::vector<engine::TokenLogprobs> logprobs = {
      {4, -0.5F, 1, std::span(tops).first(2), std::span(top_logprobs).first(2)},
      {5, -0.25F, 7, std::span(tops).last(1), std::span(top_logprobs).last(1)}};
  const Error error(ErrorCode::kDeadline, "rank 3 is late");
  engine::TokenEvent event;
  event.tokens = tokens;
  event.logprobs = logprobs;
  event.finish = engine::FinishReason::kStop;
  event.stop_token = 0;
  event.error = &error;
  event.usage = {10, 8, 2};
  const auto back = Back<EventMessage>(DecodeFromRank(EncodeEvent(99, event)[0]));
  EXPECT_EQ(back.request, 99);
  EXPECT_EQ(back.event.tokens, tokens);
  const std::vector<engine::LogprobEntry> expected = {{4, -0.5F, 1, {4, 1}, {-0.5F, -2.0F}},
                                                      {5, -0.25F, 7, {5}, {-0.25F}}};
  EXPECT_EQ(back.event.logprobs, expected);
  EXPECT_TRUE(back.event.prompt_logprobs.empty());
  EXPECT_EQ(back.event.finish, engine::FinishReason::kStop);
  EXPECT_EQ(back.event.stop_token, 0);
  ASSERT_TRUE(back.event.error);
  EXPECT_EQ(back.event.error->code(), ErrorCode::kDeadline);
  EXPECT_EQ(back.event.error->message(), "rank 3 is late");
  EXPECT_EQ(back.event.usage.num_prompt_tokens, 10);
  EXPECT_EQ(back.event.usage.num_cached_tokens, 8);
  EXPECT_EQ(back.event.usage.num_output_tokens, 2);
}

TEST(EngineMessages, StatsAndSteps) {
  StatsMessage message;
  engine::SetBounds(100, &message.stats);
  message.stats.num_kv_blocks = 5;
  message.stats.num_corrupted = -1;
  message.stats.queue_time.Observe(0.3);
  message.stats.queue_time.Observe(1e9, 2);
  message.stats.wait_time.Add(0.01);
  message.stats.has_work = true;
  message.experts = moe::ExpertStats(2, 3);
  message.experts.counts()[4] = 17;
  message.fault = Error(ErrorCode::kUnavailable, "no more");
  const auto back = Back<StatsMessage>(DecodeFromRank(Encode(message)));
  EXPECT_EQ(back.stats.num_kv_blocks, 5);
  EXPECT_EQ(back.stats.num_corrupted, -1);
  EXPECT_EQ(back.stats.queue_time.count(), 3);
  EXPECT_EQ(back.stats.queue_time.sum(), message.stats.queue_time.sum());
  EXPECT_EQ(back.stats.queue_time.counts().back(), 2);
  EXPECT_TRUE(
      std::ranges::equal(back.stats.queue_time.bounds(), message.stats.queue_time.bounds()));
  EXPECT_EQ(back.stats.wait_time.count, 1);
  EXPECT_EQ(back.stats.wait_time.max, 0.01);
  EXPECT_TRUE(back.stats.has_work);
  EXPECT_EQ(back.experts.Layer(1)[1], 17);
  ASSERT_TRUE(back.fault);
  EXPECT_EQ(back.fault->message(), "no more");

  const std::vector<int32_t> counts = {1, 2};
  engine::StepRecord record;
  record.step_id = 8;
  record.dp_rank = 3;
  record.exchange_mode = 2;
  record.combine_bytes = 1 << 20;
  record.device = 0.75;
  record.parts.sampling = 0.5;
  record.parts.wait = 0.25;
  const std::vector<int64_t> rows = {5, 0, 7, 1};
  record.dp_rows = rows;
  record.num_experts = 2;
  record.num_expert_ranks = 4;
  record.experts_per_token = 3;
  record.epoch = 9;
  record.expert_counts = counts;
  const auto step = Back<StepReport>(DecodeFromRank(EncodeStep(record)));
  EXPECT_EQ(step.record.step_id, 8);
  EXPECT_EQ(step.record.dp_rank, 3);
  EXPECT_EQ(step.record.exchange_mode, 2);
  EXPECT_EQ(step.record.num_expert_ranks, 4);
  EXPECT_EQ(step.record.experts_per_token, 3);
  EXPECT_EQ(step.record.epoch, 9);
  EXPECT_EQ(step.record.combine_bytes, 1 << 20);
  EXPECT_EQ(step.record.device, 0.75);
  EXPECT_EQ(step.record.parts.sampling, 0.5);
  EXPECT_EQ(step.record.parts.wait, 0.25);
  EXPECT_EQ(step.dp_rows, rows);
  EXPECT_EQ(step.record.num_experts, 2);
  EXPECT_EQ(step.expert_counts, counts);
}

// Whatever bytes come: an error, or a message.
TEST(EngineMessages, DamageIsNoCrash) {
  StatsMessage stats;
  engine::SetBounds(100, &stats.stats);
  stats.experts = moe::ExpertStats(2, 3);
  StartMessage start;
  start.options.load.backend = &kernels::RefBackend();
  for (std::string frame : {Encode(stats), Encode(start)}) {
    for (size_t size = 0; size < frame.size(); ++size) {
      (void)DecodeFromRank(std::string_view(frame).substr(0, size));
      (void)DecodeToRank(std::string_view(frame).substr(0, size));
    }
    for (char& byte : frame) {
      const char before = byte;
      byte = static_cast<char>(byte ^ 0x55);
      (void)DecodeFromRank(frame);
      (void)DecodeToRank(frame);
      byte = before;
    }
  }
  EXPECT_FALSE(DecodeFromRank(""));
  EXPECT_FALSE(DecodeToRank(""));
}

}  // namespace
}  // namespace moebius::rank
