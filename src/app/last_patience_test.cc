#include "app/last_patience.h"

#include <gtest/gtest.h>

#include "app/commands.h"

namespace moebius::app {
namespace {

using std::chrono::milliseconds;

TEST(LastPatienceDeathTest, EndsAProcessThatHangs) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto hang = [] {
    LastPatience patience;
    patience.Begin(milliseconds(50), "the engine");
    std::this_thread::sleep_for(std::chrono::seconds(20));
  };
  EXPECT_EXIT(hang(), testing::ExitedWithCode(kExitFailure),
              "the engine does not end within 50 ms");
}

TEST(LastPatience, LetsAnEndInTimeBe) {
  {
    const LastPatience never_begun;
  }
  LastPatience patience;
  patience.Begin(milliseconds(60000), "the engine");
}

}  // namespace
}  // namespace moebius::app
