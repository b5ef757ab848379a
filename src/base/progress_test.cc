#include "base/progress.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

namespace moebius {
namespace {

// A stream into memory and a clock that the test turns.
class ProgressTest : public testing::Test {
 protected:
  void SetUp() override {
    stream_ = open_memstream(&buffer_, &size_);
    options_.out = stream_;
    options_.clock = [this] { return now_; };
  }
  void TearDown() override {
    std::fclose(stream_);
    std::free(buffer_);
  }
  std::string Output() {
    std::fflush(stream_);
    return std::string(buffer_, size_);
  }

  ProgressOptions options_;
  double now_ = 100;
  std::FILE* stream_ = nullptr;
  char* buffer_ = nullptr;
  size_t size_ = 0;
};

TEST_F(ProgressTest, QuickWorkIsSilent) {
  {
    Progress progress("loading", 10, options_);
    for (int i = 0; i < 10; ++i) progress.Advance();
    now_ += 0.4;
    progress.Advance(0);
  }
  EXPECT_EQ(Output(), "");
}

TEST_F(ProgressTest, PlainLinesElsewhere) {
  {
    Progress progress("loading", 10, options_);
    now_ += 1;
    progress.Advance(2);
    EXPECT_EQ(Output(), "loading: 20 %, 2 of 10, 4.0 s left\n");
    now_ += 1;
    progress.Advance(3);  // too soon for another line
    now_ += 4;
    progress.Advance(0);
    now_ += 14;
    progress.Advance(5);
  }
  EXPECT_EQ(Output(),
            "loading: 20 %, 2 of 10, 4.0 s left\n"
            "loading: 50 %, 5 of 10, 6.0 s left\n"
            "loading: 100 %, 10 of 10, 0.0 s left\n"
            "loading: 10 in 20 s\n");
}

TEST_F(ProgressTest, ATerminalsLineRedrawsItself) {
  options_.is_terminal = true;
  options_.unit = ProgressUnit::kBytes;
  {
    Progress progress("packing", 4'000'000'000, options_);
    now_ += 1;
    progress.Advance(2'000'000'000);
  }
  const std::string bar =
      "packing: [############............] 50 %, 2.00 GB of 4.00 GB, 1.0 s left";
  std::string last = "packing: 2.00 GB in 1.0 s";
  last.resize(bar.size(), ' ');  // blanks what the longer line left
  EXPECT_EQ(Output(), "\r" + bar + "\r" + last + "\n");
}

TEST_F(ProgressTest, WithoutATotalItCounts) {
  Progress progress("reading", 0, options_);
  now_ += 200;
  progress.Advance(7);
  EXPECT_EQ(Output(), "reading: 7\n");
}

TEST_F(ProgressTest, ManyThreadsMayAdvance) {
  options_.quiet_seconds = 0;
  options_.line_interval = 0;
  constexpr int kThreads = 4;
  constexpr int kSteps = 200;
  {
    Progress progress("work", kThreads * kSteps, options_);
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
      threads.emplace_back([&] {
        for (int step = 0; step < kSteps; ++step) progress.Advance();
      });
    }
    for (std::thread& thread : threads) thread.join();
  }
  EXPECT_NE(Output().find("work: 800 in "), std::string::npos);
}

}  // namespace
}  // namespace moebius
