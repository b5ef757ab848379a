// Walking over whatever Python would iterate: str by characters, dict by keys, ... One thread.
#pragma once

#include <optional>
#include <vector>

#include "base/result.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

// iter(x): one element at a time; iterators remember what was taken.
class ValueCursor {
 public:
  // Refused: values that are not iterable. Undefined is empty.
  static Result<ValueCursor> Over(const Value& iterable, Budget& budget);

  // Absent at the end.
  std::optional<Value> Next();
  // How many are left.
  size_t Remaining() const;

 private:
  Value source_;              // list, tuple, range or iterator, walked in place
  std::vector<Value> items_;  // what another kind was expanded into
  size_t next_ = 0;
};

bool IsIterable(const Value& value);

// list(x)
Result<std::vector<Value>> ToItems(const Value& iterable, Budget& budget);

// len(x). Refused: values without a length (numbers, iterators, ...).
Result<int64_t> Length(const Value& value);

}  // namespace moebius::text::jinja
