// What Values of the run-time kinds point to. A rendering makes and uses them on one thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

class Interpreter;

struct StringObject : Object {
  StringObject(std::string text, bool markup) : text(std::move(text)), markup(markup) {}
  std::string text;
  bool markup;
};

struct ItemsObject : Object {  // list, tuple
  explicit ItemsObject(std::vector<Value> items);
  std::vector<Value> items;
};

// What groupby yields: a tuple whose elements are also its attributes `grouper` and `list`.
struct GroupObject : ItemsObject {
  using ItemsObject::ItemsObject;
};

struct DictObject : Object {
  explicit DictObject(Dict dict);
  Dict dict;
};

struct RangeObject : Object {
  RangeObject(int64_t start, int64_t stop, int64_t step);
  Value At(int64_t idx) const { return Value::Int(start + idx * step); }
  int64_t start;
  int64_t stop;
  int64_t step;
  int64_t length;
};

// A Python iterator or generator: what the filters map, select, items, ... return. It can be read
// once.
struct IteratorObject : ItemsObject {
  IteratorObject(std::vector<Value> items, const char* type_name)
      : ItemsObject(std::move(items)), type_name(type_name) {}
  size_t next = 0;
  const char* type_name;
};

enum class DictPart : uint8_t { kKeys, kValues, kItems };

struct DictViewObject : Object {
  DictViewObject(Value dict, DictPart part);
  Value dict;
  DictPart part;
};

// namespace(): the one value that a template can change. The interpreter keeps each alive until the
// rendering ends and then empties it, so that a namespace that contains itself is freed too.
struct NamespaceObject : Object {
  Dict attributes;
};

struct CyclerObject : ItemsObject {
  using ItemsObject::ItemsObject;
  size_t position = 0;
};

struct CallArgs {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

struct CallableObject : Object {
  explicit CallableObject(std::string name) : name(std::move(name)) {}
  virtual Result<Value> Call(Interpreter& interpreter, CallArgs args) = 0;
  std::string name;
  std::string printed;  // what str() says; empty where Python would print an address
};

Value MakeRange(int64_t start, int64_t stop, int64_t step);
Value MakeIterator(std::vector<Value> items, const char* type_name = "generator");

}  // namespace moebius::text::jinja
