#include "engine/engine_options.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

namespace moebius::engine {
namespace {

std::string ErrorOf(const std::function<void(EngineOptions&)>& change) {
  EngineOptions options;
  change(options);
  const Status status = Validate(options);
  return status ? "" : status.error().message();
}

TEST(EngineOptions, DefaultsAndLimitsAreAccepted) {
  EXPECT_EQ(ErrorOf([](EngineOptions&) {}), "");
  EXPECT_EQ(ErrorOf([](EngineOptions& o) {
              o.block_size = 1 << 20;
              o.max_num_seqs = o.max_num_batched_tokens = 1 << 24;
              o.num_kv_blocks = 1;
              o.memory_fraction = 1;
            }),
            "");
}

TEST(EngineOptions, WhatIsOutOfRangeIsNamedByItsFlag) {
  for (const int64_t wrong :
       {int64_t{-1}, int64_t{3000000000000000000}, std::numeric_limits<int64_t>::max()}) {
    const std::string found = fmt::format(" is {}, expected a number from ", wrong);
    EXPECT_EQ(ErrorOf([&](EngineOptions& o) { o.max_num_batched_tokens = wrong; }),
              "--max-num-batched-tokens" + found + "1 to 16777216");
    EXPECT_EQ(ErrorOf([&](EngineOptions& o) { o.max_num_seqs = wrong; }),
              "--max-num-seqs" + found + "1 to 16777216");
    EXPECT_EQ(ErrorOf([&](EngineOptions& o) { o.block_size = wrong; }),
              "--block-size" + found + "1 to 1048576");
    EXPECT_EQ(ErrorOf([&](EngineOptions& o) { o.prefill_interval = wrong; }),
              "--prefill-interval" + found + "1 to 1048576");
    EXPECT_EQ(ErrorOf([&](EngineOptions& o) { o.num_kv_blocks = wrong; }),
              "--num-kv-blocks" + found + "1 to 2147483640");
    EXPECT_EQ(ErrorOf([&](EngineOptions& o) { o.max_model_len = wrong; }),
              "--max-model-len" + found + "2 to 2147483648");
  }
  for (const double wrong : {0.0, -0.5, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_NE(ErrorOf([&](EngineOptions& o) {
                o.memory_fraction = wrong;
              }).find("--gpu-memory-utilization is"),
              std::string::npos);
  }
}

TEST(EngineOptions, EveryRunningRequestMayNeedARow) {
  EXPECT_NE(ErrorOf([](EngineOptions& o) {
              o.max_num_seqs = 8;
              o.max_num_batched_tokens = 7;
            }).find("expected at least --max-num-seqs, 8"),
            std::string::npos);
}

}  // namespace
}  // namespace moebius::engine
