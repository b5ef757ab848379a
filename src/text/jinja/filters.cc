#include "text/jinja/filters.h"

#include <fmt/core.h>

namespace moebius::text::jinja {

const Builtin* FindFilter(std::string_view name) {
  for (const auto& table : {TextFilters(), SequenceFilters(), SelectionFilters(), ValueFilters()}) {
    if (const Builtin* filter = FindBuiltin(table, name)) return filter;
  }
  return nullptr;
}

Error UnknownFilter(std::string_view name) {
  for (std::string_view known : {"attr", "filesizeformat", "pprint", "random", "striptags",
                                 "urlize", "wordwrap", "xmlattr"}) {
    if (name == known)
      return Error(ErrorCode::kUnsupported, fmt::format("filter '{}' is not supported", name));
  }
  return Error(ErrorCode::kInvalidArgument, fmt::format("no filter named '{}'", name));
}

}  // namespace moebius::text::jinja
