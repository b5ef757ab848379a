// Filters that run another filter or test over a sequence: map, select, reject, selectattr,
// rejectattr.
#include <optional>

#include "text/jinja/attribute_path.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"

namespace moebius::text::jinja {
namespace {

Result<Value> MapAttribute(Interpreter& interpreter, const Value& subject, const CallArgs& given) {
  std::optional<Value> fallback;
  Value attribute;
  for (const auto& [name, value] : given.keywords) {
    if (name == "attribute") {
      attribute = value;
    } else if (name == "default") {
      if (!value.IsNone()) fallback = value;
    } else {
      return MakeError(ErrorCode::kInvalidArgument, "map: unexpected keyword argument '{}'", name);
    }
  }
  MOEBIUS_ASSIGN(const AttributePath path, AttributePath::Parse(attribute));
  MOEBIUS_ASSIGN(std::vector<Value> items, ToItems(subject, interpreter.budget()));
  for (Value& item : items) {
    MOEBIUS_ASSIGN(item, path.Get(interpreter, item, fallback));
  }
  return MakeIterator(std::move(items));
}

Result<Value> Map(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  if (!subject.Truthy()) return MakeIterator({});
  CallArgs rest = args.rest();
  bool has_attribute = false;
  for (const auto& [name, value] : rest.keywords)
    has_attribute = has_attribute || name == "attribute";
  if (rest.positional.empty() && has_attribute) return MapAttribute(interpreter, subject, rest);
  if (rest.positional.empty() || !rest.positional[0].IsString()) {
    return MakeError(ErrorCode::kInvalidArgument, "map requires a filter's name or attribute=");
  }
  const std::string name = rest.positional[0].AsString();
  rest.positional.erase(rest.positional.begin());
  MOEBIUS_ASSIGN(std::vector<Value> items, ToItems(subject, interpreter.budget()));
  for (Value& item : items) {
    MOEBIUS_ASSIGN(item, interpreter.ApplyFilter(name, item, rest));
  }
  return MakeIterator(std::move(items));
}

template <bool kKeep, bool kByAttribute>
Result<Value> Select(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  if (!subject.Truthy()) return MakeIterator({});
  CallArgs rest = args.rest();
  AttributePath path;
  if (kByAttribute) {
    if (rest.positional.empty()) {
      return MakeError(ErrorCode::kInvalidArgument, "{}: missing parameter for attribute name",
                       args.function());
    }
    MOEBIUS_ASSIGN(path, AttributePath::Parse(rest.positional[0]));
    rest.positional.erase(rest.positional.begin());
  }
  std::optional<std::string> test;
  if (!rest.positional.empty()) {
    if (!rest.positional[0].IsString()) {
      return MakeError(ErrorCode::kInvalidArgument, "{}: needs the name of a test",
                       args.function());
    }
    test = rest.positional[0].AsString();
    rest.positional.erase(rest.positional.begin());
  }
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, interpreter.budget()));
  std::vector<Value> kept;
  for (const Value& item : items) {
    MOEBIUS_ASSIGN(const Value looked_at, path.Get(interpreter, item));
    bool passes = looked_at.Truthy();
    if (test) {
      MOEBIUS_ASSIGN(passes, interpreter.ApplyTest(*test, looked_at, rest));
    }
    if (passes == kKeep) kept.push_back(item);
  }
  return MakeIterator(std::move(kept));
}

constexpr Builtin kSelectionFilters[] = {
    {"map", "*", 0, Map},
    {"reject", "*", 0, Select<false, false>},
    {"rejectattr", "*", 0, Select<false, true>},
    {"select", "*", 0, Select<true, false>},
    {"selectattr", "*", 0, Select<true, true>},
};

}  // namespace

std::span<const Builtin> SelectionFilters() { return kSelectionFilters; }

}  // namespace moebius::text::jinja
