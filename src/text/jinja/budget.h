// What one rendering may spend. A template comes with the checkpoint and is not trusted: whatever
// it does, rendering ends within these bounds, with an error that names the bound. One rendering
// owns one Budget; not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"

namespace moebius::text::jinja {

struct Limits {
  int64_t steps = 10'000'000;        // nodes evaluated, elements visited
  int64_t bytes = int64_t{1} << 28;  // made by operations, in total; a bound on memory too
  int64_t range = 100'000;           // length of range(), as in jinja's sandbox
  int depth = 1000;                  // nested evaluations: expressions, statements, macro calls
  int value_depth = 200;             // containers within containers
};

class Budget {
 public:
  Budget() = default;
  explicit Budget(const Limits& limits) : limits_(limits) {}

  const Limits& limits() const { return limits_; }

  // Call before the work, with its size.
  Status Step(int64_t count = 1) {
    steps_ += count;
    if (steps_ > limits_.steps) [[unlikely]] {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the template takes more than {} steps: endless, or far too large",
                       limits_.steps);
    }
    return {};
  }
  Status Bytes(int64_t count) {
    // Compared before adding: a count near 2^63 must not wrap.
    if (count > limits_.bytes - bytes_) [[unlikely]] {
      return MakeError(ErrorCode::kInvalidArgument,
                       "the template makes more than {} bytes of values", limits_.bytes);
    }
    bytes_ += count;
    return Step(count / 64);
  }

 private:
  Limits limits_;
  int64_t steps_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace moebius::text::jinja
