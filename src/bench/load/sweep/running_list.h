// What a sweep has running, in a file of its output folder, so that the next one can end what a
// runner that was killed outright left; its lock keeps a second sweep out of the folder. One
// thread.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>

#include "base/result.h"

namespace moebius::load {

class RunningList {
 public:
  // Takes `path` and ends what it names and is still there; `num_ended` of them. kUnavailable:
  // another sweep has it, or it cannot be written.
  static Result<RunningList> Take(const std::string& path);
  RunningList(RunningList&& other) noexcept;
  RunningList& operator=(RunningList&&) = delete;
  ~RunningList();  // and the file goes

  int num_ended() const { return num_ended_; }
  // `pid` is the latest of its role ("server"). An earlier one of that role must have ended.
  void Note(const std::string& role, pid_t pid);

 private:
  RunningList(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  std::string path_;
  int fd_ = -1;  // -1: moved from
  int num_ended_ = 0;
  std::map<std::string, std::string> names_;  // by role
};

}  // namespace moebius::load
