// The operators of expressions, with Python's meaning. Plain functions.
#pragma once

#include <string>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/budget.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

class Interpreter;

// a op b. kUnsupported: integers beyond 64 bits.
Result<Value> Arithmetic(Interpreter& interpreter, BinaryOp op, const Value& a, const Value& b);
Result<Value> Negate(const Value& value);
Result<Value> Plus(const Value& value);

// value[start:stop:step]; None stands for an absent part.
Result<Value> Slice(const Value& value, const Value& start, const Value& stop, const Value& step,
                    Budget& budget);

// Text for Markup: &, <, >, " and ' as entities.
std::string EscapeHtml(std::string_view text);

}  // namespace moebius::text::jinja
