#include "text/jinja/interpreter.h"

#include <fmt/core.h>

#include <utility>

#include "text/jinja/builtin.h"
#include "text/jinja/depth_counter.h"
#include "text/jinja/filters.h"
#include "text/jinja/globals.h"
#include "text/jinja/iterate.h"
#include "text/jinja/predicates.h"
#include "text/jinja/print.h"

namespace moebius::text::jinja {

Value* Scope::Find(NameId name) {
  for (auto& [id, value] : variables) {
    if (id == name) return &value;
  }
  return nullptr;
}

void Scope::Set(NameId name, Value value) {
  if (Value* found = Find(name)) {
    *found = std::move(value);
  } else {
    variables.emplace_back(name, std::move(value));
  }
}

Interpreter::~Interpreter() {
  // All are held here, so that emptying one frees no other: no recursion, however long their chain.
  for (const auto& ns : namespaces_) ns->attributes = Dict();
  for (const ScopePtr& scope : captured_scopes_) scope->variables.clear();
  // A scope's parent is older than the scope: newest first, no parent dies with its child.
  while (!captured_scopes_.empty()) captured_scopes_.pop_back();
}

Value Interpreter::UndefinedName(NameId name) const {
  return Value::Undefined(fmt::format("'{}' is undefined", parsed_.names[name]));
}

ScopePtr Interpreter::Enter(const ScopePtr& scope, const std::vector<NameId>& hidden) const {
  auto inner = std::make_shared<Scope>(scope);
  for (NameId name : hidden) inner->Set(name, UndefinedName(name));
  return inner;
}

Result<std::string> Interpreter::Render(const Dict& variables) {
  const ScopePtr root = std::make_shared<Scope>(nullptr);
  for (NameId name = 0; name < parsed_.names.size(); ++name) {
    if (const Value* value = variables.Find(parsed_.names[name])) {
      root->Set(name, *value);
    } else if (std::optional<Value> global = FindGlobal(parsed_.names[name])) {
      root->Set(name, std::move(*global));
    }
  }
  for (NameId name : parsed_.hidden) root->Set(name, UndefinedName(name));
  std::string out;
  MOEBIUS_ASSIGN([[maybe_unused]] const Flow flow, Exec(parsed_.body, root, out));
  return out;
}

Result<Interpreter::Flow> Interpreter::Exec(const Body& body, const ScopePtr& scope,
                                            std::string& out) {
  DepthCounter depth(*this);
  MOEBIUS_TRY(depth.Check());
  for (const StmtPtr& stmt : body) {
    Result<Flow> flow = budget_.Step().and_then([&] { return ExecStmt(*stmt, scope, out); });
    if (!flow && !has_error_line_) {
      has_error_line_ = true;
      return tl::unexpected<Error>(flow.error().WithContext(fmt::format("line {}", stmt->line)));
    }
    if (!flow || *flow != Flow::kNormal) return flow;
  }
  return Flow::kNormal;
}

Status Interpreter::Emit(const Value& value, std::string& out) {
  if (value.IsString()) {
    MOEBIUS_TRY(budget_.Bytes(static_cast<int64_t>(value.AsString().size())));
    out += value.AsString();
    return {};
  }
  MOEBIUS_ASSIGN(const std::string text, ToStr(value, budget_));
  out += text;
  return {};
}

Result<Interpreter::Flow> Interpreter::ExecStmt(const Stmt& stmt, const ScopePtr& scope,
                                                std::string& out) {
  switch (stmt.kind) {
    case StmtKind::kData:
      MOEBIUS_TRY(budget_.Bytes(static_cast<int64_t>(stmt.text.size())));
      out += stmt.text;
      return Flow::kNormal;
    case StmtKind::kOutput: {
      MOEBIUS_ASSIGN(const Value value, Eval(*stmt.expr, scope));
      MOEBIUS_TRY(Emit(value, out));
      return Flow::kNormal;
    }
    case StmtKind::kIf:
      return ExecIf(stmt, scope, out);
    case StmtKind::kFor:
      return ExecFor(stmt, scope, out);
    case StmtKind::kSet: {
      MOEBIUS_ASSIGN(const Value value, Eval(*stmt.expr, scope));
      MOEBIUS_TRY(Assign(stmt.target, value, scope));
      return Flow::kNormal;
    }
    case StmtKind::kSetBlock:
      return ExecSetBlock(stmt, scope);
    case StmtKind::kMacro:
      scope->Set(stmt.name, MakeMacro(stmt, scope));
      return Flow::kNormal;
    case StmtKind::kCall:
      MOEBIUS_TRY(ExecCall(stmt, scope, out));
      return Flow::kNormal;
    case StmtKind::kFilter:
      return ExecFilterBlock(stmt, scope, out);
    case StmtKind::kWith:
      return ExecWith(stmt, scope, out);
    case StmtKind::kScope:
      return Exec(stmt.body, Enter(scope, stmt.hidden), out);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::ExecIf(const Stmt& stmt, const ScopePtr& scope,
                                              std::string& out) {
  for (const auto& [test, body] : stmt.branches) {
    MOEBIUS_ASSIGN(const Value value, Eval(*test, scope));
    if (value.Truthy()) return Exec(body, scope, out);
  }
  return Exec(stmt.orelse, scope, out);
}

Result<Interpreter::Flow> Interpreter::ExecSetBlock(const Stmt& stmt, const ScopePtr& scope) {
  const ScopePtr inner = Enter(scope, stmt.hidden);
  std::string text;
  MOEBIUS_ASSIGN(const Flow flow, Exec(stmt.body, inner, text));
  // A break leaves before the assignment.
  if (flow != Flow::kNormal) return flow;
  Value value = Value::String(std::move(text));
  if (stmt.expr) {
    // The innermost filter takes the block's text.
    inner->Set(kBlockText, std::move(value));
    MOEBIUS_ASSIGN(value, Eval(*stmt.expr, inner));
  }
  MOEBIUS_TRY(Assign(stmt.target, value, scope));
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::ExecFilterBlock(const Stmt& stmt, const ScopePtr& scope,
                                                       std::string& out) {
  const ScopePtr inner = Enter(scope, stmt.hidden);
  std::string text;
  MOEBIUS_ASSIGN(const Flow flow, Exec(stmt.body, inner, text));
  if (flow != Flow::kNormal) return flow;
  inner->Set(kBlockText, Value::String(std::move(text)));
  MOEBIUS_ASSIGN(const Value value, Eval(*stmt.expr, inner));
  MOEBIUS_TRY(Emit(value, out));
  return Flow::kNormal;
}

Result<Interpreter::Flow> Interpreter::ExecWith(const Stmt& stmt, const ScopePtr& scope,
                                                std::string& out) {
  const ScopePtr inner = Enter(scope, stmt.hidden);
  for (const auto& [target, expr] : stmt.bindings) {
    MOEBIUS_ASSIGN(const Value value, Eval(*expr, scope));
    MOEBIUS_TRY(Assign(target, value, inner));
  }
  return Exec(stmt.body, inner, out);
}

Status Interpreter::Assign(const Target& target, const Value& value, const ScopePtr& scope) {
  if (target.is_tuple) {
    MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(value, budget_));
    if (items.size() != target.elements.size()) {
      return MakeError(ErrorCode::kInvalidArgument, "cannot unpack {} values into {} names",
                       items.size(), target.elements.size());
    }
    for (size_t i = 0; i < items.size(); ++i)
      MOEBIUS_TRY(Assign(target.elements[i], items[i], scope));
    return {};
  }
  if (target.attribute.empty()) {
    scope->Set(target.name, value);
    return {};
  }
  MOEBIUS_ASSIGN(const Value ns, Lookup(target.name, scope));
  if (ns.kind() != Kind::kNamespace) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "cannot assign attribute '{}' on '{}', which is no namespace",
                     target.attribute, parsed_.names[target.name]);
  }
  if (target.attribute.starts_with('_')) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "a namespace cannot store '{}': it begins with an underscore",
                     target.attribute);
  }
  ns.ObjectAs<NamespaceObject>()->attributes.Set(target.attribute, value);
  return {};
}

