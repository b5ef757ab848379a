// A Jinja template: parse once, render often. Immutable; any thread may render, and several at
// once.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

class Template {
 public:
  // kInvalidArgument: no template; kUnsupported: uses what this implementation lacks. The message
  // quotes it and says the line.
  static Result<std::shared_ptr<const Template>> Parse(std::string source);

  // The text that jinja2 makes of it, configured as transformers does for chat templates. Errors:
  // those of the template (raise_exception, undefined values in operations, wrong types, ...), and
  // RenderOptions::limits; "line N: " first.
  Result<std::string> Render(const Dict& variables, const RenderOptions& options = {}) const;

  const std::string& source() const { return source_; }

 private:
  Template() = default;

  std::string source_;
  ParsedTemplate parsed_;
};

}  // namespace moebius::text::jinja
