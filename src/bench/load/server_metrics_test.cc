#include "bench/load/server_metrics.h"

#include <gtest/gtest.h>

namespace moebius::load {
namespace {

constexpr const char* kBefore = R"(# HELP vllm:prompt_tokens_total x
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="a b} c",engine="0"} 100
vllm:prompt_tokens_total{model_name="m",engine="1"} 20.0
vllm:request_queue_time_seconds_sum 1
vllm:request_queue_time_seconds_count 2
)";
constexpr const char* kAfter = R"(vllm:prompt_tokens_total{model_name="a b} c",engine="0"} 200
vllm:prompt_tokens_total{model_name="m",engine="1"} 120
vllm:request_queue_time_seconds_sum 4
vllm:request_queue_time_seconds_count 8
vllm:request_prefill_time_seconds_sum 3
vllm:request_prefill_time_seconds_count 6
vllm:prefix_cache_queries_total 200
vllm:prefix_cache_hits_total 50
vllm:spec_decode_num_drafts_total 10
vllm:spec_decode_num_draft_tokens_total 20
vllm:spec_decode_num_accepted_tokens_total 15
vllm:spec_decode_num_accepted_tokens_per_pos_total{position="0"} 9
vllm:spec_decode_num_accepted_tokens_per_pos_total{position="1"} 6
)";

TEST(ServerMetrics, LabelsAreSummed) {
  const MetricSums sums = ParseMetrics(kBefore);
  EXPECT_DOUBLE_EQ(sums.at("vllm:prompt_tokens_total"), 120);
  EXPECT_TRUE(ParseMetrics("garbage\n{} 3\n\nx y\n").size() <= 1);
}

TEST(ServerMetrics, WhatHappenedInBetween) {
  const ServerView view = CompareMetrics(ParseMetrics(kBefore), ParseMetrics(kAfter));
  EXPECT_DOUBLE_EQ(*view.queue, 0.5);
  EXPECT_DOUBLE_EQ(*view.prefill, 0.5);
  EXPECT_FALSE(view.decode);
  EXPECT_DOUBLE_EQ(*view.prefix_hit_share, 0.25);
  EXPECT_DOUBLE_EQ(*view.prefill_per_token, 3.0 / (200 - 50));
  ASSERT_TRUE(view.speculative);
  EXPECT_DOUBLE_EQ(view.speculative->acceptance_rate, 75);
  EXPECT_DOUBLE_EQ(view.speculative->acceptance_length, 2.5);
  EXPECT_EQ(view.speculative->per_position, (std::vector<double>{0.9, 0.6}));
  EXPECT_FALSE(CompareMetrics({}, {}).speculative);
}

}  // namespace
}  // namespace moebius::load
