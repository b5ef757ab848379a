// Programs that a sweep starts: each in a process group of its own, so that whatever it started
// ends with it, its output in a file. One thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace moebius::load {

class Process {
 public:
  // `words[0]` is looked up in PATH. Standard output and error are appended to `log`; `env` is
  // added to this process's environment. kUnavailable: it cannot be started.
  static Result<Process> Start(const std::vector<std::string>& words,
                               const std::vector<std::pair<std::string, std::string>>& env,
                               const std::string& log);
  Process(Process&& other) noexcept : pid_(std::exchange(other.pid_, 0)), code_(other.code_) {}
  Process& operator=(Process&& other) noexcept;
  ~Process() { Kill(); }

  pid_t pid() const { return pid_; }
  // Its exit code once it has ended (128 + the signal that ended it); none: it runs.
  std::optional<int> Poll();
  // The same, after waiting for at most so long.
  std::optional<int> Wait(std::chrono::milliseconds timeout);
  // SIGTERM to its group, then, after `patience`, SIGKILL; whatever is left of the group goes with
  // it. No effect twice.
  void Kill(std::chrono::milliseconds patience = std::chrono::seconds(10));

 private:
  explicit Process(pid_t pid) : pid_(pid) {}

  pid_t pid_ = 0;  // and the group; 0: none any more
  std::optional<int> code_;
};

// Which process it is, for whoever comes later: "PID START BOOT"; empty: there is none.
std::string NameOfProcess(pid_t pid);
// Ends the group of the process that is called so, if it still is there (a number alone may have
// been given away anew); false: it is not. Whoever started it need not live.
bool EndNamedProcess(const std::string& name,
                     std::chrono::milliseconds patience = std::chrono::seconds(10));

// A TCP port of 127.0.0.1 that was free a moment ago.
Result<int> FreePort();

}  // namespace moebius::load
