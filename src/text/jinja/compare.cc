#include "text/jinja/compare.h"

#include <algorithm>
#include <cmath>

#include "text/jinja/iterate.h"
#include "text/jinja/objects.h"
#include "text/jinja/string_ops.h"

namespace moebius::text::jinja {
namespace {

// Exact for every mix of int64 and double: long double has 64 bits of mantissa.
static_assert(sizeof(long double) > 8);
int CompareNumbers(const Value& a, const Value& b) {
  const auto widen = [](const Value& v) -> long double {
    return v.IsFloat() ? static_cast<long double>(v.AsFloat())
                       : static_cast<long double>(v.AsInt());
  };
  const long double x = widen(a);
  const long double y = widen(b);
  if (std::isnan(x) || std::isnan(y)) return kUnordered;
  return x < y ? -1 : x > y ? 1 : 0;
}

Result<bool> EqualItems(const std::vector<Value>& a, const std::vector<Value>& b, Budget& budget) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].Same(b[i])) continue;
    MOEBIUS_ASSIGN(const bool equal, Equal(a[i], b[i], budget));
    if (!equal) return false;
  }
  return true;
}

Result<bool> EqualDicts(const Dict& a, const Dict& b, Budget& budget) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a) {
    const Value* other = b.Find(key);
    if (other == nullptr) return false;
    if (value.Same(*other)) continue;
    MOEBIUS_ASSIGN(const bool equal, Equal(value, *other, budget));
    if (!equal) return false;
  }
  return true;
}

bool EqualRanges(const RangeObject& a, const RangeObject& b) {
  if (a.length != b.length) return false;
  if (a.length == 0) return true;
  return a.start == b.start && (a.length == 1 || a.step == b.step);
}

Result<bool> HasKey(const Dict& dict, const Value& key) {
  if (!IsHashable(key))
    return MakeError(ErrorCode::kInvalidArgument, "unhashable type: '{}'", key.TypeName());
  return dict.Find(key) != nullptr;
}

Result<int> CompareItems(const Value& a, const Value& b, Budget& budget) {
  const auto& x = a.Items();
  const auto& y = b.Items();
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
    if (x[i].Same(y[i])) continue;
    MOEBIUS_ASSIGN(const bool equal, Equal(x[i], y[i], budget));
    if (!equal) return Compare(x[i], y[i], budget);
  }
  return x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0;
}

}  // namespace

Result<bool> Equal(const Value& a, const Value& b, Budget& budget) {
  MOEBIUS_TRY(budget.Step());
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b) == 0;
  if (a.IsString() && b.IsString()) {
    MOEBIUS_TRY(budget.Step(static_cast<int64_t>(a.AsString().size() / 64)));
    return a.AsString() == b.AsString();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kUndefined:
    case Kind::kNone:
      return true;
    case Kind::kList:
    case Kind::kTuple:
      return EqualItems(a.Items(), b.Items(), budget);
    case Kind::kDict:
      return EqualDicts(a.AsDict(), b.AsDict(), budget);
    case Kind::kRange:
      return EqualRanges(*static_cast<RangeObject*>(a.object()),
                         *static_cast<RangeObject*>(b.object()));
    case Kind::kDictView: {
      const auto* x = static_cast<const DictViewObject*>(a.object());
      const auto* y = static_cast<const DictViewObject*>(b.object());
      if (x == y) return true;
      if (x->part == DictPart::kValues || y->part == DictPart::kValues) return false;
      return MakeError(ErrorCode::kUnsupported, "comparing {} with {} is not supported",
                       a.TypeName(), b.TypeName());
    }
    default:
      return a.Same(b);
  }
}

Result<int> Compare(const Value& a, const Value& b, Budget& budget) {
  MOEBIUS_TRY(budget.Step());
  for (const Value* value : {&a, &b}) {
    if (value->IsUndefined())
      return MakeError(ErrorCode::kInvalidArgument, "{}", value->UndefinedMessage());
  }
  if (a.IsNumber() && b.IsNumber()) return CompareNumbers(a, b);
  if (a.IsString() && b.IsString()) {
    // UTF-8 orders like the code points it encodes.
    const int order = a.AsString().compare(b.AsString());
    return order < 0 ? -1 : order > 0 ? 1 : 0;
  }
  if ((a.IsList() && b.IsList()) || (a.IsTuple() && b.IsTuple())) return CompareItems(a, b, budget);
  return MakeError(ErrorCode::kInvalidArgument, "'{}' and '{}' have no order ('<', '>')",
                   a.TypeName(), b.TypeName());
}

Result<bool> Contains(const Value& container, const Value& item, Budget& budget) {
  switch (container.kind()) {
    case Kind::kString:
      if (!item.IsString()) {
        return MakeError(ErrorCode::kInvalidArgument,
                         "'in <string>' requires string as left operand, not {}", item.TypeName());
      }
      MOEBIUS_TRY(ChargeSearch(container.AsString(), item.AsString(), budget));
      return container.AsString().find(item.AsString()) != std::string::npos;
    case Kind::kDict:
      return HasKey(container.AsDict(), item);
    case Kind::kDictView: {
      const auto& view = *static_cast<const DictViewObject*>(container.object());
      if (view.part == DictPart::kKeys) return HasKey(view.dict.AsDict(), item);
      break;
    }
    case Kind::kRange: {
      const auto* range = static_cast<const RangeObject*>(container.object());
      if (!item.IsNumber() || range->length == 0) return false;
      const double number = item.AsFloat();
      if (item.IsFloat() && (number != std::floor(number) || std::fabs(number) >= 0x1p63))
        return false;
      const int64_t wanted = item.IsFloat() ? static_cast<int64_t>(number) : item.AsInt();
      const int64_t last = range->start + (range->length - 1) * range->step;
      if (wanted < std::min(range->start, last) || wanted > std::max(range->start, last))
        return false;
      return (wanted - range->start) % range->step == 0;
    }
    default:
      break;
  }
  MOEBIUS_ASSIGN(ValueCursor cursor, ValueCursor::Over(container, budget));
  while (true) {
    const std::optional<Value> element = cursor.Next();
    if (!element) return false;
    if (element->Same(item)) return true;
    MOEBIUS_ASSIGN(const bool equal, Equal(*element, item, budget));
    if (equal) return true;
  }
}

bool KeyEqual(const Value& a, const Value& b) {
  if (a.IsString() && b.IsString()) return a.AsString() == b.AsString();
  if (a.IsNumber() && b.IsNumber()) return a.Same(b) || CompareNumbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Kind::kTuple:
      return std::equal(a.Items().begin(), a.Items().end(), b.Items().begin(), b.Items().end(),
                        KeyEqual);
    case Kind::kUndefined:
      return true;
    case Kind::kRange:
      return EqualRanges(*static_cast<RangeObject*>(a.object()),
                         *static_cast<RangeObject*>(b.object()));
    default:
      return a.Same(b);
  }
}

}  // namespace moebius::text::jinja
