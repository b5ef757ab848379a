// The repository's ./run around the program that is under test: what it starts, says and leaves.
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "cli_runner.h"

namespace moebius {
namespace {

namespace fs = std::filesystem;

// A repository whose program is built already: that of this test.
class ScriptTest : public CliTest {
 protected:
  void SetUp() override {
    CliTest::SetUp();
    const fs::path source = MOEBIUS_SOURCE_DIR;
    const fs::path root = folder_;
    fs::copy_file(source / "run", root / "run");
    fs::create_symlink(source / "tools", root / "tools");
    fs::create_symlink(source / "models", root / "models");
    fs::create_directories(root / "build/release");
    fs::create_symlink(MOEBIUS_PROGRAM, root / "build/release/moebius");
    fs::permissions(Write("setup", "#!/bin/sh\n"), fs::perms::owner_all);
    program_ = folder_ + "run";
  }

  static std::vector<pid_t> ChildrenOf(pid_t pid) {
    const std::string id = std::to_string(pid);
    std::istringstream text(ReadFile("/proc/" + id + "/task/" + id + "/children"));
    std::vector<pid_t> children;
    for (pid_t child = 0; text >> child;) children.push_back(child);
    return children;
  }

  // A zombie has no command line.
  static bool IsAlive(pid_t pid) {
    return !ReadFile("/proc/" + std::to_string(pid) + "/cmdline").empty();
  }
};

TEST_F(ScriptTest, TheDemoAnswersAndEndsItsServer) {
  const Finished demo = Run({});
  EXPECT_EQ(demo.exit_code, 0) << demo.err;
  EXPECT_TRUE(Contains(demo.out, "> What is 47 * 36?\n47 * 36 = ")) << demo.out;
  // Eight ranks, five slots each, all of which had something to do.
  const size_t table =
      demo.out.find(" tokens came to experts: 4 of 32 take each token, in each of ");
  ASSERT_NE(table, std::string::npos) << demo.out;
  std::istringstream lines(demo.out.substr(table));
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  int64_t all_own = 0;
  for (int rank = 0; rank < 8; ++rank) {
    std::string share, percent;
    int number = -1, slots = -1;
    int64_t own = -1, tokens = 0, before = 0, after = 0;
    ASSERT_TRUE(std::getline(lines, line));
    std::istringstream(line) >> number >> own >> slots >> tokens >> share >> percent >> before >>
        after;
    EXPECT_EQ(number, rank) << line;
    EXPECT_GE(own, 0) << line;
    all_own += own;
    EXPECT_EQ(slots, 5) << line;
    for (const int64_t count : {tokens, before, after}) EXPECT_GT(count, 0) << line;
  }
  EXPECT_GT(all_own, 100) << "tokens of the demo's prompts and answers";
  EXPECT_TRUE(Contains(demo.LastLine(), "8 ranks")) << demo.out;
}

TEST_F(ScriptTest, AKilledDemoLeavesNoServer) {
  for (const bool early : {true, false}) {
    Write("stdin", "");
    Write("stdout", "");
    const pid_t script = Start({});
    // Early: as soon as there is a process beside the one that is waited for.
    std::vector<pid_t> children;
    for (int i = 0; i < 12000 && children.size() < 2; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      if (early || Contains(ReadFile(folder_ + "stdout"), ">")) children = ChildrenOf(script);
    }
    EXPECT_GE(children.size(), 2u) << ReadFile(folder_ + "stderr");
    const size_t num_own = children.size();
    for (size_t i = 0; i < num_own; ++i) {  // the server's ranks, started by a thread of it
      const fs::path tasks = "/proc/" + std::to_string(children[i]) + "/task";
      std::error_code gone;
      for (const auto& task : fs::directory_iterator(tasks, gone)) {
        std::istringstream text(ReadFile(task.path() / "children"));
        for (pid_t rank = 0; text >> rank;) children.push_back(rank);
      }
    }
    EXPECT_TRUE(early || children.size() >= num_own + 8) << children.size();
    kill(script, SIGKILL);
    EXPECT_EQ(Wait(script), 128 + SIGKILL);
    for (const pid_t child : children) {
      for (int i = 0; i < 6000 && IsAlive(child); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
      }
      EXPECT_FALSE(IsAlive(child)) << (early ? "early" : "late");
      if (IsAlive(child)) kill(child, SIGKILL);
    }
  }
}

TEST_F(ScriptTest, TheDemosModelIsForCommandsThatNameNone) {
  const Finished dry = Run({"serve", "--dry-run"});
  EXPECT_TRUE(Contains(dry.out, "demo as one rank on ")) << dry.err;
  const Finished unknown = Run({"serve", "--bogus"});
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_EQ(unknown.err, "moebius: error: unknown flag --bogus\n");
  // A server has its own: it is asked for its name.
  const Finished nobody = Run({"run", "--url", "http://127.0.0.1:1", "-p", "x"});
  EXPECT_EQ(nobody.exit_code, 1);
  EXPECT_TRUE(Contains(nobody.err, "http://127.0.0.1:1")) << nobody.err;
  const Finished bare = Run({"What is Moebius?"});
  EXPECT_EQ(bare.exit_code, 2);
  EXPECT_TRUE(Contains(bare.err, "-p TEXT")) << bare.err;
  // A file's model, or a flag's, is not replaced by the demo's; a file without one leaves it.
  const std::string file = Write("named.yaml", "model: /no/such/model\n");
  const std::string silent = Write("silent.yaml", "max-model-len: 64\n");
  for (const Args& named :
       {Args{"--config", file}, Args{"--config=" + file}, Args{"--model", "/no/such/model"}}) {
    const Finished other = Run(Args{"serve", "--dry-run"} + named);
    EXPECT_NE(other.exit_code, 0) << other.out;
    EXPECT_TRUE(Contains(other.err, "/no/such/model")) << other.err;
  }
  const Finished demo = Run({"serve", "--dry-run", "--config", silent});
  EXPECT_TRUE(Contains(demo.out, "demo as one rank on ")) << demo.err;
}

}  // namespace
}  // namespace moebius
