#include "text/jinja/attributes.h"

#include <fmt/core.h>

#include <algorithm>
#include <span>
#include <utility>

#include "text/jinja/interpreter.h"
#include "text/jinja/loop.h"
#include "text/jinja/methods.h"
#include "text/jinja/objects.h"
#include "text/jinja/print.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

// "abc".upper, waiting for its call.
struct BoundMethod : CallableObject {
  BoundMethod(const Builtin& method, Value self)
      : CallableObject(std::string(method.name)), method(&method), self(std::move(self)) {
    depth = this->self.depth() + 1;
  }
  Result<Value> Call(Interpreter& interpreter, CallArgs args) override {
    return CallBuiltin(interpreter, *method, self, std::move(args));
  }

  const Builtin* method;
  Value self;
};

Value Bind(const Builtin& method, const Value& self) {
  return Value::FromObject(Kind::kCallable, std::make_shared<BoundMethod>(method, self));
}

// What Python's types have beyond our tables: existing but unsupported here, so that it is never
// taken for undefined.
constexpr std::string_view kStringRest[] = {"encode",       "expandtabs", "isidentifier",
                                            "maketrans",    "translate",  "removeprefix",
                                            "removesuffix", "format_map", "casefold"};
constexpr std::string_view kNumberRest[] = {
    "real",       "imag",       "numerator",        "denominator",
    "bit_length", "bit_count",  "as_integer_ratio", "conjugate",
    "to_bytes",   "from_bytes", "is_integer",       "hex",
    "fromhex"};
constexpr std::string_view kRangeRest[] = {"start", "stop", "step", "count", "index"};
constexpr std::string_view kIteratorRest[] = {"send",       "throw",        "close",
                                              "gi_running", "gi_yieldfrom", "gi_suspended"};
constexpr std::string_view kViewRest[] = {"mapping", "isdisjoint"};
constexpr std::string_view kDictRest[] = {"fromkeys"};
// What would change its object: the sandbox gives undefined.
constexpr std::string_view kListUnsafe[] = {"append", "clear", "pop",    "reverse",
                                            "insert", "sort",  "extend", "remove"};
constexpr std::string_view kDictUnsafe[] = {"clear", "pop", "popitem", "setdefault", "update"};

struct TypeAttributes {
  const Builtin* (*find)(std::string_view) = nullptr;
  std::span<const std::string_view> unsafe = {};
  std::span<const std::string_view> unsupported = {};
};

TypeAttributes AttributesOf(const Value& object) {
  switch (object.kind()) {
    case Kind::kString:
      return {FindStringMethod, {}, kStringRest};
    case Kind::kList:
      return {FindListMethod, kListUnsafe, {}};
    case Kind::kTuple:
      return {FindListMethod, {}, {}};
    case Kind::kDict:
      return {FindDictMethod, kDictUnsafe, kDictRest};
    case Kind::kCycler:
      return {FindCyclerMethod, {}, {}};
    case Kind::kLoop:
      return {FindLoopMethod, {}, {}};
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
      return {nullptr, {}, kNumberRest};
    case Kind::kRange:
      return {nullptr, {}, kRangeRest};
    case Kind::kIterator:
      return {nullptr, {}, kIteratorRest};
    case Kind::kDictView:
      return {nullptr, {}, kViewRest};
    default:
      return {};
  }
}

bool IsDunder(std::string_view name) {
  return name.size() > 4 && name.starts_with("__") && name.ends_with("__");
}

