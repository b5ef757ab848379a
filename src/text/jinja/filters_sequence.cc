// Filters over sequences and mappings: join, sort, first, unique, groupby, ...
#include <algorithm>

#include "text/jinja/attribute_path.h"
#include "text/jinja/compare.h"
#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/print.h"
#include "text/jinja/sorting.h"
#include "text/jinja/string_ops.h"

namespace moebius::text::jinja {
namespace {

Result<Value> LengthFilter(Interpreter&, const Value& subject, const BoundArgs&) {
  MOEBIUS_ASSIGN(const int64_t length, Length(subject));
  return Value::Int(length);
}

Result<Value> List(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  MOEBIUS_ASSIGN(std::vector<Value> items, ToItems(subject, interpreter.budget()));
  return Value::List(std::move(items));
}

Result<Value> First(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  MOEBIUS_ASSIGN(ValueCursor cursor, ValueCursor::Over(subject, interpreter.budget()));
  std::optional<Value> item = cursor.Next();
  return item ? std::move(*item) : Value::Undefined("No first item, sequence was empty.");
}

bool IsReversible(const Value& value) {
  return value.kind() != Kind::kIterator && IsIterable(value);
}

Result<Value> Last(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  if (!IsReversible(subject)) {
    return MakeError(ErrorCode::kInvalidArgument, "last: '{}' object is not reversible",
                     subject.TypeName());
  }
  MOEBIUS_ASSIGN(std::vector<Value> items, ToItems(subject, interpreter.budget()));
  return items.empty() ? Value::Undefined("No last item, sequence was empty.")
                       : std::move(items.back());
}

Result<Value> Reverse(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  if (subject.IsString()) {
    return Slice(subject, Value::None(), Value::None(), Value::Int(-1), interpreter.budget());
  }
  MOEBIUS_ASSIGN(std::vector<Value> items, ToItems(subject, interpreter.budget()));
  std::reverse(items.begin(), items.end());
  // What is not reversible itself comes back as a list.
  if (!IsReversible(subject)) return Value::List(std::move(items));
  const char* type_name = subject.IsList()                 ? "list_reverseiterator"
                          : subject.IsDict()               ? "dict_reversekeyiterator"
                          : subject.kind() == Kind::kRange ? "range_iterator"
                                                           : "reversed";
  return MakeIterator(std::move(items), type_name);
}

Result<Value> Join(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  Budget& budget = interpreter.budget();
  MOEBIUS_ASSIGN(const AttributePath path, AttributePath::Parse(args.GetOr(1, Value::None())));
  MOEBIUS_ASSIGN(const std::string separator, ToStr(args.GetOr(0, Value::String("")), budget));
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, budget));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    MOEBIUS_ASSIGN(const Value item, path.Get(interpreter, items[i]));
    MOEBIUS_ASSIGN(const std::string text, ToStr(item, budget));
    MOEBIUS_TRY(budget.Bytes(static_cast<int64_t>(separator.size())));
    if (i != 0) out += separator;
    out += text;
  }
  return Value::String(std::move(out));
}

Result<Value> Items(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  if (subject.IsUndefined()) return MakeIterator({});
  if (!subject.IsDict())
    return MakeError(ErrorCode::kInvalidArgument, "items: needs a mapping, not {}",
                     subject.TypeName());
  std::vector<Value> items;
  MOEBIUS_TRY(interpreter.budget().Bytes(static_cast<int64_t>(subject.AsDict().size()) * 128));
  for (const auto& [key, value] : subject.AsDict()) items.push_back(Value::Tuple({key, value}));
  return MakeIterator(std::move(items));
}

Result<Value> Reorder(const std::vector<Value>& items, const std::vector<Value>& keys, bool reverse,
                      Budget& budget) {
  MOEBIUS_ASSIGN(const std::vector<size_t> order, SortedOrder(keys, reverse, budget));
  std::vector<Value> sorted;
  sorted.reserve(items.size());
  for (size_t idx : order) sorted.push_back(items[idx]);
  return Value::List(std::move(sorted));
}

