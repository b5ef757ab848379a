// Counts nested evaluations while it lives, so that no template overflows the stack.
#pragma once

#include "text/jinja/interpreter.h"

namespace moebius::text::jinja {

// The name under which a scope holds the text of a {% filter %} or {% set %} block for its
// innermost filter; no variable of the template has this id.
inline constexpr NameId kBlockText = 0xFFFFFFFF;

class DepthCounter {
 public:
  explicit DepthCounter(Interpreter& interpreter) : interpreter_(interpreter) {
    ++interpreter_.depth_;
  }
  ~DepthCounter() { --interpreter_.depth_; }
  DepthCounter(const DepthCounter&) = delete;
  DepthCounter& operator=(const DepthCounter&) = delete;
  Status Check() const {
    if (interpreter_.depth_ <= interpreter_.options_.limits.depth) return {};
    return MakeError(ErrorCode::kInvalidArgument, "evaluation nests deeper than {} levels",
                     interpreter_.options_.limits.depth);
  }

 private:
  Interpreter& interpreter_;
};

}  // namespace moebius::text::jinja
