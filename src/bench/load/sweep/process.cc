#include "bench/load/sweep/process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <sstream>
#include <thread>

extern char** environ;

namespace moebius::load {
namespace {

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> EnvironmentWith(
    const std::vector<std::pair<std::string, std::string>>& more) {
  std::vector<std::string> entries;
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    bool is_replaced = false;
    for (const auto& pair : more) is_replaced = is_replaced || pair.first == name;
    if (!is_replaced) entries.push_back(text);
  }
  for (const auto& [name, value] : more) entries.push_back(fmt::format("{}={}", name, value));
  return entries;
}

}  // namespace

Result<Process> Process::Start(const std::vector<std::string>& words,
                               const std::vector<std::pair<std::string, std::string>>& env,
                               const std::string& log) {
  std::vector<std::string> args = words;
  std::vector<std::string> variables = EnvironmentWith(env);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setpgroup(&attributes, 0);
  // This program blocks signals that one thread of it waits for; a child must get them.
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  pid_t pid = 0;
  const int error = posix_spawnp(&pid, args[0].c_str(), &actions, &attributes,
                                 Pointers(args).data(), Pointers(variables).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  if (error == 0) return Process(pid);
  return MakeError(ErrorCode::kUnavailable, "{} cannot be started: {}", args[0],
                   std::strerror(error));
}

Process& Process::operator=(Process&& other) noexcept {
  if (this == &other) return *this;
  Kill();
  pid_ = std::exchange(other.pid_, 0);
  code_ = other.code_;
  return *this;
}

std::optional<int> Process::Poll() {
  if (code_ || pid_ == 0) return code_;
  int status = 0;
  if (waitpid(pid_, &status, WNOHANG) == pid_) {
    code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return code_;
}

std::optional<int> Process::Wait(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!Poll() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return code_;
}

void Process::Kill(std::chrono::milliseconds patience) {
  if (pid_ == 0) return;
  if (!Poll()) {
    kill(-pid_, SIGTERM);
    Wait(patience);
  }
  kill(-pid_, SIGKILL);  // the group outlives its leader if somebody of it does
  if (!code_) Wait(std::chrono::seconds(5));
  pid_ = 0;
}

std::string NameOfProcess(pid_t pid) {
  std::ifstream stat(fmt::format("/proc/{}/stat", pid));
  std::string text{std::istreambuf_iterator<char>(stat), {}};
  const size_t end = text.rfind(')');  // of its name, which may hold anything
  if (end == std::string::npos) return "";
  std::istringstream fields(text.substr(end + 1));
  std::vector<std::string> words{std::istream_iterator<std::string>(fields), {}};
  constexpr size_t kState = 0, kStartTime = 19;  // proc(5): fields 3 and 22
  if (words.size() <= kStartTime || words[kState] == "Z") return "";
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  return fmt::format("{} {} {}", pid, words[kStartTime], boot);
}

bool EndNamedProcess(const std::string& name, std::chrono::milliseconds patience) {
  pid_t pid = 0;
  if (!(std::istringstream(name) >> pid) || pid <= 1 || NameOfProcess(pid) != name) return false;
  if (getpgid(pid) != pid) return false;  // none of ours: each of them leads a group
  kill(-pid, SIGTERM);
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (NameOfProcess(pid) == name && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  kill(-pid, SIGKILL);
  return true;
}

Result<int> FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  auto* raw = reinterpret_cast<sockaddr*>(&address);
  const bool found = fd >= 0 && bind(fd, raw, size) == 0 && getsockname(fd, raw, &size) == 0;
  if (fd >= 0) close(fd);
  if (found) return ntohs(address.sin_port);
  return MakeError(ErrorCode::kUnavailable, "no free port: {}", std::strerror(errno));
}

}  // namespace moebius::load
