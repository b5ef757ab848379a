#include "platform/file_descriptor.h"

#include <unistd.h>

namespace moebius::platform {

FileDescriptor::~FileDescriptor() {
  if (value_ >= 0) close(value_);
}

}  // namespace moebius::platform
