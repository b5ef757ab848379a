#include "base/log.h"

#include <gtest/gtest.h>

namespace moebius {
namespace {

class LogTest : public testing::Test {
 protected:
  void TearDown() override { SetLogLevel(LogLevel::kInfo); }
};

TEST_F(LogTest, LevelsBelowTheSetOneAreSilent) {
  SetLogLevel(LogLevel::kWarning);
  EXPECT_FALSE(LogEnabled(LogLevel::kInfo));
  EXPECT_TRUE(LogEnabled(LogLevel::kError));
  testing::internal::CaptureStderr();
  LogInfo("not {}", "this");
  LogWarning("but {}", "that");
  const std::string output = testing::internal::GetCapturedStderr();
  EXPECT_EQ(output.find("not this"), std::string::npos);
  EXPECT_NE(output.find("but that"), std::string::npos);
}

TEST_F(LogTest, OffSilencesErrors) {
  SetLogLevel(LogLevel::kOff);
  testing::internal::CaptureStderr();
  LogError("nobody hears {}", 1);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

TEST_F(LogTest, BracesInAnArgumentAreText) {
  testing::internal::CaptureStderr();
  LogInfo("{}", "template {{ x }} {}");
  EXPECT_NE(testing::internal::GetCapturedStderr().find("template {{ x }} {}"), std::string::npos);
}

}  // namespace
}  // namespace moebius
