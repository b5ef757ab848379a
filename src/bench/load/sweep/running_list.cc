#include "bench/load/sweep/running_list.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include "bench/load/sweep/process.h"

namespace moebius::load {

Result<RunningList> RunningList::Take(const std::string& path) {
  const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (fd < 0) {
    return MakeError(ErrorCode::kUnavailable, "{} cannot be written: {}", path,
                     std::strerror(errno));
  }
  RunningList list(path, fd);
  // A file system without locks is no reason not to measure.
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    list.fd_ = -1;
    close(fd);
    return MakeError(ErrorCode::kUnavailable,
                     "another sweep writes to this folder ({} is locked): wait for it, or give "
                     "another --output-dir",
                     path);
  }
  std::ifstream file(path);
  for (std::string name; std::getline(file, name);)
    list.num_ended_ += EndNamedProcess(name) ? 1 : 0;
  return list;
}

RunningList::RunningList(RunningList&& other) noexcept
    : path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      num_ended_(other.num_ended_),
      names_(std::move(other.names_)) {}

RunningList::~RunningList() {
  if (fd_ < 0) return;
  unlink(path_.c_str());
  close(fd_);
}

void RunningList::Note(const std::string& role, pid_t pid) {
  names_[role] = NameOfProcess(pid);
  std::string text;
  for (const auto& [of, name] : names_) {
    if (!name.empty()) text += name + "\n";
  }
  // A full disk costs no more than what this file is for.
  const bool is_written = ftruncate(fd_, 0) == 0 && pwrite(fd_, text.data(), text.size(), 0) ==
                                                        static_cast<ssize_t>(text.size());
  static_cast<void>(is_written);
}

}  // namespace moebius::load
