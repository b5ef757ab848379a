// How much named shared memory this machine gives, and whether in huge pages. A page that is
// written where /dev/shm is full is a bus error, one beyond the container's limit a kill: whoever
// makes a segment asks here first. Plain functions, any thread.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "base/result.h"

namespace moebius::platform {

// Where POSIX shared memory has its names on Linux.
inline constexpr char kSharedMemoryFolder[] = "/dev/shm";

// In bytes.
struct SharedMemoryRoom {
  static constexpr uint64_t kUnlimited = std::numeric_limits<uint64_t>::max();

  std::string folder;
  uint64_t total = 0;  // of the file system that holds the folder
  uint64_t free = 0;
  // What the machine or the container has left, for these pages as for any others, and the limit
  // of the container (0: none).
  uint64_t memory = kUnlimited;
  uint64_t memory_limit = 0;
};

// Of `folder`, with the machine's memory under `root` (empty: the real one; where it cannot be
// read there is no limit). kUnavailable: there is no such folder.
Result<SharedMemoryRoom> ReadSharedMemoryRoom(const std::string& folder = kSharedMemoryFolder,
                                              const std::string& root = "");

// kOutOfMemory where `what` does not fit: what is needed, what is free, and the commands that make
// room.
Status CheckRoom(const SharedMemoryRoom& room, const std::string& what, uint64_t num_bytes);

// Huge pages come by the mount's option for segments in `folder` and by a switch in sysfs that can
// forbid or force them. Returns the word that decides: "never", "advise", "within_size", "always",
// "deny", "force"; empty: this kernel has none. Reads /proc/self/mounts and /sys under `root`.
std::string SharedHugePages(const std::string& folder = kSharedMemoryFolder,
                            const std::string& root = "");
bool GivesHugePages(const std::string& word);  // "never", "deny", none: it does not

// "always [madvise] never" -> "madvise"; empty if nothing stands in brackets.
std::string ChosenWord(const std::string& setting);

}  // namespace moebius::platform
