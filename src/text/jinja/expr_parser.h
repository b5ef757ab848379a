// The expressions of templates, by recursive descent in jinja2's order of binding.
#pragma once

#include <string_view>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/parse_context.h"

namespace moebius::text::jinja {

class ExprParser {
 public:
  explicit ExprParser(ParseContext& context) : context_(context), tokens_(context.tokens) {}

  // One expression; without `with_condition`, "a if b else c" is left to the caller ("for x in a if
  // b").
  Result<ExprPtr> Expression(bool with_condition = true);
  // One expression or several with commas between, which make a tuple.
  Result<ExprPtr> TupleOrExpression(bool with_condition = true);
  // The filters behind `operand` ("|upper|trim"); null operand: what the block around them yields.
  Result<ExprPtr> Filters(ExprPtr operand, bool first_without_pipe);
  // "a, (b, c)" to assign to. Attributes ("ns.x") only with `with_attributes`.
  Result<Target> AssignTarget(bool with_attributes);
  // A name to assign to.
  Result<NameId> AssignName();

 private:
  Result<ExprPtr> Condition();
  Result<ExprPtr> Or();
  Result<ExprPtr> And();
  Result<ExprPtr> Not();
  Result<ExprPtr> Comparison();
  Result<ExprPtr> Sum();
  Result<ExprPtr> Concat();
  Result<ExprPtr> Product();
  Result<ExprPtr> Power();
  Result<ExprPtr> Unary(bool with_filters);
  Result<ExprPtr> Primary();
  Result<ExprPtr> Name();
  Result<ExprPtr> Parenthesized();
  Result<ExprPtr> ListLiteral();
  Result<ExprPtr> DictLiteral();
  Result<ExprPtr> Postfix(ExprPtr operand);
  Result<ExprPtr> FiltersAndTests(ExprPtr operand);
  Result<ExprPtr> Subscript(ExprPtr operand);
  Result<ExprPtr> Subscribed(ExprPtr operand);
  Result<ExprPtr> Call(ExprPtr callee);
  Result<ExprPtr> Test(ExprPtr operand);
  Result<Arguments> CallArguments();
  Result<Target> TargetElement(bool with_attributes);
  // A name with dots ("a.b"), as filters and tests may have.
  Result<std::string> DottedName();

  ExprPtr New(ExprKind kind, int line) const;
  // Fills in the height; refuses a tree that is too high.
  Result<ExprPtr> Done(ExprPtr expr) const;
  Result<ExprPtr> Binary(ExprKind kind, BinaryOp op, ExprPtr left, ExprPtr right, int line) const;

  ParseContext& context_;
  TokenStream& tokens_;
};

}  // namespace moebius::text::jinja
