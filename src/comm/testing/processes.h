// Tests with several processes.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <vector>

namespace moebius::comm::testing {

// Waits for children, each of which shall end with 0.
inline void ExpectAllEndWell(const std::vector<pid_t>& children) {
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
}

}  // namespace moebius::comm::testing
