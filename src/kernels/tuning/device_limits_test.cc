#include "kernels/tuning/device_limits.h"

#include <gtest/gtest.h>

namespace moebius::kernels {
namespace {

TEST(DeviceLimits, RoutersOfModelsFit) {
  EXPECT_TRUE(FitsRouter(256, 8, 8));   // DeepSeek-V3
  EXPECT_TRUE(FitsRouter(384, 1, 8));   // Kimi K2
  EXPECT_TRUE(FitsRouter(128, 1, 8));   // Qwen3
  EXPECT_TRUE(FitsRouter(512, 1, 10));  // Qwen3-Next
  EXPECT_TRUE(FitsRouter(160, 8, 6));   // DeepSeek-V2
  EXPECT_TRUE(FitsRouter(128, 1, 1));   // Maverick
  EXPECT_TRUE(FitsRouter(1, 1, 1));
}

TEST(DeviceLimits, WhatARouterDoesNotTake) {
  EXPECT_FALSE(FitsRouter(513, 1, 8));
  EXPECT_FALSE(FitsRouter(256, 64, 8));
  EXPECT_FALSE(FitsRouter(64, 1, 33));
  EXPECT_FALSE(FitsRouter(4, 1, 8));
  EXPECT_FALSE(FitsRouter(256, 3, 8));
  // A group of 102 on six lanes: 17 each; of 160 on ten: 16.
  EXPECT_FALSE(FitsRouter(510, 5, 8));
  EXPECT_TRUE(FitsRouter(480, 3, 8));
}

}  // namespace
}  // namespace moebius::kernels
