// {% macro %}, {% call %} and the calls of what they define.
#include <algorithm>

#include "text/jinja/builtin.h"
#include "text/jinja/interpreter.h"

namespace moebius::text::jinja {
namespace {

struct MacroObject : CallableObject {
  MacroObject(const Stmt& stmt, ScopePtr closure)
      : CallableObject(stmt.signature.name), stmt(&stmt), closure(std::move(closure)) {
    printed = name.empty() ? "<Macro anonymous>" : "<Macro '" + name + "'>";
  }
  Result<Value> Call(Interpreter& interpreter, CallArgs args) override {
    return interpreter.CallMacro(*stmt, closure, std::move(args));
  }

  const Stmt* stmt;
  ScopePtr closure;
};

// Takes `name` out of the keywords.
std::optional<Value> TakeKeyword(CallArgs& args, std::string_view name) {
  const auto found = std::find_if(args.keywords.begin(), args.keywords.end(),
                                  [&](const auto& keyword) { return keyword.first == name; });
  if (found == args.keywords.end()) return std::nullopt;
  Value value = std::move(found->second);
  args.keywords.erase(found);
  return value;
}

}  // namespace

Value Interpreter::MakeMacro(const Stmt& stmt, const ScopePtr& scope) {
  // The scope holds the macro and the macro the scope.
  if (captured_scopes_.empty() || captured_scopes_.back() != scope)
    captured_scopes_.push_back(scope);
  return Value::FromObject(Kind::kCallable, std::make_shared<MacroObject>(stmt, scope));
}

Result<Value> Interpreter::CallMacro(const Stmt& macro, const ScopePtr& closure, CallArgs args) {
  const Signature& signature = macro.signature;
  const std::vector<NameId>& parameters = signature.parameters;
  const ScopePtr scope = Enter(closure, macro.hidden);
  std::vector<bool> is_given(parameters.size());
  bool has_caller_parameter = false;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parsed_.names[parameters[i]];
    has_caller_parameter = has_caller_parameter || name == "caller";
    std::optional<Value> value;
    if (i < args.positional.size()) {
      value = args.positional[i];
    } else {
      value = TakeKeyword(args, name);
    }
    is_given[i] = value.has_value();
    // A default may name a later parameter, which is then undefined: nothing outside the macro
    // shows through.
    scope->Set(parameters[i], value
                                  ? std::move(*value)
                                  : Value::Undefined("parameter '" + name + "' was not provided"));
  }
  if (signature.uses_caller && !has_caller_parameter) {
    std::optional<Value> caller = TakeKeyword(args, "caller");
    if (!caller || caller->IsNone()) caller = Value::Undefined("No caller defined");
    scope->Set(kCallerName, std::move(*caller));
  }
  if (signature.uses_kwargs) {
    Dict rest;
    for (auto& [name, value] : args.keywords) rest.Set(name, std::move(value));
    scope->Set(kKwargsName, Value::Dict(std::move(rest)));
  } else if (!args.keywords.empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "macro '{}' takes no keyword argument '{}'",
                     signature.name, args.keywords[0].first);
  }
  const size_t num_bound = std::min(parameters.size(), args.positional.size());
  std::vector<Value> rest(args.positional.begin() + static_cast<int64_t>(num_bound),
                          args.positional.end());
  if (signature.uses_varargs) {
    scope->Set(kVarargsName, Value::Tuple(std::move(rest)));
  } else if (!rest.empty()) {
    return MakeError(ErrorCode::kInvalidArgument, "macro '{}' takes not more than {} argument(s)",
                     signature.name, parameters.size());
  }
  const size_t first_default = parameters.size() - signature.defaults.size();
  for (size_t i = first_default; i < parameters.size(); ++i) {
    if (is_given[i]) continue;
    MOEBIUS_ASSIGN(Value value, Eval(*signature.defaults[i - first_default], scope));
    scope->Set(parameters[i], std::move(value));
  }
  std::string text;
  MOEBIUS_ASSIGN([[maybe_unused]] const Flow flow, Exec(macro.body, scope, text));
  return Value::String(std::move(text));
}

Status Interpreter::ExecCall(const Stmt& stmt, const ScopePtr& scope, std::string& out) {
  const Expr& call = *stmt.expr;
  MOEBIUS_ASSIGN(const Value callee, EvalOperand(call, 0, scope));
  MOEBIUS_ASSIGN(CallArgs args, EvalArguments(call.arguments, scope));
  args.keywords.emplace_back("caller", MakeMacro(stmt, scope));
  MOEBIUS_ASSIGN(const Value value, Call(callee, std::move(args)));
  return Emit(value, out);
}

}  // namespace moebius::text::jinja
