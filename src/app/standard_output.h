// Standard output, where a failed write must not pass for success. What the C library could not
// write is gone with its reason, so whoever flushes does it here. One thread at a time.
#pragma once

#include <cstdio>
#include <string>
#include <string_view>

#include "base/result.h"

namespace moebius::app {

// Writes what is buffered; remembers the reason of the first failure.
void FlushStandardOutput();

// Flushes, and whether all that was ever written arrived: kUnavailable with the reason. A reader
// that left (EPIPE) is no error.
Status CheckStandardOutput();

// `line`, a newline, and a flush. kUnavailable: `name` and why it did not arrive; not for a reader
// that left.
Status WriteLine(std::FILE* file, std::string_view line, const std::string& name);

}  // namespace moebius::app
