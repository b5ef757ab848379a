// Shared memory with a name, as processes need it that do not start each other: one makes, fills
// and publishes a segment, the others map it read-only. The owner removes it at its end; if it dies
// instead, however it dies, the segment is known as left over, and whoever wants the name next
// removes it (platform/named_segment.h). Where a descriptor can be passed on, SharedMemory is
// better: it has no name that could outlive a crash.
//
// Bytes may be used from any thread; the object belongs to one.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"
#include "platform/named_segment.h"
#include "platform/shared_memory_room.h"

namespace moebius::platform {

class NamedMemory {
 public:
  NamedMemory() = default;
  // Makes this process the owner of num_bytes > 0 (rounded up to whole pages) of zeros, all of them
  // paid for: nobody who writes them meets a full file system. kOutOfMemory before anything is made
  // if it cannot fit (CheckRoom); kUnavailable with the pid if a live owner has the name, or
  // somebody else's file. Huge pages are asked for (SharedHugePages).
  static Result<NamedMemory> Create(const std::string& name, size_t num_bytes,
                                    const std::string& folder = kSharedMemoryFolder);

  // What another owner, or this process, has published. kNotFound: no such name; kUnavailable: its
  // owner is dead or still filling it; kCorrupt: it is none of ours, or cut.
  static Result<NamedMemory> Open(const std::string& name,
                                  const std::string& folder = kSharedMemoryFolder);

  NamedMemory(NamedMemory&& other) noexcept;
  NamedMemory& operator=(NamedMemory&& other) noexcept;
  ~NamedMemory();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  // The owner's, until Publish.
  std::span<std::byte> writable() const;
  // From now on others may open it, and nobody may write.
  void Publish();

 private:
  NamedMemory(FileDescriptor file, std::string name, std::string folder, size_t size)
      : file_(std::move(file)), name_(std::move(name)), folder_(std::move(folder)), size_(size) {}
  Status Map(int protection);
  Status Reserve();
  bool is_owner() const { return file_.get() >= 0; }

  FileDescriptor file_;  // holds the lock; the owner's
  std::string name_;
  std::string folder_;
  std::byte* data_ = nullptr;
  size_t size_ = 0;  // without the last page
};

}  // namespace moebius::platform