Result<Value> DictSort(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::string by, args.Text(1, "key"));
  if (by != "key" && by != "value") {
    return MakeError(ErrorCode::kInvalidArgument,
                     "dictsort: sorts by \"key\" or \"value\", not \"{}\"", by);
  }
  if (!subject.IsDict()) {
    return MakeError(ErrorCode::kInvalidArgument, "dictsort: needs a mapping, not {}",
                     subject.TypeName());
  }
  std::vector<Value> items;
  std::vector<Value> keys;
  for (const auto& [key, value] : subject.AsDict()) {
    items.push_back(Value::Tuple({key, value}));
    keys.push_back(FoldCase(by == "key" ? key : value, args.Truthy(0)));
  }
  return Reorder(items, keys, args.Truthy(2), interpreter.budget());
}

Result<Value> Sort(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, interpreter.budget()));
  std::vector<AttributePath> paths;
  const Value attribute = args.GetOr(2, Value::None());
  if (attribute.IsString()) {  // "a,b.c": by a, then by b.c
    for (std::string_view name : SplitText(attribute.AsString(), ",", -1, false)) {
      MOEBIUS_ASSIGN(AttributePath path, AttributePath::Parse(Value::String(std::string(name))));
      paths.push_back(std::move(path));
    }
  } else {
    MOEBIUS_ASSIGN(AttributePath path, AttributePath::Parse(attribute));
    paths.push_back(std::move(path));
  }
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> key;
    for (const AttributePath& path : paths) {
      MOEBIUS_ASSIGN(const Value part, path.Get(interpreter, item));
      key.push_back(FoldCase(part, args.Truthy(1)));
    }
    keys.push_back(Value::List(std::move(key)));
  }
  return Reorder(items, keys, args.Truthy(0), interpreter.budget());
}

Result<Value> Unique(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const AttributePath path, AttributePath::Parse(args.GetOr(1, Value::None())));
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, interpreter.budget()));
  Dict seen;
  std::vector<Value> kept;
  for (const Value& item : items) {
    MOEBIUS_ASSIGN(const Value value, path.Get(interpreter, item));
    const Value key = FoldCase(value, args.Truthy(0));
    if (!IsHashable(key))
      return MakeError(ErrorCode::kInvalidArgument, "unhashable type: '{}'", key.TypeName());
    if (seen.Find(key) != nullptr) continue;
    seen.Set(key, Value::None());
    kept.push_back(item);
  }
  return MakeIterator(std::move(kept));
}

template <int kWanted>
Result<Value> Extreme(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const AttributePath path, AttributePath::Parse(args.GetOr(1, Value::None())));
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, interpreter.budget()));
  if (items.empty()) return Value::Undefined("No aggregated item, sequence was empty.");
  size_t best = 0;
  Value best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    MOEBIUS_ASSIGN(const Value value, path.Get(interpreter, items[i]));
    Value key = FoldCase(value, args.Truthy(0));
    if (i != 0) {
      MOEBIUS_ASSIGN(const int order, Compare(key, best_key, interpreter.budget()));
      if (order != kWanted) continue;
    }
    best = i;
    best_key = std::move(key);
  }
  return items[best];
}

Result<Value> Sum(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const AttributePath path, AttributePath::Parse(args.GetOr(0, Value::None())));
  Value total = args.GetOr(1, Value::Int(0));
  if (total.IsString()) return MakeError(ErrorCode::kInvalidArgument, "sum: cannot sum strings");
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, interpreter.budget()));
  for (const Value& item : items) {
    MOEBIUS_ASSIGN(const Value value, path.Get(interpreter, item));
    MOEBIUS_ASSIGN(total, Arithmetic(interpreter, BinaryOp::kAdd, total, value));
  }
  return total;
}

