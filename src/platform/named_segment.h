// A segment of shared memory with a name, as a file: who owns it, whether the owner lives, and how
// it is made and removed. A lock that the kernel drops with the owner's open file says who lives,
// never a pid, which another process may have by then. A segment ends in one page of ours: a mark,
// the owner's pid, and whether the owner has published it. What lacks the mark is somebody else's,
// and is neither opened nor removed.
//
// Plain functions, any thread, any process of the same user. NamedMemory maps what they make.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "platform/file_descriptor.h"
#include "platform/shared_memory_room.h"

namespace moebius::platform {

// The last page of a segment.
struct SegmentEnd {
  uint64_t mark = 0;
  pid_t owner = 0;
  std::atomic<uint32_t> published{0};
};
static_assert(std::atomic<uint32_t>::is_always_lock_free);

enum class SegmentState {
  kLive,
  kLeftOver,  // its owner is dead, for good
  kForeign,   // no mark of ours, or not ours to open
};

struct SegmentInfo {
  std::string name;
  SegmentState state = SegmentState::kForeign;
  uint64_t num_bytes = 0;       // of the file, its last page included
  uint64_t reserved_bytes = 0;  // of those, with pages behind them
  pid_t owner = 0;              // that made it; 0: unknown
};

// kInvalidArgument: `name` is empty, begins with a dot, holds a slash or is above 255 characters.
Status CheckSegmentName(const std::string& name);

// kNotFound: no such name.
Result<SegmentInfo> InspectSegment(const std::string& name,
                                   const std::string& folder = kSharedMemoryFolder);
SegmentInfo InspectSegment(const std::string& name, const FileDescriptor& file);

// Removes the name of a segment whose owner is dead; true if this call did. Otherwise nothing is
// touched. kUnavailable: it could not be removed.
Result<bool> RemoveLeftOver(const std::string& name,
                            const std::string& folder = kSharedMemoryFolder);

// The name is free now; what a dead owner left there is removed. kUnavailable with the pid if a
// live owner has it, or if it is somebody else's file.
Status FreeSegmentName(const std::string& name, const std::string& folder);

// A new segment of num_bytes (whole pages) and its last page, owned by this process as long as the
// descriptor or a mapping made from it lives. No page is reserved yet. Errors as above.
Result<FileDescriptor> MakeSegment(const std::string& name, size_t num_bytes,
                                   const std::string& folder);

// What its owner no longer needs. The name stays if it leads to another file by now.
void RemoveOwnSegment(const FileDescriptor& file, const std::string& name,
                      const std::string& folder);

// For reading. kNotFound, kUnavailable.
Result<FileDescriptor> OpenSegment(const std::string& name, const std::string& folder);

size_t PageBytes();

}  // namespace moebius::platform
