// JSON text to values and back. Plain functions, any thread.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

inline constexpr int kMaxJsonDepth = 64;

// Objects keep their order (a repeated key keeps its first place and its last value, as in Python).
// Refused: invalid JSON or UTF-8, nesting beyond kMaxJsonDepth, integers beyond 64 bits. `what`
// names the text in the error.
Result<Value> ParseJson(std::string_view text, std::string_view what = "JSON");

// How json.dumps writes. Defaults are those of the `tojson` filter of chat templates.
struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  bool pretty = false;  // one element a line, `indent` before it once a level
  std::string indent;
  std::string item_separator = ", ";
  std::string key_separator = ": ";
};

// json.dumps(value). Refused: values that JSON has no word for (undefined, range, ...).
Result<std::string> DumpJson(const Value& value, const JsonStyle& style, Budget& budget);
// The same in the default style and with a budget of its own.
Result<std::string> DumpJson(const Value& value);

}  // namespace moebius::text::jinja
