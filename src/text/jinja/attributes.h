// object.name and object[key], as jinja's immutable sandbox resolves them. Plain functions.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

class Interpreter;

// The attribute or method, else the element of that name, else undefined. kUnsupported: a method
// that Python has and this implementation lacks.
Result<Value> GetAttribute(Interpreter& interpreter, const Value& object, const std::string& name);

// The element, else (for a string) the attribute of that name, else undefined.
Result<Value> GetItem(Interpreter& interpreter, const Value& object, const Value& key);

// Undefined, for an element or attribute that `object` lacks.
Value MissingElement(const Value& object, const Value& key);

}  // namespace moebius::text::jinja
