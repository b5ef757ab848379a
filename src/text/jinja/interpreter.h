// Runs a parsed template once. One Interpreter a rendering, on one thread; everything it makes is
// freed with it, even what refers to itself.
#pragma once

#include <ctime>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/budget.h"
#include "text/jinja/objects.h"
#include "text/jinja/value.h"

namespace moebius::text::jinja {

struct LoopObject;

// Names that the interpreter itself sets. Parsing gives the first ids to the named ones.
inline constexpr NameId kLoopName = 0;
inline constexpr NameId kCallerName = 1;
inline constexpr NameId kKwargsName = 2;
inline constexpr NameId kVarargsName = 3;

// The variables of one level: the template, one pass of a loop, one call of a macro, ...
struct Scope {
  explicit Scope(std::shared_ptr<Scope> parent) : parent(std::move(parent)) {}
  // Null when this level lacks the name.
  Value* Find(NameId name);
  void Set(NameId name, Value value);

  std::shared_ptr<Scope> parent;
  std::vector<std::pair<NameId, Value>> variables;
};
using ScopePtr = std::shared_ptr<Scope>;

struct RenderOptions {
  Limits limits;
  // What strftime_now reads; the wall clock when absent.
  std::optional<std::time_t> now;
};

class Interpreter {
 public:
  Interpreter(const ParsedTemplate& parsed, const RenderOptions& options)
      : parsed_(parsed), options_(options), budget_(options.limits) {}
  ~Interpreter();
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // The template's text with `variables`. Errors begin with "line N: ".
  Result<std::string> Render(const Dict& variables);

  // For filters, tests and functions.
  Budget& budget() { return budget_; }
  const RenderOptions& options() const { return options_; }
  Result<Value> Call(const Value& callee, CallArgs args);
  Result<Value> ApplyFilter(const std::string& name, const Value& subject, const CallArgs& args);
  Result<bool> ApplyTest(const std::string& name, const Value& subject, const CallArgs& args);
  Result<Value> MakeNamespace(Dict attributes);
  // The call of a macro made by {% macro %} or {% call %}.
  Result<Value> CallMacro(const Stmt& macro, const ScopePtr& closure, CallArgs args);

 private:
  enum class Flow : uint8_t { kNormal, kBreak, kContinue };

  // Statements (interpreter.cc, loop.cc, macro.cc).
  Result<Flow> Exec(const Body& body, const ScopePtr& scope, std::string& out);
  Result<Flow> ExecStmt(const Stmt& stmt, const ScopePtr& scope, std::string& out);
  Result<Flow> ExecIf(const Stmt& stmt, const ScopePtr& scope, std::string& out);
  Result<Flow> ExecFor(const Stmt& stmt, const ScopePtr& scope, std::string& out);
  // `ran` tells whether a pass reached its end.
  Result<Flow> ExecLoopBody(const Stmt& stmt, const ScopePtr& scope,
                            const std::shared_ptr<LoopObject>& loop, bool& ran, std::string& out);
  Result<Flow> ExecSetBlock(const Stmt& stmt, const ScopePtr& scope);
  Result<Flow> ExecFilterBlock(const Stmt& stmt, const ScopePtr& scope, std::string& out);
  Result<Flow> ExecWith(const Stmt& stmt, const ScopePtr& scope, std::string& out);
  Status ExecCall(const Stmt& stmt, const ScopePtr& scope, std::string& out);
  Value MakeMacro(const Stmt& stmt, const ScopePtr& scope);
  Status Assign(const Target& target, const Value& value, const ScopePtr& scope);
  Status Emit(const Value& value, std::string& out);
  // A new scope below this one, in which `hidden` are undefined.
  ScopePtr Enter(const ScopePtr& scope, const std::vector<NameId>& hidden = {}) const;
  Value UndefinedName(NameId name) const;

  // Expressions (evaluator.cc).
  Result<Value> Eval(const Expr& expr, const ScopePtr& scope);
  Result<Value> EvalInner(const Expr& expr, const ScopePtr& scope);
  Result<Value> EvalOperand(const Expr& expr, size_t idx, const ScopePtr& scope);
  Result<std::vector<Value>> EvalAll(const std::vector<ExprPtr>& exprs, const ScopePtr& scope);
  Result<Value> EvalDict(const Expr& expr, const ScopePtr& scope);
  Result<Value> EvalConcat(const Expr& expr, const ScopePtr& scope);
  Result<Value> EvalCompare(const Expr& expr, const ScopePtr& scope);
  Result<Value> EvalConditional(const Expr& expr, const ScopePtr& scope);
  Result<Value> EvalSlice(const Expr& expr, const ScopePtr& scope);
  // A filter or test; `subject` is its operand's value.
  Result<Value> EvalBuiltin(const Expr& expr, const Value& subject, const ScopePtr& scope);
  Result<CallArgs> EvalArguments(const Arguments& arguments, const ScopePtr& scope);
  Result<Value> Lookup(NameId name, const ScopePtr& scope);
  // Accounts for a new value: its size, and how deeply it nests.
  Status Account(const Value& value);

  friend class DepthCounter;

  const ParsedTemplate& parsed_;
  RenderOptions options_;
  Budget budget_;
  int depth_ = 0;
  bool has_error_line_ = false;
  // What could form a cycle, kept until the end and then emptied.
  std::vector<std::shared_ptr<NamespaceObject>> namespaces_;
  std::vector<ScopePtr> captured_scopes_;
};

}  // namespace moebius::text::jinja
