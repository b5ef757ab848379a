#include "text/jinja/globals.h"

#include <algorithm>
#include <array>
#include <ctime>

#include "text/jinja/builtin.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/objects.h"
#include "text/jinja/print.h"

namespace moebius::text::jinja {
namespace {

// A function without subject.
struct GlobalFunction : CallableObject {
  explicit GlobalFunction(const Builtin& builtin)
      : CallableObject(std::string(builtin.name)), builtin(&builtin) {}
  Result<Value> Call(Interpreter& interpreter, CallArgs args) override {
    return CallBuiltin(interpreter, *builtin, Value::None(), std::move(args));
  }
  const Builtin* builtin;
};

// joiner(", "): nothing at the first call, the separator at every other.
struct Joiner : CallableObject {
  explicit Joiner(Value separator) : CallableObject("joiner"), separator(std::move(separator)) {
    depth = this->separator.depth() + 1;
  }
  Result<Value> Call(Interpreter&, CallArgs args) override {
    if (!args.positional.empty() || !args.keywords.empty()) {
      return MakeError(ErrorCode::kInvalidArgument, "a joiner takes no arguments");
    }
    if (std::exchange(used, true)) return separator;
    return Value::String("");
  }
  Value separator;
  bool used = false;
};

Result<Value> Range(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  std::array<int64_t, 3> numbers = {0, 0, 1};
  for (size_t i = 0; i < 3; ++i) {
    MOEBIUS_ASSIGN(numbers[i], args.Int(i, numbers[i]));
  }
  if (!args.Has(1)) std::swap(numbers[0], numbers[1]);
  if (numbers[2] == 0)
    return MakeError(ErrorCode::kInvalidArgument, "range: the step must not be zero");
  const RangeObject range(numbers[0], numbers[1], numbers[2]);
  const int64_t limit = interpreter.budget().limits().range;
  if (range.length > limit) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "range: {} numbers, more than the {} that are allowed", range.length, limit);
  }
  return MakeRange(numbers[0], numbers[1], numbers[2]);
}

// dict(mapping or pairs, key=value, ...)
Result<Dict> BuildDict(Interpreter& interpreter, std::string_view function, const CallArgs& args) {
  if (args.positional.size() > 1) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: takes at most 1 positional argument",
                     function);
  }
  Dict dict;
  if (!args.positional.empty() && args.positional[0].IsDict()) {
    dict = args.positional[0].AsDict();
  } else if (!args.positional.empty()) {
    MOEBIUS_ASSIGN(const std::vector<Value> pairs,
                   ToItems(args.positional[0], interpreter.budget()));
    for (const Value& pair : pairs) {
      MOEBIUS_ASSIGN(std::vector<Value> parts, ToItems(pair, interpreter.budget()));
      if (parts.size() != 2 || !IsHashable(parts[0])) {
        return MakeError(ErrorCode::kInvalidArgument, "{}: needs pairs with a hashable key",
                         function);
      }
      dict.Set(std::move(parts[0]), std::move(parts[1]));
    }
  }
  for (const auto& [name, value] : args.keywords) dict.Set(name, value);
  return dict;
}

Result<Value> MakeDict(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  MOEBIUS_ASSIGN(Dict dict, BuildDict(interpreter, "dict", args.rest()));
  return Value::Dict(std::move(dict));
}

Result<Value> Namespace(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  MOEBIUS_ASSIGN(Dict dict, BuildDict(interpreter, "namespace", args.rest()));
  return interpreter.MakeNamespace(std::move(dict));
}

Result<Value> MakeCycler(Interpreter&, const Value&, const BoundArgs& args) {
  if (args.rest().positional.empty() || !args.rest().keywords.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "cycler: needs at least one item, and no keywords");
  }
  return Value::FromObject(Kind::kCycler, std::make_shared<CyclerObject>(args.rest().positional));
}

Result<Value> MakeJoiner(Interpreter&, const Value&, const BoundArgs& args) {
  return Value::FromObject(Kind::kCallable,
                           std::make_shared<Joiner>(args.GetOr(0, Value::String(", "))));
}

Result<Value> RaiseException(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::string message, ToStr(args.Get(0), interpreter.budget()));
  return MakeError(ErrorCode::kInvalidArgument, "{}", message);
}

Result<Value> StrftimeNow(Interpreter& interpreter, const Value&, const BoundArgs& args) {
  MOEBIUS_ASSIGN(std::string format, args.Text(0, ""));
  if (format.size() > 1000)
    return MakeError(ErrorCode::kInvalidArgument, "strftime_now: the format is too long");
  if (format.empty()) return Value::String("");
  const std::time_t now = interpreter.options().now.value_or(std::time(nullptr));
  std::tm local = {};
  if (localtime_r(&now, &local) == nullptr)
    return MakeError(ErrorCode::kInternal, "strftime_now: no local time");
  // A blank at the end tells an empty result from one that did not fit.
  format += ' ';
  std::string text(16384, '\0');
  const size_t size = std::strftime(text.data(), text.size(), format.c_str(), &local);
  if (size == 0)
    return MakeError(ErrorCode::kInvalidArgument, "strftime_now: the result is too long");
  return Value::String(text.substr(0, size - 1));
}

constexpr Builtin kGlobals[] = {
    {"cycler", "*", 0, MakeCycler},
    {"dict", "*", 0, MakeDict},
    {"joiner", "sep", 0, MakeJoiner},
    {"namespace", "*", 0, Namespace},
    {"raise_exception", "message", 1, RaiseException},
    {"range", "$start $stop $step", 1, Range},
    {"strftime_now", "format", 1, StrftimeNow},
};

}  // namespace

std::optional<Value> FindGlobal(std::string_view name) {
  const Builtin* builtin = FindBuiltin(kGlobals, name);
  if (builtin == nullptr) return std::nullopt;
  return Value::FromObject(Kind::kCallable, std::make_shared<GlobalFunction>(*builtin));
}

}  // namespace moebius::text::jinja
