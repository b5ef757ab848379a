#include "text/jinja/value.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "base/check.h"
#include "text/jinja/compare.h"
#include "text/jinja/objects.h"

namespace moebius::text::jinja {
namespace {

// Below this a linear search beats the index.
constexpr size_t kIndexedSize = 16;

size_t Mix(size_t a, size_t b) {
  return (a ^ (b + 0x9e3779b97f4a7c15ULL + (a << 6) + (a >> 2))) * 0xff51afd7ed558ccdULL;
}

const StringObject& AsStringObject(const Object* object) {
  return *static_cast<const StringObject*>(object);
}

int DepthOver(const std::vector<Value>& items) {
  int deepest = 0;
  for (const Value& item : items) deepest = std::max(deepest, item.depth());
  return deepest + 1;
}

}  // namespace

ItemsObject::ItemsObject(std::vector<Value> items) : items(std::move(items)) {
  depth = DepthOver(this->items);
}

DictObject::DictObject(Dict dict) : dict(std::move(dict)) {
  for (const auto& [key, value] : this->dict)
    depth = std::max({depth, key.depth() + 1, value.depth() + 1});
}

DictViewObject::DictViewObject(Value dict, DictPart part) : dict(std::move(dict)), part(part) {
  depth = this->dict.depth() + 1;
}

RangeObject::RangeObject(int64_t start, int64_t stop, int64_t step)
    : start(start), stop(stop), step(step), length(0) {
  // Distances in unsigned arithmetic: the ends may be 2^64 apart.
  const auto distance = [](int64_t low, int64_t high) {
    return static_cast<uint64_t>(high) - static_cast<uint64_t>(low);
  };
  uint64_t count = 0;
  if (step > 0 && start < stop) {
    count = (distance(start, stop) - 1) / static_cast<uint64_t>(step) + 1;
  } else if (step < 0 && start > stop) {
    count = (distance(stop, start) - 1) / (0 - static_cast<uint64_t>(step)) + 1;
  }
  length = static_cast<int64_t>(std::min<uint64_t>(count, INT64_MAX));
}

Value MakeRange(int64_t start, int64_t stop, int64_t step) {
  return Value::FromObject(Kind::kRange, std::make_shared<RangeObject>(start, stop, step));
}

Value MakeIterator(std::vector<Value> items, const char* type_name) {
  return Value::FromObject(Kind::kIterator,
                           std::make_shared<IteratorObject>(std::move(items), type_name));
}

Value Value::FromObject(Kind kind, std::shared_ptr<Object> object) {
  Value value;
  value.kind_ = kind;
  value.object_ = std::move(object);
  return value;
}
Value Value::Undefined(std::string message) {
  return FromObject(Kind::kUndefined, std::make_shared<StringObject>(std::move(message), false));
}
Value Value::Bool(bool value) {
  Value result;
  result.kind_ = Kind::kBool;
  result.bool_ = value;
  return result;
}
Value Value::Int(int64_t value) {
  Value result;
  result.kind_ = Kind::kInt;
  result.int_ = value;
  return result;
}
Value Value::Float(double value) {
  Value result;
  result.kind_ = Kind::kFloat;
  result.float_ = value;
  return result;
}
Value Value::String(std::string text, bool markup) {
  return FromObject(Kind::kString, std::make_shared<StringObject>(std::move(text), markup));
}
Value Value::List(std::vector<Value> items) {
  return FromObject(Kind::kList, std::make_shared<ItemsObject>(std::move(items)));
}
Value Value::Tuple(std::vector<Value> items) {
  return FromObject(Kind::kTuple, std::make_shared<ItemsObject>(std::move(items)));
}
Value Value::Dict(jinja::Dict dict) {
  return FromObject(Kind::kDict, std::make_shared<DictObject>(std::move(dict)));
}

bool Value::AsBool() const {
  MOEBIUS_CHECK(IsBool());
  return bool_;
}
int64_t Value::AsInt() const {
  MOEBIUS_CHECK(IsIntegral());
  return IsBool() ? int64_t{bool_} : int_;
}
double Value::AsFloat() const { return IsFloat() ? float_ : static_cast<double>(AsInt()); }
const std::string& Value::AsString() const {
  MOEBIUS_CHECK(IsString());
  return AsStringObject(object_.get()).text;
}
bool Value::IsMarkup() const { return IsString() && AsStringObject(object_.get()).markup; }
const std::vector<Value>& Value::Items() const {
  MOEBIUS_CHECK(IsList() || IsTuple());
  return static_cast<const ItemsObject*>(object_.get())->items;
}
const Dict& Value::AsDict() const {
  MOEBIUS_CHECK(IsDict());
  return static_cast<const DictObject*>(object_.get())->dict;
}
const std::string& Value::UndefinedMessage() const {
  MOEBIUS_CHECK(IsUndefined());
  return AsStringObject(object_.get()).text;
}

bool Value::Truthy() const {
  switch (kind_) {
    case Kind::kUndefined:
    case Kind::kNone:
      return false;
    case Kind::kBool:
      return bool_;
    case Kind::kInt:
      return int_ != 0;
    case Kind::kFloat:
      return float_ != 0;
    case Kind::kString:
      return !AsString().empty();
    case Kind::kList:
    case Kind::kTuple:
      return !Items().empty();
    case Kind::kDict:
      return !AsDict().empty();
    case Kind::kRange:
      return static_cast<const RangeObject*>(object_.get())->length != 0;
    case Kind::kDictView:
      return static_cast<const DictViewObject*>(object_.get())->dict.Truthy();
    case Kind::kIterator:  // always true in Python, even when exhausted
    case Kind::kNamespace:
    case Kind::kCallable:
    case Kind::kLoop:
    case Kind::kCycler:
      return true;
  }
  return true;
}

const char* Value::TypeName() const {
  switch (kind_) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return IsMarkup() ? "Markup" : "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kRange:
      return "range";
    case Kind::kIterator:
      return static_cast<const IteratorObject*>(object_.get())->type_name;
    case Kind::kDictView:
      switch (static_cast<const DictViewObject*>(object_.get())->part) {
        case DictPart::kKeys:
          return "dict_keys";
        case DictPart::kValues:
          return "dict_values";
        case DictPart::kItems:
          return "dict_items";
      }
      return "dict_items";
    case Kind::kNamespace:
      return "Namespace";
    case Kind::kCallable:
      return "function";
    case Kind::kLoop:
      return "LoopContext";
    case Kind::kCycler:
      return "Cycler";
  }
  return "object";
}

