// A bump allocator over one region: named reservations at start-up, or a workspace that a step
// resets. Not thread-safe: one owner. Allocation is 64-byte aligned; running out is a broken
// invariant (the memory plan sized it).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "tensor/view.h"

namespace moebius {

class Arena {
 public:
  static constexpr size_t kAlignment = 64;

  Arena() = default;
  Arena(void* base, size_t bytes) : base_(static_cast<std::byte*>(base)), size_(bytes) {}

  void* Alloc(size_t bytes) {
    const size_t begin = (used_ + kAlignment - 1) / kAlignment * kAlignment;
    MOEBIUS_CHECK_LE(begin + bytes, size_);
    used_ = begin + bytes;
    if (used_ > peak_) peak_ = used_;
    return base_ + begin;
  }
  template <typename T>
  T* Alloc(int64_t count) {
    return static_cast<T*>(Alloc(static_cast<size_t>(count) * sizeof(T)));
  }
  Mat AllocMat(DType dtype, int64_t rows, int64_t cols) {
    return Mat(Alloc(static_cast<size_t>(rows * cols) * SizeOf(dtype)), dtype, rows, cols);
  }

  // Everything allocated after Mark() is given back by Release(mark).
  size_t Mark() const { return used_; }
  void Release(size_t mark) { used_ = mark; }

  size_t size() const { return size_; }
  size_t used() const { return used_; }
  size_t peak() const { return peak_; }

 private:
  std::byte* base_ = nullptr;
  size_t size_ = 0;
  size_t used_ = 0;
  size_t peak_ = 0;
};

// Gives back on leaving a scope what was allocated inside it.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.Mark()) {}
  ~ArenaScope() { arena_.Release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  size_t mark_;
};

}  // namespace moebius
