#include "platform/named_segment.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <cstring>
#include <thread>

#include "base/log.h"

namespace moebius::platform {
namespace {

constexpr uint64_t kMark = 0x6d6f656269757331;  // "moebius1"

// Bytes of a segment that are locked, whatever lies there. The owner's is taken before the segment
// has its name and by nobody else, so one that is free stays free: the owner is dead for good.
constexpr off_t kOwnerLock = 0;
constexpr off_t kRemoverLock = 1;  // held while the name is removed

struct flock LockOf(off_t byte) {
  struct flock lock{};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

// These locks belong to the open file, not to the process: two of one process exclude each other.
bool TryLock(const FileDescriptor& file, off_t byte) {
  struct flock lock = LockOf(byte);
  return fcntl(file.get(), F_OFD_SETLK, &lock) == 0;
}

bool IsLocked(const FileDescriptor& file, off_t byte) {
  struct flock lock = LockOf(byte);
  // What cannot be asked is taken for alive.
  return fcntl(file.get(), F_OFD_GETLK, &lock) != 0 || lock.l_type != F_UNLCK;
}

// Without following a link or waiting for a pipe's other end.
FileDescriptor OpenExisting(const std::string& path, int mode) {
  return FileDescriptor(open(path.c_str(), mode | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
}

bool HasName(const FileDescriptor& file, const std::string& path) {
  struct stat opened{};
  struct stat named{};
  return fstat(file.get(), &opened) == 0 && lstat(path.c_str(), &named) == 0 &&
         opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

// Sized, marked and locked before anybody can see it.
Result<FileDescriptor> MakeNameless(size_t num_bytes, const std::string& folder) {
  FileDescriptor file(open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  SegmentEnd end;
  end.mark = kMark;
  end.owner = getpid();
  const auto where = static_cast<off_t>(num_bytes);
  if (file.get() < 0 || ftruncate(file.get(), static_cast<off_t>(num_bytes + PageBytes())) != 0 ||
      !TryLock(file, kOwnerLock) ||
      pwrite(file.get(), static_cast<const void*>(&end), sizeof(end), where) !=
          static_cast<ssize_t>(sizeof(end))) {
    return MakeError(ErrorCode::kUnavailable, "{}: cannot make shared memory of {} bytes: {}",
                     folder, num_bytes, std::strerror(errno));
  }
  return file;
}

}  // namespace

size_t PageBytes() { return static_cast<size_t>(sysconf(_SC_PAGESIZE)); }

Status CheckSegmentName(const std::string& name) {
  if (!name.empty() && name.front() != '.' && name.size() <= NAME_MAX &&
      name.find('/') == std::string::npos && name.find('\0') == std::string::npos) {
    return {};
  }
  return MakeError(ErrorCode::kInvalidArgument,
                   "'{}' is no name of shared memory: expected 1 to {} characters without slashes "
                   "and without a dot in front",
                   name, NAME_MAX);
}

SegmentInfo InspectSegment(const std::string& name, const FileDescriptor& file) {
  SegmentInfo info;
  info.name = name;
  struct stat status{};
  if (fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return info;
  info.num_bytes = static_cast<uint64_t>(status.st_size);
  info.reserved_bytes = static_cast<uint64_t>(status.st_blocks) * 512;
  SegmentEnd end;
  const auto page = static_cast<off_t>(PageBytes());
  if (status.st_size <= page || status.st_size % page != 0 ||
      pread(file.get(), static_cast<void*>(&end), sizeof(end), status.st_size - page) !=
          static_cast<ssize_t>(sizeof(end)) ||
      end.mark != kMark) {
    return info;
  }
  info.owner = end.owner;
  info.state = IsLocked(file, kOwnerLock) ? SegmentState::kLive : SegmentState::kLeftOver;
  return info;
}

Result<SegmentInfo> InspectSegment(const std::string& name, const std::string& folder) {
  const std::string path = folder + "/" + name;
  const FileDescriptor file = OpenExisting(path, O_RDONLY);
  if (file.get() < 0 && errno == ENOENT) {
    return MakeError(ErrorCode::kNotFound, "{}: {}", path, std::strerror(ENOENT));
  }
  return InspectSegment(name, file);
}

Result<FileDescriptor> OpenSegment(const std::string& name, const std::string& folder) {
  const std::string path = folder + "/" + name;
  FileDescriptor file = OpenExisting(path, O_RDONLY);
  if (file.get() >= 0) return file;
  return MakeError(errno == ENOENT ? ErrorCode::kNotFound : ErrorCode::kUnavailable, "{}: {}", path,
                   std::strerror(errno));
}

Result<bool> RemoveLeftOver(const std::string& name, const std::string& folder) {
  const std::string path = folder + "/" + name;
  const FileDescriptor file = OpenExisting(path, O_RDWR);
  if (InspectSegment(name, file).state != SegmentState::kLeftOver) return false;
  // Whoever has this lock removes this segment and no newer one: it keeps its name until then.
  if (!TryLock(file, kRemoverLock) || !HasName(file, path)) return false;
  if (unlink(path.c_str()) == 0) return true;
  return MakeError(ErrorCode::kUnavailable, "{}: cannot be removed: {}", path,
                   std::strerror(errno));
}

Status FreeSegmentName(const std::string& name, const std::string& folder) {
  const std::string path = folder + "/" + name;
  // Another remover takes no longer than a few system calls.
  constexpr int kMostTries = 1000;
  for (int i = 0; i < kMostTries; ++i) {
    const Result<SegmentInfo> found = InspectSegment(name, folder);
    if (!found) return {};
    if (found->state == SegmentState::kLive) {
      return MakeError(ErrorCode::kUnavailable,
                       "{} ({} bytes) belongs to a running process (pid {}): stop it, or choose "
                       "another name",
                       path, found->num_bytes, found->owner);
    }
    if (found->state == SegmentState::kForeign) {
      return MakeError(ErrorCode::kUnavailable,
                       "{} ({} bytes) was made by another program or user: choose another name, "
                       "or remove it when its program is gone",
                       path, found->num_bytes);
    }
    MOEBIUS_ASSIGN(const bool removed, RemoveLeftOver(name, folder));
    if (removed) {
      LogInfo("{}: removed {} bytes that pid {} left", path, found->num_bytes, found->owner);
      return {};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return MakeError(ErrorCode::kUnavailable, "{}: left over, and somebody else removes it for ever",
                   path);
}

Result<FileDescriptor> MakeSegment(const std::string& name, size_t num_bytes,
                                   const std::string& folder) {
  MOEBIUS_TRY(CheckSegmentName(name));
  MOEBIUS_ASSIGN(FileDescriptor file, MakeNameless(num_bytes, folder));
  const std::string self = fmt::format("/proc/self/fd/{}", file.get());
  const std::string path = folder + "/" + name;
  MOEBIUS_TRY(FreeSegmentName(name, folder));
  if (linkat(AT_FDCWD, self.c_str(), AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW) == 0) return file;
  return MakeError(ErrorCode::kUnavailable, "{}: cannot be made: {}", path, std::strerror(errno));
}

void RemoveOwnSegment(const FileDescriptor& file, const std::string& name,
                      const std::string& folder) {
  const std::string path = folder + "/" + name;
  if (HasName(file, path)) unlink(path.c_str());
}

}  // namespace moebius::platform