// An attribute that the object itself has; absent when there is none of this name.
Result<std::optional<Value>> OwnAttribute(const Value& object, const std::string& name) {
  if (object.kind() == Kind::kNamespace) {
    const Value* value =
        static_cast<const NamespaceObject*>(object.object())->attributes.Find(name);
    if (value != nullptr) return std::optional<Value>(*value);
  }
  if (object.kind() == Kind::kLoop) {
    MOEBIUS_ASSIGN(std::optional<Value> value,
                   static_cast<LoopObject*>(object.object())->Attribute(name));
    if (value) return value;
  }
  if (object.kind() == Kind::kCycler && name == "current") {
    const auto* cycler = static_cast<const CyclerObject*>(object.object());
    return std::optional<Value>(cycler->items[cycler->position]);
  }
  if (const auto* group =
          object.IsTuple() ? dynamic_cast<const GroupObject*>(object.object()) : nullptr) {
    if (name == "grouper") return std::optional<Value>(group->items[0]);
    if (name == "list") return std::optional<Value>(group->items[1]);
  }
  const TypeAttributes type = AttributesOf(object);
  const auto has = [&](std::span<const std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (has(type.unsafe) || IsDunder(name)) {
    return std::optional<Value>(Value::Undefined(fmt::format(
        "access to attribute '{}' of '{}' object is unsafe.", name, object.TypeName())));
  }
  if (const Builtin* method = type.find == nullptr ? nullptr : type.find(name)) {
    // A tuple has count and index alone.
    if (!object.IsTuple() || name != "copy") return std::optional<Value>(Bind(*method, object));
  }
  if (has(type.unsupported)) {
    return MakeError(ErrorCode::kUnsupported, "'{}' of a {} is not supported", name,
                     object.TypeName());
  }
  if (object.kind() == Kind::kCallable &&
      (name == "name" || name == "arguments" || name == "catch_kwargs" || name == "catch_varargs" ||
       name == "caller")) {
    return MakeError(ErrorCode::kUnsupported, "'{}' of a macro or function is not supported", name);
  }
  return std::optional<Value>();
}

std::string TypeRepr(const Value& object) {
  return object.IsNone() ? "None" : fmt::format("{} object", object.TypeName());
}

// object[key] without the detour over attributes.
std::optional<Value> Element(const Value& object, const Value& key) {
  if (object.IsDict()) {
    if (!IsHashable(key)) return std::nullopt;
    const Value* value = object.AsDict().Find(key);
    return value == nullptr ? std::nullopt : std::optional<Value>(*value);
  }
  if (!key.IsIntegral()) return std::nullopt;
  int64_t idx = key.AsInt();
  const auto resolve = [&idx](int64_t length) {
    if (idx < 0 && idx >= -length) idx += length;
    return idx >= 0 && idx < length;
  };
  switch (object.kind()) {
    case Kind::kList:
    case Kind::kTuple:
      if (!resolve(static_cast<int64_t>(object.Items().size()))) return std::nullopt;
      return object.Items()[static_cast<size_t>(idx)];
    case Kind::kString: {
      const std::string& text = object.AsString();
      if (!resolve(static_cast<int64_t>(NumChars(text)))) return std::nullopt;
      const size_t at = ByteOffset(text, static_cast<size_t>(idx));
      return Value::String(text.substr(at, CharSize(text, at)), object.IsMarkup());
    }
    case Kind::kRange: {
      const auto* range = static_cast<const RangeObject*>(object.object());
      if (!resolve(range->length)) return std::nullopt;
      return range->At(idx);
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

Value MissingElement(const Value& object, const Value& key) {
  if (key.IsString()) {
    return Value::Undefined(
        fmt::format("'{}' has no attribute {}", TypeRepr(object), StringRepr(key.AsString())));
  }
  Budget budget;
  const Result<std::string> name = ToRepr(key, budget);
  return Value::Undefined(
      fmt::format("{} has no element {}", TypeRepr(object), name ? *name : key.TypeName()));
}

Result<Value> GetAttribute(Interpreter&, const Value& object, const std::string& name) {
  if (object.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", object.UndefinedMessage());
  // A dict's own methods win over its keys: {"items": 1}.items is the method.
  MOEBIUS_ASSIGN(std::optional<Value> attribute, OwnAttribute(object, name));
  if (attribute) return *attribute;
  if (object.IsDict()) {
    if (const Value* value = object.AsDict().Find(name)) return *value;
  }
  return MissingElement(object, Value::String(name));
}

Result<Value> GetItem(Interpreter& interpreter, const Value& object, const Value& key) {
  if (object.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", object.UndefinedMessage());
  if (object.IsString() || (key.IsString() && key.AsString().size() > 64)) {
    const std::string& text = object.IsString() ? object.AsString() : key.AsString();
    MOEBIUS_TRY(interpreter.budget().Step(static_cast<int64_t>(text.size() / 16)));
  }
  if (std::optional<Value> element = Element(object, key)) return *element;
  if (key.IsString()) {
    MOEBIUS_ASSIGN(std::optional<Value> attribute, OwnAttribute(object, key.AsString()));
    if (attribute) return *attribute;
  }
  return MissingElement(object, key);
}

}  // namespace moebius::text::jinja
