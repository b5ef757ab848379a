#include "platform/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace moebius::platform {
namespace {

// A size that changed under a mapping would be a bus error in whoever reads there.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

}  // namespace

Result<SharedMemory> SharedMemory::Create(const std::string& name, size_t num_bytes) {
  MOEBIUS_CHECK_GT(num_bytes, size_t{0});
  const auto failed = [&](const char* what) {
    return MakeError(ErrorCode::kOutOfMemory, "cannot {} {} bytes of shared memory: {}", what,
                     num_bytes, std::strerror(errno));
  };
  constexpr size_t kMaxBytes = size_t{1} << 46;
  errno = ENOMEM;
  if (num_bytes > kMaxBytes) return failed("reserve");
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t size = (num_bytes + page - 1) / page * page;
  const int descriptor = memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (descriptor < 0) return failed("make");
  if (ftruncate(descriptor, static_cast<off_t>(size)) != 0 ||
      fcntl(descriptor, F_ADD_SEALS, kSeals) != 0) {
    const auto error = failed("size");
    close(descriptor);
    return error;
  }
  return Map(descriptor, size);
}

Result<SharedMemory> SharedMemory::Open(int descriptor) {
  const int seals = fcntl(descriptor, F_GET_SEALS);
  struct stat status{};
  if (seals < 0 || (seals & kSeals) != kSeals || fstat(descriptor, &status) != 0 ||
      status.st_size <= 0) {
    if (descriptor >= 0) close(descriptor);
    return MakeError(ErrorCode::kCorrupt,
                     "descriptor {} is not shared memory of a sealed size (seals {})", descriptor,
                     seals);
  }
  return Map(descriptor, static_cast<size_t>(status.st_size));
}

Result<SharedMemory> SharedMemory::Map(int descriptor, size_t size) {
  void* data = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (data == MAP_FAILED) {
    const int reason = errno;
    close(descriptor);
    return MakeError(ErrorCode::kOutOfMemory, "cannot map {} bytes of shared memory: {}", size,
                     std::strerror(reason));
  }
  return SharedMemory(descriptor, static_cast<std::byte*>(data), size);
}

SharedMemory::SharedMemory(SharedMemory&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

SharedMemory& SharedMemory::operator=(SharedMemory&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) munmap(data_, size_);
  if (descriptor_ >= 0) close(descriptor_);
}

}  // namespace moebius::platform