Result<Value> Interpreter::MakeNamespace(Dict attributes) {
  for (const auto& [name, value] : attributes) {
    if (name.IsString() && name.AsString().starts_with('_')) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "a namespace cannot store '{}': it begins with an underscore",
                       name.AsString());
    }
  }
  MOEBIUS_TRY(budget_.Bytes(1024));
  auto ns = std::make_shared<NamespaceObject>();
  ns->attributes = std::move(attributes);
  namespaces_.push_back(ns);
  return Value::FromObject(Kind::kNamespace, std::move(ns));
}

Result<Value> Interpreter::Call(const Value& callee, CallArgs args) {
  if (callee.kind() == Kind::kCallable)
    return callee.ObjectAs<CallableObject>()->Call(*this, std::move(args));
  if (callee.IsUndefined())
    return MakeError(ErrorCode::kInvalidArgument, "{}", callee.UndefinedMessage());
  return MakeError(ErrorCode::kInvalidArgument, "'{}' object is not callable", callee.TypeName());
}

Result<Value> Interpreter::ApplyFilter(const std::string& name, const Value& subject,
                                       const CallArgs& args) {
  const Builtin* filter = FindFilter(name);
  if (filter == nullptr) return tl::unexpected<Error>(UnknownFilter(name));
  MOEBIUS_TRY(budget_.Step());
  MOEBIUS_ASSIGN(Value value, CallBuiltin(*this, *filter, subject, args));
  MOEBIUS_TRY(Account(value));
  return value;
}

Result<bool> Interpreter::ApplyTest(const std::string& name, const Value& subject,
                                    const CallArgs& args) {
  const Builtin* predicate = FindPredicate(name);
  if (predicate == nullptr) return tl::unexpected<Error>(UnknownPredicate(name));
  MOEBIUS_TRY(budget_.Step());
  MOEBIUS_ASSIGN(const Value value, CallBuiltin(*this, *predicate, subject, args));
  return value.Truthy();
}

}  // namespace moebius::text::jinja
