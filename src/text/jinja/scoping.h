// jinja2 compiles a template to Python functions, and with that decides per scope what a name means
// before any assignment ran. One consequence shows: where a scope's first mention of a name assigns
// it, and no scope around mentions it, the name is undefined there until then, even if the caller
// passed a variable of that name:
//   {% for i in l %}{{ n }}{% endfor %}{% set n = 1 %}    prints nothing for n
// This pass finds those names. Pure function.
#pragma once

#include "text/jinja/ast.h"

namespace moebius::text::jinja {

// Fills in `hidden` of the template and `hidden`, `orelse_hidden` of its statements.
void ResolveScopes(ParsedTemplate& parsed);

}  // namespace moebius::text::jinja
