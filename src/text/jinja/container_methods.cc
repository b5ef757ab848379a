// Methods of list, tuple, dict and of jinja's cycler.
#include <algorithm>

#include "text/jinja/compare.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/methods.h"
#include "text/jinja/objects.h"

namespace moebius::text::jinja {
namespace {

Result<Value> ListCount(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  int64_t count = 0;
  for (const Value& item : subject.Items()) {
    MOEBIUS_ASSIGN(const bool equal, Equal(item, args.Get(0), interpreter.budget()));
    if (equal || item.Same(args.Get(0))) ++count;
  }
  return Value::Int(count);
}

Result<Value> ListIndex(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  const auto size = static_cast<int64_t>(subject.Items().size());
  MOEBIUS_ASSIGN(int64_t begin, args.Int(1, 0));
  MOEBIUS_ASSIGN(int64_t end, args.Int(2, size));
  const auto resolve = [size](int64_t idx) {
    return std::clamp<int64_t>(idx < 0 ? std::max(idx, -size) + size : idx, 0, size);
  };
  begin = resolve(begin);
  end = resolve(end);
  for (int64_t i = begin; i < end; ++i) {
    const Value& item = subject.Items()[static_cast<size_t>(i)];
    MOEBIUS_ASSIGN(const bool equal, Equal(item, args.Get(0), interpreter.budget()));
    if (equal || item.Same(args.Get(0))) return Value::Int(i);
  }
  return MakeError(ErrorCode::kInvalidArgument, "index: the value is not in the {}",
                   subject.TypeName());
}

Result<Value> ListCopy(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::List(subject.Items());
}

constexpr Builtin kListMethods[] = {
    {"count", "$value", 1, ListCount},
    {"index", "$value $start $stop", 1, ListIndex},
    {"copy", "", 0, ListCopy},
};

template <DictPart kPart>
Result<Value> DictView(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::FromObject(Kind::kDictView, std::make_shared<DictViewObject>(subject, kPart));
}

Result<Value> DictGet(Interpreter&, const Value& subject, const BoundArgs& args) {
  if (!IsHashable(args.Get(0))) {
    return MakeError(ErrorCode::kInvalidArgument, "unhashable type: '{}'", args.Get(0).TypeName());
  }
  const Value* value = subject.AsDict().Find(args.Get(0));
  return value != nullptr ? *value : args.GetOr(1, Value::None());
}

Result<Value> DictCopy(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Dict(subject.AsDict());
}

constexpr Builtin kDictMethods[] = {
    {"get", "$key $default", 1, DictGet},
    {"items", "", 0, DictView<DictPart::kItems>},
    {"keys", "", 0, DictView<DictPart::kKeys>},
    {"values", "", 0, DictView<DictPart::kValues>},
    {"copy", "", 0, DictCopy},
};

Result<Value> CyclerNext(Interpreter&, const Value& subject, const BoundArgs&) {
  auto* cycler = static_cast<CyclerObject*>(subject.object());
  Value value = cycler->items[cycler->position];
  cycler->position = (cycler->position + 1) % cycler->items.size();
  return value;
}

Result<Value> CyclerReset(Interpreter&, const Value& subject, const BoundArgs&) {
  static_cast<CyclerObject*>(subject.object())->position = 0;
  return Value::None();
}

constexpr Builtin kCyclerMethods[] = {{"next", "", 0, CyclerNext}, {"reset", "", 0, CyclerReset}};

}  // namespace

const Builtin* FindListMethod(std::string_view name) { return FindBuiltin(kListMethods, name); }
const Builtin* FindDictMethod(std::string_view name) { return FindBuiltin(kDictMethods, name); }
const Builtin* FindCyclerMethod(std::string_view name) { return FindBuiltin(kCyclerMethods, name); }

}  // namespace moebius::text::jinja
