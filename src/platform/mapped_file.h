// A file mapped for reading: weights are read where they lie, without a copy. Owned by whoever
// opened it; reading is safe from any thread. The file must not shrink while it is mapped (the
// system would answer a read with SIGBUS).
#pragma once

#include <cstddef>
#include <string>

#include "base/result.h"

namespace moebius::platform {

class MappedFile {
 public:
  // Maps the whole of a regular file; no page is read yet. Errors name the path: kNotFound if it is
  // not there, kInvalidArgument if it is a directory or another thing that is no file, else
  // kUnavailable with the system's reason.
  static Result<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  const std::string& path() const { return path_; }
  const std::byte* data() const { return data_; }  // page-aligned; null if the file is empty
  size_t size() const { return size_; }            // bytes

  // Gives back the memory of [offset, offset + num_bytes), which lies within the file: call it when
  // the range has been packed elsewhere. Only pages that lie wholly inside are dropped; a later
  // read brings them back from the file.
  void DropPages(size_t offset, size_t num_bytes) const;

 private:
  MappedFile(std::string path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}

  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace moebius::platform
