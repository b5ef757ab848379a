#include "bench/load/sweep/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "bench/load/sweep/running_list.h"

namespace moebius::load {
namespace {

using namespace std::chrono_literals;

class ProcessTest : public testing::Test {
 protected:
  void SetUp() override {
    log_ = testing::TempDir() + "moebius_process_" + std::to_string(getpid()) + ".log";
    std::filesystem::remove(log_);
  }
  void TearDown() override { std::filesystem::remove(log_); }
  std::string Log() const {
    std::ifstream file(log_);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  Result<Process> Shell(const std::string& script) {
    return Process::Start({"sh", "-c", script}, {{"MOEBIUS_X", "y z"}}, log_);
  }
  std::string log_;
};

TEST_F(ProcessTest, GivesOutputAndExitCode) {
  auto process = Shell("echo out $MOEBIUS_X; echo err >&2; exit 3");
  ASSERT_TRUE(process);
  EXPECT_EQ(process->Wait(10s), 3);
  EXPECT_EQ(Log(), "out y z\nerr\n");
}

TEST_F(ProcessTest, WhatCannotBeStartedIsNamed) {
  const auto process = Process::Start({"moebius-no-such-program"}, {}, log_);
  ASSERT_FALSE(process);
  EXPECT_NE(process.error().message().find("moebius-no-such-program"), std::string::npos);
}

TEST_F(ProcessTest, TheWholeGroupEnds) {
  auto process = Shell("trap '' TERM; sleep 60 & echo $!; wait");
  ASSERT_TRUE(process);
  while (Log().find('\n') == std::string::npos) std::this_thread::sleep_for(1ms);
  EXPECT_FALSE(process->Poll());
  const pid_t grandchild = std::stoi(Log());
  process->Kill(100ms);
  EXPECT_TRUE(process->Poll().has_value());
  // It may wait as a zombie for whoever adopted it; running it is not.
  for (int i = 0; i < 1000 && kill(grandchild, 0) == 0; ++i) {
    std::ifstream stat("/proc/" + std::to_string(grandchild) + "/stat");
    const std::string text{std::istreambuf_iterator<char>(stat), {}};
    if (text.find(") Z") != std::string::npos) break;
    ASSERT_LT(i, 999);
    std::this_thread::sleep_for(1ms);
  }
}

TEST_F(ProcessTest, OneThatIsNamedIsEndedByWhoeverComesLater) {
  auto process = Shell("sleep 60");
  ASSERT_TRUE(process);
  const std::string name = NameOfProcess(process->pid());
  ASSERT_EQ(name.find(std::to_string(process->pid()) + " "), 0u) << name;
  // The same number of another time is another process.
  const std::string other = name.substr(0, name.find(' ')) + " 1" + name.substr(name.find(' ') + 1);
  EXPECT_FALSE(EndNamedProcess(other, 1s));
  EXPECT_FALSE(process->Poll());
  EXPECT_TRUE(EndNamedProcess(name, 5s));
  EXPECT_TRUE(process->Wait(5s).has_value());
  EXPECT_FALSE(EndNamedProcess(name, 1s));
  EXPECT_FALSE(EndNamedProcess("", 1s));
  EXPECT_FALSE(EndNamedProcess(NameOfProcess(getpid()) + "0", 1s));
}

TEST_F(ProcessTest, ARunningListEndsWhatItsForerunnerLeft) {
  auto process = Shell("sleep 60");
  ASSERT_TRUE(process);
  std::string left;
  {
    auto list = RunningList::Take(log_ + ".running");
    ASSERT_TRUE(list) << list.error().message();
    list->Note("server", process->pid());
    std::ifstream file(log_ + ".running");
    left.assign(std::istreambuf_iterator<char>(file), {});
    const auto second = RunningList::Take(log_ + ".running");
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().message().find("another sweep"), std::string::npos);
  }
  EXPECT_FALSE(std::filesystem::exists(log_ + ".running"));
  std::ofstream(log_ + ".running") << left;  // as one that was killed outright leaves it
  const auto list = RunningList::Take(log_ + ".running");
  ASSERT_TRUE(list);
  EXPECT_EQ(list->num_ended(), 1);
  EXPECT_TRUE(process->Wait(5s).has_value());
}

TEST(Processes, PortsAreFree) {
  const auto port = FreePort();
  ASSERT_TRUE(port);
  EXPECT_GT(*port, 0);
}

}  // namespace
}  // namespace moebius::load
