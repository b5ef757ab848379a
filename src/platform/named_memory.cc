#include "platform/named_memory.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/math.h"

namespace moebius::platform {

Result<NamedMemory> NamedMemory::Create(const std::string& name, size_t num_bytes,
                                        const std::string& folder) {
  MOEBIUS_CHECK_GT(num_bytes, size_t{0});
  MOEBIUS_TRY(CheckSegmentName(name));
  constexpr size_t kMaxBytes = size_t{1} << 46;
  if (num_bytes > kMaxBytes) {
    return MakeError(ErrorCode::kOutOfMemory, "{}/{}: {} bytes are beyond any machine", folder,
                     name, num_bytes);
  }
  const size_t size = RoundUp(num_bytes, PageBytes());
  // First: what is left over may be what fills the memory.
  MOEBIUS_TRY(FreeSegmentName(name, folder));
  MOEBIUS_ASSIGN(const SharedMemoryRoom room, ReadSharedMemoryRoom(folder));
  MOEBIUS_TRY(CheckRoom(room, name, size + PageBytes()));
  MOEBIUS_ASSIGN(FileDescriptor file, MakeSegment(name, size, folder));
  NamedMemory memory(std::move(file), name, folder, size);
  MOEBIUS_TRY(memory.Map(PROT_READ | PROT_WRITE));
  MOEBIUS_TRY(memory.Reserve());
  return memory;
}

Status NamedMemory::Map(int protection) {
  const size_t whole = size_ + PageBytes();
  void* data = mmap(nullptr, whole, protection, MAP_SHARED, file_.get(), 0);
  if (data == MAP_FAILED) {
    return MakeError(ErrorCode::kOutOfMemory, "{}/{}: cannot map {} bytes: {}", folder_, name_,
                     whole, std::strerror(errno));
  }
  data_ = static_cast<std::byte*>(data);
  madvise(data_, whole, MADV_HUGEPAGE);
  return {};
}

Status NamedMemory::Reserve() {
  const size_t whole = size_ + PageBytes();
  // By pieces: a signal takes back what the running call has reserved.
  constexpr size_t kPiece = size_t{256} << 20;
  for (size_t begin = 0; begin < whole; begin += kPiece) {
    const size_t length = std::min(kPiece, whole - begin);
    // Advice holds for a mapping: only pages that come through it are huge. Whether they came is
    // what the second call says, in old kernels, too.
    madvise(data_ + begin, length, MADV_POPULATE_WRITE);
    int failure = EINTR;
    while (failure == EINTR) {
      failure = posix_fallocate(file_.get(), static_cast<off_t>(begin), static_cast<off_t>(length));
    }
    if (failure == 0) continue;
    // Others took what was free a moment ago, as a rule.
    const Result<SharedMemoryRoom> room = ReadSharedMemoryRoom(folder_);
    if (room) MOEBIUS_TRY(CheckRoom(*room, name_, whole - begin));
    return MakeError(ErrorCode::kOutOfMemory, "{}/{}: {} of {} bytes could be reserved: {}",
                     folder_, name_, begin, whole, std::strerror(failure));
  }
  return {};
}

Result<NamedMemory> NamedMemory::Open(const std::string& name, const std::string& folder) {
  MOEBIUS_TRY(CheckSegmentName(name));
  MOEBIUS_ASSIGN(FileDescriptor file, OpenSegment(name, folder));
  const SegmentInfo info = InspectSegment(name, file);
  if (info.state == SegmentState::kForeign) {
    return MakeError(ErrorCode::kCorrupt, "{}/{}: {} bytes without Moebius's mark at the end",
                     folder, name, info.num_bytes);
  }
  if (info.state == SegmentState::kLeftOver) {
    return MakeError(ErrorCode::kUnavailable, "{}/{}: its owner (pid {}) is dead", folder, name,
                     info.owner);
  }
  NamedMemory memory(std::move(file), name, folder, info.num_bytes - PageBytes());
  const Status mapped = memory.Map(PROT_READ);
  memory.file_ = FileDescriptor();  // this one is no owner
  MOEBIUS_TRY(mapped);
  const auto* end = reinterpret_cast<const SegmentEnd*>(memory.data_ + memory.size_);
  if (end->published.load(std::memory_order_acquire) == 0) {
    return MakeError(ErrorCode::kUnavailable, "{}/{}: its owner (pid {}) has not filled it yet",
                     folder, name, info.owner);
  }
  return memory;
}

std::span<std::byte> NamedMemory::writable() const {
  MOEBIUS_CHECK(is_owner());
  return {data_, size_};
}

void NamedMemory::Publish() {
  MOEBIUS_CHECK(is_owner());
  auto* end = reinterpret_cast<SegmentEnd*>(data_ + size_);
  end->published.store(1, std::memory_order_release);
  mprotect(data_, size_ + PageBytes(), PROT_READ);
}

NamedMemory::NamedMemory(NamedMemory&& other) noexcept
    : file_(std::move(other.file_)),
      name_(std::move(other.name_)),
      folder_(std::move(other.folder_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

NamedMemory& NamedMemory::operator=(NamedMemory&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(name_, other.name_);
  std::swap(folder_, other.folder_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

NamedMemory::~NamedMemory() {
  if (is_owner()) RemoveOwnSegment(file_, name_, folder_);
  if (data_ != nullptr) munmap(data_, size_ + PageBytes());
}

}  // namespace moebius::platform
