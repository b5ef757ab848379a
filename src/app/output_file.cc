#include "app/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace moebius::app {

Result<OutputFile> OutputFile::Open(const std::string& flag, const std::string& path) {
  OutputFile output;
  output.name_ = flag + ": " + path;
  output.file_.reset(std::fopen(path.c_str(), "ae"));
  if (output.file_ == nullptr) {
    return MakeError(ErrorCode::kUnavailable, "{} cannot be written: {}", output.name_,
                     std::strerror(errno));
  }
  return output;
}

std::FILE* OutputFile::Begin() const {
  // A pipe or a terminal has nothing to cut off.
  [[maybe_unused]] const int ignored = ftruncate(fileno(file_.get()), 0);
  return file_.get();
}

Status OutputFile::Finish() {
  const bool had_error = std::ferror(file_.get()) != 0;
  errno = 0;
  if (std::fclose(file_.release()) == 0 && !had_error) return {};
  return MakeError(ErrorCode::kUnavailable, "{} could not be written to its end: {}", name_,
                   std::strerror(errno == 0 ? EIO : errno));
}

}  // namespace moebius::app
