#include "comm/lost_time.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

namespace moebius::comm {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(LostTime, IsWhatLiesBetweenBeatsFarApart) {
  internal::LostTime lost;
  const Clock::time_point zero = Clock::now();
  const auto at = [&](int ms) { return zero + milliseconds(ms); };
  EXPECT_EQ(lost.Since(at(0), at(5000)), seconds(0));  // nobody beats
  lost.Open(at(0));
  lost.Beat(at(100));
  lost.Beat(at(1050));  // held up, but not long
  EXPECT_EQ(lost.Since(at(0), at(1100)), seconds(0));
  lost.Beat(at(6050));
  lost.Beat(at(6150));
  lost.Beat(at(8150));
  EXPECT_EQ(lost.Since(at(0), at(8200)), seconds(7));
  EXPECT_EQ(lost.Since(at(2050), at(8200)), seconds(6));  // what lay before is not ours
  EXPECT_EQ(lost.Since(at(6100), at(8200)), seconds(2));
  EXPECT_EQ(lost.Since(at(8200), at(8200)), seconds(0));
  EXPECT_EQ(lost.Since(at(8200), at(10200)), milliseconds(2000));  // not yet seen by a beat
  lost.Close();
  EXPECT_EQ(lost.Since(at(0), at(20000)), seconds(7));
}

// What a child that is stopped for two seconds says of its waits. It writes a byte when they begin.
int StoppedChild(int begins) {
  const Pulse pulse;
  Signal never;
  const Clock::time_point begin = Clock::now();
  if (write(begins, "b", 1) != 1) return 4;
  // Of the wait that is under way, 500 ms have passed when the stop comes.
  const WaitEnd end =
      WaitFor(never, 1, 0, {.deadline = begin + milliseconds(1500), .since = begin}, nullptr);
  const auto took = Clock::now() - begin;
  if (end != WaitEnd::kDeadline) return 1;
  // And one that begins after the stop with the bound of before it.
  const Clock::time_point again = Clock::now();
  WaitFor(never, 1, 0, {.deadline = begin + milliseconds(2400), .since = begin}, nullptr);
  if (Clock::now() - again < milliseconds(200)) return 2;
  return took >= milliseconds(3300) && took < seconds(30) ? 0 : 3;
}

TEST(LostTime, MovesTheBoundOfAWait) {
  int begins[2];
  ASSERT_EQ(pipe(begins), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(StoppedChild(begins[1]));
  close(begins[1]);
  char byte = 0;
  EXPECT_EQ(read(begins[0], &byte, 1), 1);
  close(begins[0]);
  usleep(500 * 1000);
  kill(child, SIGSTOP);
  usleep(2000 * 1000);
  kill(child, SIGCONT);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace moebius::comm
