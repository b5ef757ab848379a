// An open file of this process, closed by its owner's end. Any thread.
#pragma once

#include <utility>

namespace moebius::platform {

class FileDescriptor {
 public:
  explicit FileDescriptor(int value = -1) : value_(value) {}  // negative: none
  FileDescriptor(FileDescriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    std::swap(value_, other.value_);
    return *this;
  }
  ~FileDescriptor();
  int get() const { return value_; }

 private:
  int value_;
};

}  // namespace moebius::platform
