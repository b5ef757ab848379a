// Runs the program the way a user does and keeps what it leaves: standard output, standard error,
// exit code.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

extern char** environ;

namespace moebius {

using Args = std::vector<std::string>;

inline Args operator+(Args a, const Args& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline bool Contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Finished {
  int exit_code = -1;
  std::string out;
  std::string err;

  std::string LastLine() const {
    const size_t end = out.find_last_not_of('\n');
    if (end == std::string::npos) return "";
    const size_t begin = out.find_last_of('\n', end);
    return out.substr(begin == std::string::npos ? 0 : begin + 1,
                      end - (begin == std::string::npos ? 0 : begin + 1) + 1);
  }
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// A zombie is not.
inline bool IsAlive(pid_t pid) {
  const std::string line = ReadFile("/proc/" + std::to_string(pid) + "/stat");
  const size_t end = line.rfind(')');
  return end != std::string::npos && line[end + 2] != 'Z' && line[end + 2] != 'X';
}

// In the order in which they were started.
inline std::vector<pid_t> ChildrenOf(pid_t parent) {
  std::vector<pid_t> children;
  std::error_code gone;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(parent) + "/task", gone)) {
    std::istringstream text(ReadFile(task.path() / "children"));
    for (pid_t child = 0; text >> child;) children.push_back(child);
  }
  return children;
}

class CliTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "moebius_cli_XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern + "/";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ + name, std::ios::binary) << text;
    return folder_ + name;
  }

  // Starts `moebius args...`, or another program_. Its streams are folder_ + name + "out", "err";
  // `environment` comes after what this process has.
  pid_t Start(const Args& args, const std::string& name = "std",
              const Args& environment = {}) const {
    Args words = {program_};
    words.insert(words.end(), args.begin(), args.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    Args variables = environment;
    std::vector<char*> envp;
    for (std::string& variable : variables) envp.push_back(variable.data());
    for (char** entry = environ; *entry != nullptr; ++entry) envp.push_back(*entry);
    envp.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    const std::string in = folder_ + "stdin";
    posix_spawn_file_actions_addopen(&actions, 0, in.c_str(), O_RDONLY | O_CREAT, 0600);
    const std::string out = out_path_.empty() ? folder_ + name + "out" : out_path_;
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, (folder_ + name + "err").c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t pid = 0;
    const int error =
        posix_spawn(&pid, program_.c_str(), &actions, nullptr, argv.data(), envp.data());
    posix_spawn_file_actions_destroy(&actions);
    EXPECT_EQ(error, 0) << program_;
    return error == 0 ? pid : 0;
  }

  // Runs `moebius args...`, at most two minutes. With `interrupt`, sends SIGINT once it has written
  // something.
  Finished Run(const Args& args, const std::string& input = "", bool interrupt = false,
               const Args& environment = {}) const {
    Write("stdin", input);
    const pid_t pid = Start(args, "std", environment);
    if (pid == 0) return {};
    for (int i = 0; interrupt && i < 60000 && std::filesystem::file_size(folder_ + "stdout") == 0;
         ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    if (interrupt) kill(pid, SIGINT);
    const int exit_code = Wait(pid);
    return {exit_code, out_path_.empty() ? ReadFile(folder_ + "stdout") : "",
            ReadFile(folder_ + "stderr")};
  }

  // The ids of the answer, from --print-ids.
  std::vector<int> RunForIds(Args args) const {
    args.insert(args.begin(), "run");
    args.emplace_back("--print-ids");
    const Finished finished = Run(args);
    EXPECT_EQ(finished.exit_code, 0) << finished.err;
    std::vector<int> ids;
    std::istringstream line(finished.LastLine());
    for (std::string word; std::getline(line, word, ',');) ids.push_back(std::atoi(word.c_str()));
    return ids;
  }

  // Its exit code, at most two minutes from now; 128 + N where signal N ended it.
  static int Wait(pid_t pid) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);
    int status = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() > deadline) {
        ADD_FAILURE() << "still running after two minutes";
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        return -1;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  // This build's, or a bundle's (tools/cuda_bundle.sh).
  static std::string ProgramPath() {
    const char* root = std::getenv("MOEBIUS_ROOT");
    return root != nullptr ? std::string(root) + "/bin/moebius" : MOEBIUS_PROGRAM;
  }

  std::string folder_;
  std::string program_ = ProgramPath();
  std::string out_path_;  // where standard output goes, unread; empty: into Finished::out
};

}  // namespace moebius
