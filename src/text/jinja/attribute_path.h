// The `attribute` parameter of filters such as map and sort: "a.b.0", looked up in one item after
// another.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "text/jinja/builtin.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

class AttributePath {
 public:
  // `attribute`: a str with dots, an int, or None for the item itself.
  static Result<AttributePath> Parse(const Value& attribute);

  // The value at the end of the path. `fallback` takes the place of every undefined on the way.
  Result<Value> Get(Interpreter& interpreter, Value item,
                    const std::optional<Value>& fallback = {}) const;

 private:
  std::vector<Value> parts_;
};

// How filters compare: text without regard to case, unless told otherwise.
Value FoldCase(const Value& value, bool case_sensitive);

}  // namespace moebius::text::jinja
