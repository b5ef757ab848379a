// A rank's process, as its parent has it: started without what the parent has open, watched by a
// descriptor, never left behind. One thread, which must live as long as the process: that dies with
// the thread that started it (rank_process.h).
#pragma once

#include <sys/types.h>

#include <chrono>
#include <optional>
#include <string>

#include "base/result.h"

namespace moebius::rank {

// How it ended: a signal, or an exit status.
struct ProcessEnd {
  int signal = 0;  // 0: it exited
  int status = 0;
  std::string Describe() const;  // "was killed by signal 9 (Killed)", "exited with status 18"
};

class ChildProcess {
 public:
  // Runs `program` as rank `rank` of this process, in a process group of its own, with the
  // descriptors of rank_process.h (trace -1: none), no input, and the output on this process's
  // error output.
  static Result<ChildProcess> Start(const std::string& program, int rank, int socket, int memory,
                                    int trace);
  // A process that is stopped before it has come to its program keeps Start from returning. Kills
  // such a one that thread `thread` of this process is starting. Any thread.
  static void KillIfStoppedInStart(pid_t thread);

  ChildProcess(ChildProcess&& other) noexcept;
  ChildProcess& operator=(ChildProcess&& other) = delete;
  ~ChildProcess();  // kills it if it runs, and waits for that

  pid_t pid() const { return pid_; }
  // Readable once it has ended; -1: this system has none (poll ignores it).
  int end_descriptor() const { return descriptor_; }

  // Does not wait. Once it has ended, always how.
  std::optional<ProcessEnd> TryEnd();
  // By a signal and not continued, as TryEnd has seen it: since when.
  std::optional<std::chrono::steady_clock::time_point> stopped() const { return stopped_; }
  void Kill();

 private:
  explicit ChildProcess(pid_t pid);

  pid_t pid_;
  int descriptor_;
  std::optional<ProcessEnd> end_;
  std::optional<std::chrono::steady_clock::time_point> stopped_;
};

}  // namespace moebius::rank
