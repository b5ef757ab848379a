#include "app/standard_output.h"

#include <cerrno>
#include <cstring>

namespace moebius::app {
namespace {

int first_errno = 0;  // of standard output

Status WriteError(const std::string& name, int error) {
  if (error == EPIPE) return {};
  return MakeError(ErrorCode::kUnavailable, "{}: {}", name, std::strerror(error));
}

}  // namespace

void FlushStandardOutput() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return;
  if (first_errno == 0) first_errno = errno == 0 ? EIO : errno;
}

Status CheckStandardOutput() {
  FlushStandardOutput();
  if (first_errno == 0) return {};
  return WriteError("standard output", first_errno);
}

Status WriteLine(std::FILE* file, std::string_view line, const std::string& name) {
  errno = 0;
  if (std::fwrite(line.data(), 1, line.size(), file) == line.size() &&
      std::fputc('\n', file) != EOF && std::fflush(file) == 0) {
    return {};
  }
  return WriteError(name, errno == 0 ? EIO : errno);
}

}  // namespace moebius::app
