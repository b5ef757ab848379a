// Python's format specification ("08.3f", ">10", "+,d"): what str.format, the filter `format` and %
// share.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

struct FormatSpec {
  std::string fill = " ";
  char align = '\0';  // '<', '>', '^', '=' (padding behind the sign), or unset
  char sign = '-';
  bool alternate = false;
  int64_t width = 0;
  char grouping = '\0';
  std::optional<int> precision;
  char type = '\0';

  void PadWithZeros() {
    fill.assign(1, '0');
    align = '=';
  }
};

// kUnsupported: type 'n', and precisions beyond any use.
Result<FormatSpec> ParseFormatSpec(std::string_view text);

// format(value, spec) for str, int, bool and float.
Result<std::string> FormatNumber(const Value& value, const FormatSpec& spec, Budget& budget);
Result<std::string> FormatText(std::string_view text, const FormatSpec& spec, Budget& budget);

}  // namespace moebius::text::jinja
