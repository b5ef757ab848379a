// Values of the template language: Python's None, bool, int (64 bits), float, str, list, tuple and
// dict, jinja's undefined, and objects that exist only while a template runs (jinja/objects.h). A
// Value is small and cheap to copy: what it points to is shared and, namespaces and loops apart,
// never changes, so any thread may read it.
//
//   Dict message;
//   message.Set("role", Value::String("user"));
//   Value messages = Value::List({Value::Dict(std::move(message))});
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace moebius::text::jinja {

enum class Kind : uint8_t {
  kUndefined,
  kNone,
  kBool,
  kInt,
  kFloat,
  kString,
  kList,
  kTuple,
  kDict,
  // Only while a template runs:
  kRange,
  kIterator,
  kDictView,
  kNamespace,
  kCallable,
  kLoop,
  kCycler,
};

class Dict;

// What a Value points to. `depth` is 1 for a leaf and one more than its deepest element for a
// container: values that nest too deeply are refused before their destructor could overflow the
// stack.
struct Object {
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() = default;
  int depth = 1;
};

class Value {
 public:
  Value() = default;  // None
  static Value None() { return Value(); }
  // `message` is what using it says, such as "'tools' is undefined".
  static Value Undefined(std::string message);
  static Value Bool(bool value);
  static Value Int(int64_t value);
  static Value Float(double value);
  // UTF-8. `markup` marks text that is already HTML-escaped (jinja's Markup, from the filters safe
  // and escape).
  static Value String(std::string text, bool markup = false);
  static Value List(std::vector<Value> items);
  static Value Tuple(std::vector<Value> items);
  static Value Dict(jinja::Dict dict);
  static Value FromObject(Kind kind, std::shared_ptr<Object> object);

  Kind kind() const { return kind_; }
  bool IsUndefined() const { return kind_ == Kind::kUndefined; }
  bool IsNone() const { return kind_ == Kind::kNone; }
  bool IsBool() const { return kind_ == Kind::kBool; }
  bool IsInt() const { return kind_ == Kind::kInt; }
  bool IsFloat() const { return kind_ == Kind::kFloat; }
  bool IsString() const { return kind_ == Kind::kString; }
  bool IsList() const { return kind_ == Kind::kList; }
  bool IsTuple() const { return kind_ == Kind::kTuple; }
  bool IsDict() const { return kind_ == Kind::kDict; }
  // int or bool, as isinstance(x, int) has it.
  bool IsIntegral() const { return kind_ == Kind::kInt || kind_ == Kind::kBool; }
  bool IsNumber() const { return IsIntegral() || kind_ == Kind::kFloat; }

  // Each is valid for its own kind only (a broken invariant otherwise); AsInt also takes bool,
  // AsFloat every number.
  bool AsBool() const;
  int64_t AsInt() const;
  double AsFloat() const;
  const std::string& AsString() const;
  bool IsMarkup() const;
  const std::vector<Value>& Items() const;  // list or tuple
  const jinja::Dict& AsDict() const;
  const std::string& UndefinedMessage() const;

  Object* object() const { return object_.get(); }
  template <typename T>
  std::shared_ptr<T> ObjectAs() const {
    return std::static_pointer_cast<T>(object_);
  }
  int depth() const { return object_ ? object_->depth : 1; }

  // bool(x)
  bool Truthy() const;
  // type(x).__name__
  const char* TypeName() const;
  // "x is y": same object, or same None, bool or small number.
  bool Same(const Value& other) const;

 private:
  Kind kind_ = Kind::kNone;
  union {
    bool bool_;
    int64_t int_ = 0;
    double float_;
  };
  std::shared_ptr<Object> object_;
};

// Insertion-ordered; keys compare as Python's do (1, 1.0 and True are one key). Keys must be
// hashable (IsHashable).
class Dict {
 public:
  using Entry = std::pair<Value, Value>;

  // Null when absent.
  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
  // Replaces the value in its place, or appends.
  void Set(Value key, Value value);
  void Set(std::string key, Value value) { Set(Value::String(std::move(key)), std::move(value)); }

  size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  std::vector<Entry>::const_iterator begin() const { return entries_.begin(); }
  std::vector<Entry>::const_iterator end() const { return entries_.end(); }

 private:
  int64_t IndexOf(const Value& key, size_t hash) const;

  std::vector<Entry> entries_;
  std::unordered_multimap<size_t, uint32_t> index_;  // by hash; empty while the dict is small
};

// False for list, dict and what contains them.
bool IsHashable(const Value& value);
// Equal values hash alike. Needs IsHashable.
size_t Hash(const Value& value);

}  // namespace moebius::text::jinja