Result<Value> Batch(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const int64_t size, args.Int(0, 0));
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, interpreter.budget()));
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (const Value& item : items) {
    if (static_cast<int64_t>(batch.size()) == size) {
      batches.push_back(Value::List(std::move(batch)));
      batch.clear();
    }
    batch.push_back(item);
  }
  if (!batch.empty()) {
    if (args.IsSet(1) && static_cast<int64_t>(batch.size()) < size) {
      MOEBIUS_TRY(interpreter.budget().Bytes(size > INT64_MAX / 64 ? INT64_MAX : size * 64));
      batch.resize(static_cast<size_t>(size), args.Get(1));
    }
    batches.push_back(Value::List(std::move(batch)));
  }
  return MakeIterator(std::move(batches));
}

Result<Value> SliceFilter(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const int64_t num_slices, args.Int(0, 0));
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, interpreter.budget()));
  if (num_slices == 0) return MakeError(ErrorCode::kInvalidArgument, "slice: division by zero");
  MOEBIUS_TRY(interpreter.budget().Bytes(
      num_slices > INT64_MAX / 128 ? INT64_MAX : std::max<int64_t>(num_slices, 0) * 128));
  std::vector<Value> slices;
  const auto length = static_cast<int64_t>(items.size());
  auto at = items.begin();
  for (int64_t i = 0; i < num_slices; ++i) {
    const bool has_extra = i < length % num_slices;
    const auto end = at + length / num_slices + (has_extra ? 1 : 0);
    std::vector<Value> slice(at, end);
    if (args.IsSet(1) && !has_extra) slice.push_back(args.Get(1));
    slices.push_back(Value::List(std::move(slice)));
    at = end;
  }
  return MakeIterator(std::move(slices));
}

Result<Value> GroupBy(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  Budget& budget = interpreter.budget();
  MOEBIUS_ASSIGN(const AttributePath path, AttributePath::Parse(args.Get(0)));
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(subject, budget));
  const std::optional<Value> fallback =
      args.IsSet(1) ? std::optional<Value>(args.Get(1)) : std::nullopt;
  std::vector<Value> keys;
  std::vector<Value> shown;
  for (const Value& item : items) {
    MOEBIUS_ASSIGN(Value value, path.Get(interpreter, item, fallback));
    keys.push_back(FoldCase(value, args.Truthy(2)));
    shown.push_back(std::move(value));
  }
  MOEBIUS_ASSIGN(const std::vector<size_t> order, SortedOrder(keys, false, budget));
  std::vector<Value> groups;
  for (size_t i = 0; i < order.size();) {
    const size_t first = i;
    std::vector<Value> group;
    while (i < order.size()) {
      MOEBIUS_ASSIGN(const bool equal, Equal(keys[order[first]], keys[order[i]], budget));
      if (!equal && i != first) break;
      group.push_back(items[order[i++]]);
    }
    std::vector<Value> pair = {shown[order[first]], Value::List(std::move(group))};
    groups.push_back(
        Value::FromObject(Kind::kTuple, std::make_shared<GroupObject>(std::move(pair))));
  }
  return Value::List(std::move(groups));
}

constexpr Builtin kSequenceFilters[] = {
    {"batch", "linecount fill_with", 1, Batch},
    {"count", "", 0, LengthFilter},
    {"dictsort", "case_sensitive by reverse", 0, DictSort},
    {"first", "", 0, First},
    {"groupby", "attribute default case_sensitive", 1, GroupBy},
    {"items", "", 0, Items},
    {"join", "d attribute", 0, Join},
    {"last", "", 0, Last},
    {"length", "", 0, LengthFilter},
    {"list", "", 0, List},
    {"max", "case_sensitive attribute", 0, Extreme<1>},
    {"min", "case_sensitive attribute", 0, Extreme<-1>},
    {"reverse", "", 0, Reverse},
    {"slice", "slices fill_with", 1, SliceFilter},
    {"sort", "reverse case_sensitive attribute", 0, Sort},
    {"sum", "attribute start", 0, Sum},
    {"unique", "case_sensitive attribute", 0, Unique},
};

}  // namespace

std::span<const Builtin> SequenceFilters() { return kSequenceFilters; }

}  // namespace moebius::text::jinja
