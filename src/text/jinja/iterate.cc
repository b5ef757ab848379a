#include "text/jinja/iterate.h"

#include <utility>

#include "text/jinja/objects.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

std::vector<Value> ViewItems(const DictViewObject& view) {
  const Dict& dict = view.dict.AsDict();
  std::vector<Value> items;
  items.reserve(dict.size());
  for (const auto& [key, value] : dict) {
    switch (view.part) {
      case DictPart::kKeys:
        items.push_back(key);
        break;
      case DictPart::kValues:
        items.push_back(value);
        break;
      case DictPart::kItems:
        items.push_back(Value::Tuple({key, value}));
        break;
    }
  }
  return items;
}

std::vector<Value> Characters(const std::string& text) {
  std::vector<Value> items;
  for (size_t at = 0; at < text.size();) {
    const size_t size = CharSize(text, at);
    items.push_back(Value::String(text.substr(at, size)));
    at += size;
  }
  return items;
}

}  // namespace

Result<ValueCursor> ValueCursor::Over(const Value& iterable, Budget& budget) {
  ValueCursor cursor;
  switch (iterable.kind()) {
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange:
    case Kind::kIterator:
      cursor.source_ = iterable;
      break;
    case Kind::kUndefined:
      break;
    case Kind::kString:
      MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(iterable.AsString().size()) * 64));
      cursor.items_ = Characters(iterable.AsString());
      break;
    case Kind::kDict:
      MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(iterable.AsDict().size()) * 32));
      cursor.items_ = ViewItems(DictViewObject(iterable, DictPart::kKeys));
      break;
    case Kind::kDictView: {
      const auto& view = *static_cast<const DictViewObject*>(iterable.object());
      MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(view.dict.AsDict().size()) * 128));
      cursor.items_ = ViewItems(view);
      break;
    }
    default:
      return MakeError(ErrorCode::kInvalidArgument, "'{}' object is not iterable",
                       iterable.TypeName());
  }
  MOEBIUS_TRY(budget.Step(static_cast<int64_t>(cursor.Remaining() / 8)));
  return cursor;
}

std::optional<Value> ValueCursor::Next() {
  if (Remaining() == 0) return std::nullopt;
  switch (source_.kind()) {
    case Kind::kList:
    case Kind::kTuple:
      return source_.Items()[next_++];
    case Kind::kRange:
      return static_cast<const RangeObject*>(source_.object())->At(static_cast<int64_t>(next_++));
    case Kind::kIterator: {
      auto* iterator = static_cast<IteratorObject*>(source_.object());
      return iterator->items[iterator->next++];
    }
    default:
      return items_[next_++];
  }
}

size_t ValueCursor::Remaining() const {
  switch (source_.kind()) {
    case Kind::kList:
    case Kind::kTuple:
      return source_.Items().size() - next_;
    case Kind::kRange:
      return static_cast<size_t>(static_cast<const RangeObject*>(source_.object())->length) - next_;
    case Kind::kIterator: {
      const auto* iterator = static_cast<const IteratorObject*>(source_.object());
      return iterator->items.size() - iterator->next;
    }
    default:
      return items_.size() - next_;
  }
}

bool IsIterable(const Value& value) {
  switch (value.kind()) {
    case Kind::kNone:
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kFloat:
    case Kind::kNamespace:
    case Kind::kCallable:
    case Kind::kCycler:
      return false;
    default:
      return true;
  }
}

Result<std::vector<Value>> ToItems(const Value& iterable, Budget& budget) {
  MOEBIUS_ASSIGN(ValueCursor cursor, ValueCursor::Over(iterable, budget));
  MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(cursor.Remaining()) * 32));
  std::vector<Value> items;
  items.reserve(cursor.Remaining());
  while (std::optional<Value> item = cursor.Next()) items.push_back(std::move(*item));
  return items;
}

Result<int64_t> Length(const Value& value) {
  switch (value.kind()) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return static_cast<int64_t>(NumChars(value.AsString()));
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(value.Items().size());
    case Kind::kDict:
      return static_cast<int64_t>(value.AsDict().size());
    case Kind::kRange:
      return static_cast<const RangeObject*>(value.object())->length;
    case Kind::kDictView:
      return static_cast<int64_t>(
          static_cast<const DictViewObject*>(value.object())->dict.AsDict().size());
    default:
      return MakeError(ErrorCode::kInvalidArgument, "object of type '{}' has no len()",
                       value.TypeName());
  }
}

}  // namespace moebius::text::jinja
