// What tests of many ranks, as a user has them, share: models, their requests, and processes that
// have to be there or gone.
#pragma once

#include <fmt/core.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "serve_runner.h"

namespace moebius {

inline const std::string kGolden = std::string(MOEBIUS_SOURCE_DIR) + "/tests/golden/";
inline const std::string kV3 = kGolden + "deepseek_v3";  // 4 heads, 3 layers, 16 experts, top 4
inline const Args kSmall = {"--dtype", "float32", "--max-num-seqs", "4", "--max-model-len", "128"};

class RanksTest : public ServeTest {
 protected:
  // Until there are so many ranks of a process.
  static std::vector<pid_t> RanksOf(pid_t parent, size_t count) {
    std::vector<pid_t> ranks;
    for (int i = 0; i < 6000 && ranks.size() < count; ++i) {
      ranks = ChildrenOf(parent);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(ranks.size(), count);
    return ranks;
  }

  static void ExpectGone(const std::vector<pid_t>& ranks) {
    for (const pid_t rank : ranks) {
      for (int i = 0; i < 1000 && IsAlive(rank); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      EXPECT_FALSE(IsAlive(rank));
      if (IsAlive(rank)) kill(rank, SIGKILL);
    }
  }

  static std::string LongRequest(int max_tokens) {
    return fmt::format(R"({{"prompt": [5, 6, 7], "max_tokens": {}, "ignore_eos": true}})",
                       max_tokens);
  }
};

}  // namespace moebius
