// A parsed template. Owned by Template, never changed after parsing; any thread may walk it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace moebius::text::jinja {

struct Builtin;
struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using StmtPtr = std::unique_ptr<Stmt>;
using Body = std::vector<StmtPtr>;

// A variable's name, as an index of ParsedTemplate::names.
using NameId = uint32_t;

enum class ExprKind : uint8_t {
  kConst,      // value
  kName,       // name
  kList,       // operands
  kTuple,      // operands
  kDict,       // operands: key, value, key, value, ...
  kAttribute,  // operands[0].text
  kItem,       // operands[0][operands[1]]
  kSlice,    // operands[0][operands[1]:operands[2]:operands[3]]; any of the last three may be null
  kCall,     // operands[0](arguments)
  kFilter,   // operands[0]|text(arguments); operands[0] is null in {% filter %} and {% set x | f %}
  kTest,     // operands[0] is text(arguments)
  kNot,      // operands[0]
  kNegate,   // operands[0]
  kPlus,     // operands[0]
  kBinary,   // operands[0] op operands[1]
  kConcat,   // operands joined by ~
  kCompare,  // operands[0] comparisons[0] operands[1] comparisons[1] operands[2] ...
  kAnd,      // operands[0] and operands[1]
  kOr,       // operands[0] or operands[1]
  kConditional,  // operands[0] if operands[1] else operands[2]; operands[2] may be null
};

enum class BinaryOp : uint8_t { kAdd, kSub, kMul, kDiv, kFloorDiv, kMod, kPow };
enum class CompareOp : uint8_t { kEq, kNe, kLt, kLe, kGt, kGe, kIn, kNotIn };

struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  ExprPtr rest;           // *rest
  ExprPtr rest_keywords;  // **rest_keywords
};

struct Expr {
  ExprKind kind = ExprKind::kConst;
  BinaryOp op = BinaryOp::kAdd;
  int line = 1;
  int height = 1;  // of this subtree
  NameId name = 0;
  Value value;
  std::string text;
  std::vector<ExprPtr> operands;
  std::vector<CompareOp> comparisons;
  Arguments arguments;
  const Builtin* builtin =
      nullptr;  // of kFilter and kTest; null: unknown, an error when it is reached
};

// What is assigned to: a name, a namespace's attribute, or a tuple of targets.
struct Target {
  NameId name = 0;
  std::string attribute;  // not empty: name.attribute
  std::vector<Target> elements;
  bool is_tuple = false;
};

struct Signature {
  std::string name;  // empty for {% call %}
  std::vector<NameId> parameters;
  std::vector<ExprPtr> defaults;  // of the last parameters
  // Whether the body reads these: it then takes them.
  bool uses_caller = false;
  bool uses_kwargs = false;
  bool uses_varargs = false;
};

enum class StmtKind : uint8_t {
  kData,      // text
  kOutput,    // {{ expr }}
  kIf,        // branches, orelse
  kFor,       // for target in expr if test: body, else: orelse
  kSet,       // set target = expr
  kSetBlock,  // set target | expr: body; expr may be null
  kMacro,     // macro signature: body; name
  kCall,      // call(signature) expr: body
  kFilter,    // filter expr: body
  kWith,      // with targets = values: body
  kScope,     // generation: body
  kBreak,
  kContinue,
};

struct Stmt {
  StmtKind kind = StmtKind::kData;
  int line = 1;
  NameId name = 0;
  std::string text;
  ExprPtr expr;
  ExprPtr test;
  Target target;
  Body body;
  Body orelse;
  std::vector<std::pair<ExprPtr, Body>> branches;
  std::vector<std::pair<Target, ExprPtr>> bindings;  // of kWith
  Signature signature;
  // Variables that begin undefined in the scope of `body` and of `orelse` (jinja/scoping.h).
  std::vector<NameId> hidden;
  std::vector<NameId> orelse_hidden;
};

struct ParsedTemplate {
  Body body;
  std::vector<std::string> names;
  std::vector<NameId> hidden;  // as in Stmt
};

}  // namespace moebius::text::jinja