bool Value::Same(const Value& other) const {
  if (kind_ != other.kind_) return false;
  switch (kind_) {
    case Kind::kNone:
      return true;
    case Kind::kBool:
      return bool_ == other.bool_;
    case Kind::kInt:
      return int_ == other.int_;
    case Kind::kFloat:
      return std::bit_cast<uint64_t>(float_) == std::bit_cast<uint64_t>(other.float_);
    default:
      return object_ == other.object_;
  }
}

int64_t Dict::IndexOf(const Value& key, size_t hash) const {
  if (entries_.size() <= kIndexedSize) {
    for (size_t i = 0; i < entries_.size(); ++i) {
      if (KeyEqual(entries_[i].first, key)) return static_cast<int64_t>(i);
    }
    return -1;
  }
  const auto [begin, end] = index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    if (KeyEqual(entries_[it->second].first, key)) return it->second;
  }
  return -1;
}

const Value* Dict::Find(const Value& key) const {
  const int64_t idx = IndexOf(key, entries_.size() > kIndexedSize ? Hash(key) : 0);
  return idx < 0 ? nullptr : &entries_[static_cast<size_t>(idx)].second;
}

const Value* Dict::Find(std::string_view key) const {
  if (entries_.size() > kIndexedSize) return Find(Value::String(std::string(key)));
  for (const auto& [name, value] : entries_) {
    if (name.IsString() && name.AsString() == key) return &value;
  }
  return nullptr;
}

void Dict::Set(Value key, Value value) {
  const bool indexed = entries_.size() > kIndexedSize;
  const size_t hash = indexed ? Hash(key) : 0;
  if (const int64_t idx = IndexOf(key, hash); idx >= 0) {
    entries_[static_cast<size_t>(idx)].second = std::move(value);
    return;
  }
  entries_.emplace_back(std::move(key), std::move(value));
  if (indexed) {
    index_.emplace(hash, static_cast<uint32_t>(entries_.size() - 1));
  } else if (entries_.size() > kIndexedSize) {
    for (size_t i = 0; i < entries_.size(); ++i)
      index_.emplace(Hash(entries_[i].first), static_cast<uint32_t>(i));
  }
}

bool IsHashable(const Value& value) {
  if (value.IsList() || value.IsDict() || value.kind() == Kind::kDictView) return false;
  if (!value.IsTuple()) return true;
  return std::all_of(value.Items().begin(), value.Items().end(), IsHashable);
}

size_t Hash(const Value& value) {
  switch (value.kind()) {
    case Kind::kNone:
      return 0x5f3759df;
    case Kind::kUndefined:
      return 0x9d2c5680;
    case Kind::kBool:
    case Kind::kInt:
      return Mix(1, static_cast<size_t>(value.AsInt()));
    case Kind::kFloat: {
      const double number = value.AsFloat();
      // An integral float must hash like its int. 2^63 itself is no int64.
      if (number == std::floor(number) && number >= -0x1p63 && number < 0x1p63) {
        return Mix(1, static_cast<size_t>(static_cast<int64_t>(number)));
      }
      return std::hash<double>()(number);
    }
    case Kind::kString:
      return std::hash<std::string>()(value.AsString());
    case Kind::kTuple: {
      size_t hash = 7;
      for (const Value& item : value.Items()) hash = Mix(hash, Hash(item));
      return hash;
    }
    case Kind::kRange: {
      const auto* range = static_cast<const RangeObject*>(value.object());
      return Mix(Mix(11, static_cast<size_t>(range->length)), static_cast<size_t>(range->start));
    }
    default:
      return std::hash<const void*>()(value.object());
  }
}

}  // namespace moebius::text::jinja
