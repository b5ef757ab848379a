// Turns a template's text into its tree, with jinja2's grammar: the default one plus break,
// continue and the
// {% generation %} blocks of transformers. Pure functions.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/jinja/ast.h"

namespace moebius::text::jinja {

// kInvalidArgument: no template. kUnsupported: a construct of jinja2 that this implementation
// lacks, quoted. Both begin with "line N: ".
Result<ParsedTemplate> Parse(std::string_view source);

}  // namespace moebius::text::jinja
