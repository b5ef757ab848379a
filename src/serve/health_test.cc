#include "serve/health.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace moebius::serve {
namespace {

TEST(Health, TellsWhatIsWrongFirst) {
  HealthInput input;
  EXPECT_TRUE(JudgeHealth(input));
  input.stats.seconds_without_progress = 1000;  // idle
  EXPECT_TRUE(JudgeHealth(input));
  input.is_draining = true;
  EXPECT_NE(JudgeHealth(input).error().message().find("shutting down"), std::string::npos);
  EXPECT_TRUE(JudgeProgress(input));
  input.stats.has_work = true;
  EXPECT_NE(JudgeHealth(input).error().message().find("1000.0 s"), std::string::npos);
  input.stats.seconds_without_progress = 29;  // slow
  EXPECT_TRUE(JudgeProgress(input));
  input.engine = MakeError(ErrorCode::kDeadline, "no step within 5 s");
  EXPECT_NE(JudgeHealth(input).error().message().find("no step within 5 s"), std::string::npos);
}

TEST(Health, ProgressIsJsonWhateverTheReasonHolds) {
  HealthInput input;
  input.stats.num_steps = 7;
  input.engine = MakeError(ErrorCode::kInternal, "\"\xff\n");
  const auto json = nlohmann::json::parse(ProgressJson(input));
  EXPECT_EQ(json["steps"], 7);
  EXPECT_EQ(json["has_work"], false);
  EXPECT_NE(json["status"], "ok");
}

}  // namespace
}  // namespace moebius::serve
