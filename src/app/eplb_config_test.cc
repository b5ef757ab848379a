#include "app/eplb_config.h"

#include <gtest/gtest.h>

namespace moebius::app {
namespace {

std::string ConfigError(const std::string& text) {
  const auto config = ParseEplbConfig(text);
  return config ? "" : config.error().message();
}

TEST(EplbConfig, NumbersThatPlansGoBy) {
  const auto config = ParseEplbConfig(
      R"({"min_gain": 0.125, "flops_per_byte": 0, "step_interval": 7, "use_async": true})");
  ASSERT_TRUE(config) << config.error().message();
  EXPECT_EQ(config->online.min_gain, 0.125);
  EXPECT_EQ(config->online.flops_per_byte, 0);
  EXPECT_EQ(config->online.step_interval, 7);
  EXPECT_EQ(config->ignored.size(), 1U);
  EXPECT_GT(ParseEplbConfig("{}")->online.flops_per_byte, 0) << "plans go by time unless told";
}

TEST(EplbConfig, ErrorsNameTheKey) {
  EXPECT_EQ(ConfigError(R"({"min_gain": -1})"),
            "--eplb-config: min_gain is -1, expected 0 to 1000");
  EXPECT_EQ(ConfigError(R"({"flops_per_byte": "8"})"),
            "--eplb-config: flops_per_byte is \"8\", expected 0 to 1000000");
  EXPECT_EQ(ConfigError(R"({"flops_per_bytes": 8})"),
            "--eplb-config: unknown key flops_per_bytes (did you mean flops_per_byte?)");
}

TEST(EplbConfig, AKeyStandsThereOnce) {
  EXPECT_EQ(ConfigError(R"({"num_redundant_experts": 8, "num_redundant_experts": 16})"),
            "--eplb-config: num_redundant_experts stands there twice, expected once");
  EXPECT_EQ(ConfigError(R"({"use_async": true, "min_gain": 1, "use_async": true})"),
            "--eplb-config: use_async stands there twice, expected once");
}

TEST(EplbConfig, WhatIsNoNumberOrNoJson) {
  EXPECT_EQ(ConfigError(R"({"step_interval": 7, "min_gain": 1e400})"),
            "--eplb-config: min_gain: number overflow parsing '1e400'");
  EXPECT_NE(ConfigError(R"({"min_gain": )").find("expected a JSON object"), std::string::npos);
}

}  // namespace
}  // namespace moebius::app
