// The special variable `loop`, and the source of a loop's elements behind it.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/builtin.h"
#include "text/jinja/iterate.h"
#include "text/jinja/objects.h"

namespace moebius::text::jinja {

// Elements are taken one at a time, and a filtering loop ("for x in xs if test") tests each only
// then: the test may look at what the body changed. `loop.last`, `loop.nextitem` and `loop.length`
// look ahead.
class LoopSource {
 public:
  virtual ~LoopSource() = default;
  virtual Result<std::optional<Value>> Next() = 0;
  // How many are left, when that is known without taking them.
  virtual std::optional<int64_t> Remaining() const = 0;
};

struct LoopObject : Object {
  explicit LoopObject(LoopSource& source) : source(&source) {}

  // Moves to the next element; absent at the end.
  Result<std::optional<Value>> Advance();
  Result<std::optional<Value>> PeekNext();
  Result<int64_t> Length();
  // `loop.name`; absent when it has no such attribute.
  Result<std::optional<Value>> Attribute(std::string_view name);
  // The loop is over: what it looked at is let go, and it can look no further.
  void Finish();

  LoopSource* source;  // null when over
  int64_t index0 = -1;
  int64_t depth0 = 0;
  std::optional<Value> previous;
  std::optional<Value> current;
  std::vector<Value> ahead;  // elements looked at but not yet reached, last first
  std::optional<int64_t> length;
  std::optional<Value> last_changed;
};

// loop.cycle and loop.changed; null for another name.
const Builtin* FindLoopMethod(std::string_view name);

}  // namespace moebius::text::jinja
