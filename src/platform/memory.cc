#include "platform/memory.h"

#include <numaif.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/log.h"
#include "base/math.h"

namespace moebius::platform {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Anonymous memory at a multiple of `alignment`: maps more and gives the ends back.
std::byte* MapAligned(size_t size, size_t alignment) {
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t slack = alignment > page ? alignment : 0;
  void* mapped =
      mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* start = static_cast<std::byte*>(mapped);
  if (slack == 0) return start;
  const size_t address = reinterpret_cast<size_t>(start);
  const size_t head = RoundUp(address, alignment) - address;
  if (head > 0) munmap(start, head);
  if (slack > head) munmap(start + head + size, slack - head);
  return start + head;
}

void BindToNode(std::byte* data, size_t size, int node) {
  constexpr int kBitsPerWord = 8 * sizeof(unsigned long);
  constexpr int kMaxNodes = 1024;
  if (node >= kMaxNodes) {
    LogWarning("NUMA node {} is beyond the {} that can be bound; the memory stays unbound", node,
               kMaxNodes);
    return;
  }
  unsigned long mask[kMaxNodes / kBitsPerWord] = {};
  mask[node / kBitsPerWord] = 1UL << (node % kBitsPerWord);
  // The kernel reads one bit less than it is told.
  if (mbind(data, size, MPOL_BIND, mask, kMaxNodes + 1, 0) != 0) {
    LogWarning("cannot bind {} MiB to NUMA node {} ({}); the pages lie where they are first used",
               size >> 20, node, std::strerror(errno));
  }
}

}  // namespace

Result<Region> Region::Allocate(size_t num_bytes, const RegionOptions& options) {
  MOEBIUS_CHECK_GT(num_bytes, size_t{0});
  constexpr size_t kMaxBytes = size_t{1}
                               << 46;  // beyond any address space, so that rounding cannot overflow
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const size_t size = RoundUp(num_bytes, page);
  std::byte* data =
      num_bytes > kMaxBytes ? nullptr : MapAligned(size, size >= kHugePage ? kHugePage : page);
  if (data == nullptr) {
    return MakeError(ErrorCode::kOutOfMemory, "cannot reserve {} bytes ({:.1f} GiB) of memory",
                     num_bytes, static_cast<double>(num_bytes) / (1 << 30));
  }
  if (options.huge_pages && size >= kHugePage && madvise(data, size, MADV_HUGEPAGE) != 0) {
    LogDebug("no transparent huge pages for {} MiB: {}", size >> 20, std::strerror(errno));
  }
  if (options.numa_node >= 0) BindToNode(data, size, options.numa_node);
  return Region(data, size);
}

Region::Region(Region&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Region& Region::operator=(Region&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

Region::~Region() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace moebius::platform
