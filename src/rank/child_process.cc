#include "rank/child_process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <utility>

#include "rank/rank_process.h"

namespace moebius::rank {
namespace {

// Out of the way of the numbers that the child's descriptors get.
constexpr int kFirstFree = 16;

struct SpawnSettings {
  SpawnSettings() {
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;

  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
};

void Fill(SpawnSettings& settings, int socket, int memory, int trace) {
  posix_spawn_file_actions_addopen(&settings.actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&settings.actions, STDERR_FILENO, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&settings.actions, socket, kRankSocket);
  posix_spawn_file_actions_adddup2(&settings.actions, memory, kRankMemory);
  if (trace >= 0) posix_spawn_file_actions_adddup2(&settings.actions, trace, kRankTrace);
  static_assert(kRankTrace > std::max(kRankSocket, kRankMemory));
  posix_spawn_file_actions_addclosefrom_np(&settings.actions, kRankTrace + (trace >= 0 ? 1 : 0));
  // A terminal's interrupt is for the parent, who ends its ranks in order.
  posix_spawnattr_setflags(&settings.attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
  posix_spawnattr_setpgroup(&settings.attributes, 0);
  sigset_t signals;
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&settings.attributes, &signals);
  // What asks a whole service to end (of a service manager, say) is for the parent, too.
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  posix_spawnattr_setsigmask(&settings.attributes, &signals);
}

}  // namespace

std::string ProcessEnd::Describe() const {
  return signal != 0 ? fmt::format("was killed by signal {} ({})", signal, strsignal(signal))
                     : fmt::format("exited with status {}", status);
}

Result<ChildProcess> ChildProcess::Start(const std::string& program, int rank, int socket,
                                         int memory, int trace) {
  const int high_socket = fcntl(socket, F_DUPFD_CLOEXEC, kFirstFree);
  const int high_memory = fcntl(memory, F_DUPFD_CLOEXEC, kFirstFree);
  const int high_trace = trace >= 0 ? fcntl(trace, F_DUPFD_CLOEXEC, kFirstFree) : -1;
  const auto close_all = [&] {
    for (const int descriptor : {high_socket, high_memory, high_trace}) {
      if (descriptor >= 0) close(descriptor);
    }
  };
  if (high_socket < 0 || high_memory < 0 || (trace >= 0 && high_trace < 0)) {
    const int error = errno;
    close_all();
    return MakeError(ErrorCode::kUnavailable, "cannot start rank {}: no descriptor for it: {}",
                     rank, std::strerror(error));
  }
  std::array<std::string, 4> words = {"moebius", kRankProcessCommand, std::to_string(rank),
                                      std::to_string(getpid())};
  std::array<char*, words.size() + 1> argv{};
  for (size_t i = 0; i < words.size(); ++i) argv[i] = words[i].data();
  SpawnSettings settings;
  Fill(settings, high_socket, high_memory, high_trace);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, program.c_str(), &settings.actions, &settings.attributes,
                                argv.data(), environ);
  close_all();
  if (error != 0) {
    return MakeError(ErrorCode::kUnavailable, "cannot start {} as a process: {}", program,
                     std::strerror(error));
  }
  return ChildProcess(pid);
}

void ChildProcess::KillIfStoppedInStart(pid_t thread) {
  std::ifstream children(fmt::format("/proc/self/task/{}/children", thread));
  pid_t last = 0;
  for (pid_t child = 0; children >> child;) last = child;
  if (last == 0) return;
  std::string stat;
  std::getline(std::ifstream(fmt::format("/proc/{}/stat", last)), stat);
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos || stat.substr(name_end + 2, 1) != "T") return;
  kill(last, SIGKILL);
}

ChildProcess::ChildProcess(pid_t pid)
    : pid_(pid), descriptor_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      end_(other.end_),
      stopped_(other.stopped_) {}

ChildProcess::~ChildProcess() {
  if (pid_ > 0 && !TryEnd()) {
    Kill();
    while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  if (descriptor_ >= 0) close(descriptor_);
}

std::optional<ProcessEnd> ChildProcess::TryEnd() {
  if (end_) return end_;
  int status = 0;
  pid_t ended = waitpid(pid_, &status, WNOHANG | WUNTRACED | WCONTINUED);
  while (ended == pid_ && (WIFSTOPPED(status) || WIFCONTINUED(status))) {
    stopped_.reset();
    if (WIFSTOPPED(status)) stopped_ = std::chrono::steady_clock::now();
    ended = waitpid(pid_, &status, WNOHANG | WUNTRACED | WCONTINUED);
  }
  if (ended == pid_) {
    end_ =
        WIFSIGNALED(status) ? ProcessEnd{WTERMSIG(status), 0} : ProcessEnd{0, WEXITSTATUS(status)};
  } else if (ended < 0 && errno == ECHILD) {
    end_ = ProcessEnd{0, -1};  // somebody else has waited for it
  }
  return end_;
}

void ChildProcess::Kill() {
  if (!end_) kill(pid_, SIGKILL);
}

}  // namespace moebius::rank
