// What the parsers of expressions and statements share: tokens, names, and where in the template
// they are.
#pragma once

#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/ast.h"
#include "text/jinja/token_stream.h"

namespace moebius::text::jinja {

// Brackets within brackets and blocks within blocks; a bound on the parser's own recursion.
inline constexpr int kMaxParseDepth = 100;
// Of an expression's tree: a chain "a + b + c + ..." is as high as it is long.
inline constexpr int kMaxExprHeight = 1000;

struct ParseContext {
  explicit ParseContext(std::vector<Token> token_list) : tokens(std::move(token_list)) {
    // In the order of kLoopName, kCallerName, ... (interpreter.h).
    for (const char* name : {"loop", "caller", "kwargs", "varargs"}) Intern(name);
  }

  NameId Intern(const std::string& name) {
    const auto [it, is_new] = ids.emplace(name, static_cast<NameId>(names.size()));
    if (is_new) names.push_back(name);
    return it->second;
  }

  TokenStream tokens;
  std::vector<std::string> names;
  std::unordered_map<std::string, NameId> ids;
  int depth = 0;

  // Loops around this point within the innermost macro: break and continue need one.
  int num_loops = 0;
  // All loops around this point: `loop` cannot be assigned there.
  int num_all_loops = 0;
  // Unknown filters and tests so far. jinja2 refuses them when it compiles, except directly within
  // if blocks and inline ifs, where only reaching one is an error: those are forgiven, unless a
  // scope of their own (a loop's body, ...) lies between, which keeps them.
  std::vector<Error> unknowns;
  std::vector<Error> kept_unknowns;
  void AddUnknown(int line, const Error& error) {
    unknowns.push_back(error.WithContext(fmt::format("line {}", line)));
  }
  void ForgiveUnknowns(size_t mark) {
    unknowns.erase(unknowns.begin() + static_cast<int64_t>(mark), unknowns.end());
  }
  void KeepUnknowns(size_t mark) {
    kept_unknowns.insert(kept_unknowns.end(), unknowns.begin() + static_cast<int64_t>(mark),
                         unknowns.end());
    ForgiveUnknowns(mark);
  }

  // The macros around this point, innermost last.
  std::vector<Signature*> macros;
};

// Counts one level of parser recursion while it lives.
class DepthGuard {
 public:
  explicit DepthGuard(ParseContext& context) : context_(context) { ++context_.depth; }
  ~DepthGuard() { --context_.depth; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;
  Status Check() const {
    if (context_.depth <= kMaxParseDepth) return {};
    return context_.tokens.Fail(ErrorCode::kUnsupported, "nested deeper than {} levels",
                                kMaxParseDepth);
  }

 private:
  ParseContext& context_;
};

}  // namespace moebius::text::jinja
