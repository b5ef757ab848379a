// The functions that every template sees: range, dict, namespace, cycler, joiner and transformers'
// raise_exception and strftime_now. Any thread.
#pragma once

#include <optional>
#include <string_view>

#include "text/jinja/value.h"

namespace moebius::text::jinja {

std::optional<Value> FindGlobal(std::string_view name);

}  // namespace moebius::text::jinja
