#include "text/jinja/attribute_path.h"

#include <algorithm>
#include <charconv>

#include "text/jinja/attributes.h"
#include "text/jinja/string_ops.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {

Result<AttributePath> AttributePath::Parse(const Value& attribute) {
  AttributePath path;
  if (attribute.IsNone()) return path;
  if (!attribute.IsString()) {
    path.parts_.push_back(attribute);
    return path;
  }
  for (std::string_view part : SplitText(attribute.AsString(), ".", -1, false)) {
    int64_t index = 0;
    const auto [stop, error] = std::from_chars(part.data(), part.data() + part.size(), index);
    const bool is_index = !part.empty() && part[0] != '-' && error == std::errc() &&
                          stop == part.data() + part.size();
    path.parts_.push_back(is_index ? Value::Int(index) : Value::String(std::string(part)));
  }
  return path;
}

Result<Value> AttributePath::Get(Interpreter& interpreter, Value item,
                                 const std::optional<Value>& fallback) const {
  for (const Value& part : parts_) {
    MOEBIUS_ASSIGN(item, GetItem(interpreter, item, part));
    if (item.IsUndefined() && fallback) item = *fallback;
  }
  return item;
}

Value FoldCase(const Value& value, bool case_sensitive) {
  if (case_sensitive || !value.IsString()) return value;
  return Value::String(ToLower(value.AsString()));
}

}  // namespace moebius::text::jinja
