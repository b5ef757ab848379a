// A file that a command fills at its end. It is opened at the start, so that a path that cannot be
// written is known before the work is done; what it held stays until there is something to write.
// One thread.
#pragma once

#include <cstdio>
#include <memory>
#include <string>

#include "base/result.h"

namespace moebius::app {

class OutputFile {
 public:
  // kUnavailable names the flag and the path.
  static Result<OutputFile> Open(const std::string& flag, const std::string& path);

  // Empties the file, for what is now written to it.
  std::FILE* Begin() const;
  const std::string& name() const { return name_; }  // "--flag: path"
  // Closes it. kUnavailable: not all of it could be written.
  Status Finish();

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  std::string name_;  // "--flag: path"
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace moebius::app
