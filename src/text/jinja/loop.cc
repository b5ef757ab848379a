#include "text/jinja/loop.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "text/jinja/builtin.h"
#include "text/jinja/compare.h"
#include "text/jinja/interpreter.h"

namespace moebius::text::jinja {

Result<std::optional<Value>> LoopObject::PeekNext() {
  if (!ahead.empty()) return ahead.back();
  if (source == nullptr) return std::optional<Value>();
  MOEBIUS_ASSIGN(std::optional<Value> next, source->Next());
  if (next) ahead.push_back(*next);
  return next;
}

Result<std::optional<Value>> LoopObject::Advance() {
  MOEBIUS_ASSIGN(std::optional<Value> next, PeekNext());
  if (!next) return next;
  ahead.pop_back();
  ++index0;
  previous = std::move(current);
  current = next;
  return next;
}

Result<int64_t> LoopObject::Length() {
  if (length) return *length;
  if (source == nullptr) return index0 + 1;
  if (const std::optional<int64_t> remaining = source->Remaining()) {
    length = index0 + 1 + static_cast<int64_t>(ahead.size()) + *remaining;
    return *length;
  }
  std::vector<Value> rest;
  while (true) {
    MOEBIUS_ASSIGN(std::optional<Value> next, source->Next());
    if (!next) break;
    rest.push_back(std::move(*next));
  }
  std::reverse(rest.begin(), rest.end());
  rest.insert(rest.end(), ahead.begin(), ahead.end());
  ahead = std::move(rest);
  length = index0 + 1 + static_cast<int64_t>(ahead.size());
  return *length;
}

Result<std::optional<Value>> LoopObject::Attribute(std::string_view name) {
  const auto number = [](int64_t value) { return std::optional<Value>(Value::Int(value)); };
  if (name == "index") return number(index0 + 1);
  if (name == "index0") return number(index0);
  if (name == "first") return std::optional<Value>(Value::Bool(index0 == 0));
  if (name == "depth") return number(depth0 + 1);
  if (name == "depth0") return number(depth0);
  if (name == "length" || name == "revindex" || name == "revindex0") {
    MOEBIUS_ASSIGN(const int64_t total, Length());
    return number(name == "length"     ? total
                  : name == "revindex" ? total - index0
                                       : total - index0 - 1);
  }
  if (name == "last" || name == "nextitem") {
    MOEBIUS_ASSIGN(std::optional<Value> next, PeekNext());
    if (name == "last") return std::optional<Value>(Value::Bool(!next));
    return std::optional<Value>(next ? std::move(*next)
                                     : Value::Undefined("there is no next item"));
  }
  if (name == "previtem") {
    return std::optional<Value>(previous ? *previous
                                         : Value::Undefined("there is no previous item"));
  }
  return std::optional<Value>();
}

void LoopObject::Finish() {
  source = nullptr;
  ahead.clear();
  last_changed.reset();
}

namespace {

Result<Value> Cycle(Interpreter&, const Value& subject, const BoundArgs& args) {
  const auto* loop = static_cast<const LoopObject*>(subject.object());
  const std::vector<Value>& values = args.rest().positional;
  if (values.empty() || !args.rest().keywords.empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "loop.cycle needs items, and no keywords");
  }
  return values[static_cast<size_t>(std::max<int64_t>(loop->index0, 0)) % values.size()];
}

Result<Value> Changed(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  auto* loop = static_cast<LoopObject*>(subject.object());
  if (loop->source == nullptr)
    return MakeError(ErrorCode::kUnsupported, "loop.changed after the loop is not supported");
  Value value = Value::Tuple(args.rest().positional);
  if (loop->last_changed) {
    MOEBIUS_ASSIGN(const bool equal, Equal(*loop->last_changed, value, interpreter.budget()));
    if (equal) return Value::Bool(false);
  }
  loop->last_changed = std::move(value);
  return Value::Bool(true);
}

constexpr Builtin kLoopMethods[] = {{"cycle", "*", 0, Cycle}, {"changed", "*", 0, Changed}};

// The elements of an iterable, or those of them that pass the loop's test.
class TestedSource : public LoopSource {
 public:
  using Test = std::function<Result<bool>(const Value&)>;
  TestedSource(ValueCursor cursor, Test test)
      : cursor_(std::move(cursor)), test_(std::move(test)) {}

  Result<std::optional<Value>> Next() override {
    while (std::optional<Value> value = cursor_.Next()) {
      if (!test_) return value;
      MOEBIUS_ASSIGN(const bool passes, test_(*value));
      if (passes) return value;
    }
    return std::optional<Value>();
  }
  std::optional<int64_t> Remaining() const override {
    if (test_) return std::nullopt;
    return static_cast<int64_t>(cursor_.Remaining());
  }

 private:
  ValueCursor cursor_;
  Test test_;
};

}  // namespace

const Builtin* FindLoopMethod(std::string_view name) { return FindBuiltin(kLoopMethods, name); }

Result<Interpreter::Flow> Interpreter::ExecFor(const Stmt& stmt, const ScopePtr& scope,
                                               std::string& out) {
  MOEBIUS_ASSIGN(const Value iterable, Eval(*stmt.expr, scope));
  MOEBIUS_ASSIGN(ValueCursor cursor, ValueCursor::Over(iterable, budget_));
  TestedSource::Test test;
  if (stmt.test) {
    test = [&](const Value& value) -> Result<bool> {
      const ScopePtr inner = Enter(scope);
      MOEBIUS_TRY(Assign(stmt.target, value, inner));
      MOEBIUS_ASSIGN(const Value passes, Eval(*stmt.test, inner));
      return passes.Truthy();
    };
  }
  TestedSource source(std::move(cursor), std::move(test));
  const auto loop = std::make_shared<LoopObject>(source);
  loop->depth = iterable.depth() + 1;
  bool ran = false;
  Result<Flow> flow = ExecLoopBody(stmt, scope, loop, ran, out);
  loop->Finish();
  if (!flow || ran) return flow;
  return Exec(stmt.orelse, Enter(scope, stmt.orelse_hidden), out);
}

Result<Interpreter::Flow> Interpreter::ExecLoopBody(const Stmt& stmt, const ScopePtr& scope,
                                                    const std::shared_ptr<LoopObject>& loop,
                                                    bool& ran, std::string& out) {
  const Value loop_value = Value::FromObject(Kind::kLoop, loop);
  while (true) {
    MOEBIUS_TRY(budget_.Step());
    MOEBIUS_ASSIGN(const std::optional<Value> item, loop->Advance());
    if (!item) return Flow::kNormal;
    const ScopePtr inner = Enter(scope, stmt.hidden);
    inner->Set(kLoopName, loop_value);
    MOEBIUS_TRY(Assign(stmt.target, *item, inner));
    MOEBIUS_ASSIGN(const Flow flow, Exec(stmt.body, inner, out));
    if (flow == Flow::kBreak) return Flow::kNormal;
    // As in jinja2's compiled loops, a pass cut short by break or continue does not keep the else
    // branch from running.
    if (flow == Flow::kNormal) ran = true;
  }
}

}  // namespace moebius::text::jinja
