#include "text/jinja/parser.h"

#include <algorithm>
#include <initializer_list>

#include "text/jinja/expr_parser.h"
#include "text/jinja/parse_context.h"
#include "text/jinja/scoping.h"

namespace moebius::text::jinja {
namespace {

using EndTags = std::initializer_list<std::string_view>;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens)
      : context_(std::move(tokens)), tokens_(context_.tokens), expressions_(context_) {}

  Result<ParsedTemplate> Run() {
    ParsedTemplate parsed;
    MOEBIUS_ASSIGN(parsed.body, Statements({}));
    context_.KeepUnknowns(0);
    if (!context_.kept_unknowns.empty()) return tl::unexpected<Error>(context_.kept_unknowns[0]);
    parsed.names = std::move(context_.names);
    ResolveScopes(parsed);
    return parsed;
  }

 private:
  static StmtPtr New(StmtKind kind, int line) {
    auto stmt = std::make_unique<Stmt>();
    stmt->kind = kind;
    stmt->line = line;
    return stmt;
  }

  // Statements up to one of `end_tags`, whose name is then the current token; up to the end without
  // any.
  Result<Body> Statements(EndTags end_tags) {
    const DepthGuard guard(context_);
    MOEBIUS_TRY(guard.Check());
    Body body;
    while (!tokens_.Is(TokenType::kEnd)) {
      const int line = tokens_.line();
      if (tokens_.Is(TokenType::kData)) {
        StmtPtr data = New(StmtKind::kData, line);
        data->text = tokens_.Take().text;
        body.push_back(std::move(data));
      } else if (tokens_.Is(TokenType::kVariableBegin)) {
        tokens_.Take();
        StmtPtr output = New(StmtKind::kOutput, line);
        MOEBIUS_ASSIGN(output->expr, expressions_.TupleOrExpression());
        MOEBIUS_TRY(tokens_.Expect(TokenType::kVariableEnd, "'}}'"));
        body.push_back(std::move(output));
      } else {
        MOEBIUS_TRY(tokens_.Expect(TokenType::kBlockBegin, "'{%'"));
        for (std::string_view tag : end_tags) {
          if (tokens_.IsName(tag)) return body;
        }
        MOEBIUS_TRY(Statement(body));
        MOEBIUS_TRY(tokens_.Expect(TokenType::kBlockEnd, "'%}'"));
      }
    }
    if (end_tags.size() != 0)
      return tokens_.Unexpected(fmt::format("'{{% {} %}}'", *(end_tags.end() - 1)));
    return body;
  }

  // The body of a block: the end of its tag, the statements, and the end tag's name (taken when
  // there is but one).
  Result<Body> BlockBody(EndTags end_tags) {
    tokens_.SkipOperator(":");
    MOEBIUS_TRY(tokens_.Expect(TokenType::kBlockEnd, "'%}'"));
    MOEBIUS_ASSIGN(Body body, Statements(end_tags));
    if (end_tags.size() == 1) tokens_.Take();
    return body;
  }

  // A body with variables of its own.
  Result<Body> ScopedBody(EndTags end_tags) {
    const size_t mark = context_.unknowns.size();
    MOEBIUS_ASSIGN(Body body, BlockBody(end_tags));
    context_.KeepUnknowns(mark);
    return body;
  }

  // Appends the statement; `print a, b` makes several.
  Status Statement(Body& body) {
    const int line = tokens_.line();
    if (!tokens_.Is(TokenType::kName)) return tokens_.Unexpected("the name of a tag");
    const std::string tag = tokens_.Take().text;
    Result<StmtPtr> stmt = StmtPtr();
    if (tag == "if") {
      stmt = If(line);
    } else if (tag == "for") {
      stmt = For(line);
    } else if (tag == "set") {
      stmt = Set(line);
    } else if (tag == "macro") {
      stmt = Macro(line);
    } else if (tag == "call") {
      stmt = Call(line);
    } else if (tag == "filter") {
      stmt = FilterBlock(line);
    } else if (tag == "with") {
      stmt = With(line);
    } else if (tag == "generation") {
      stmt = Generation(line);
    } else if (tag == "break" || tag == "continue") {
      stmt = LoopControl(tag, line);
    } else if (tag == "print") {
      return Print(body, line);
    } else {
      return UnknownTag(tag);
    }
    if (!stmt) return tl::unexpected<Error>(std::move(stmt).error());
    body.push_back(std::move(*stmt));
    return {};
  }

  Status UnknownTag(const std::string& tag) const {
    for (std::string_view known : {"block", "extends", "include", "import", "from", "autoescape"}) {
      if (tag == known)
        return tokens_.Fail(ErrorCode::kUnsupported, "'{{% {} %}}' is not supported", tag);
    }
    return tokens_.Fail(ErrorCode::kInvalidArgument, "unknown tag '{{% {} %}}'", tag);
  }

  Result<StmtPtr> If(int line) {
    StmtPtr stmt = New(StmtKind::kIf, line);
    const size_t mark = context_.unknowns.size();
    while (true) {
      MOEBIUS_ASSIGN(ExprPtr test, expressions_.TupleOrExpression(false));
      MOEBIUS_ASSIGN(Body body, BlockBody({"elif", "else", "endif"}));
      stmt->branches.emplace_back(std::move(test), std::move(body));
      const std::string tag = tokens_.Take().text;
      if (tag == "elif") continue;
      if (tag == "else") {
        MOEBIUS_ASSIGN(stmt->orelse, BlockBody({"endif"}));
      }
      break;
    }
    context_.ForgiveUnknowns(mark);
    return stmt;
  }

  Result<StmtPtr> For(int line) {
    StmtPtr stmt = New(StmtKind::kFor, line);
    // `loop` must not be assigned anywhere from the target to the else branch.
    ++context_.num_all_loops;
    MOEBIUS_ASSIGN(stmt->target, expressions_.AssignTarget(false));
    MOEBIUS_TRY(tokens_.ExpectName("in"));
    MOEBIUS_ASSIGN(stmt->expr, expressions_.TupleOrExpression(false));
    const size_t mark = context_.unknowns.size();
    if (tokens_.SkipName("if")) {
      MOEBIUS_ASSIGN(stmt->test, expressions_.Expression());
      context_.KeepUnknowns(mark);
    }
    if (tokens_.IsName("recursive")) {
      return tokens_.Fail(ErrorCode::kUnsupported, "'recursive' loops are not supported");
    }
    ++context_.num_loops;
    MOEBIUS_ASSIGN(stmt->body, ScopedBody({"else", "endfor"}));
    --context_.num_loops;
    if (tokens_.Take().text == "else") {
      MOEBIUS_ASSIGN(stmt->orelse, ScopedBody({"endfor"}));
    }
    --context_.num_all_loops;
    return stmt;
  }

  Result<StmtPtr> Set(int line) {
    StmtPtr stmt = New(StmtKind::kSet, line);
    MOEBIUS_ASSIGN(stmt->target, expressions_.AssignTarget(true));
    if (tokens_.SkipOperator("=")) {
      MOEBIUS_ASSIGN(stmt->expr, expressions_.TupleOrExpression());
      return stmt;
    }
    stmt->kind = StmtKind::kSetBlock;
    const size_t mark = context_.unknowns.size();
    MOEBIUS_ASSIGN(stmt->expr, expressions_.Filters(nullptr, false));
    context_.KeepUnknowns(mark);
    MOEBIUS_ASSIGN(stmt->body, ScopedBody({"endset"}));
    return stmt;
  }

  // The body of a macro: break and continue do not reach out of it.
  Result<Body> MacroBody(Signature& signature, EndTags end_tags) {
    const int num_loops = context_.num_loops;
    context_.num_loops = 0;
    context_.macros.push_back(&signature);
    MOEBIUS_ASSIGN(Body body, ScopedBody(end_tags));
    context_.macros.pop_back();
    context_.num_loops = num_loops;
    return body;
  }

  Status MacroSignature(Signature& signature) {
    MOEBIUS_TRY(tokens_.ExpectOperator("("));
    while (!tokens_.IsOperator(")")) {
      if (!signature.parameters.empty()) MOEBIUS_TRY(tokens_.ExpectOperator(","));
      MOEBIUS_ASSIGN(const NameId name, expressions_.AssignName());
      if (tokens_.SkipOperator("=")) {
        MOEBIUS_ASSIGN(ExprPtr value, expressions_.Expression());
        signature.defaults.push_back(std::move(value));
      } else if (!signature.defaults.empty()) {
        return tokens_.Fail(ErrorCode::kInvalidArgument,
                            "a parameter without default follows one with a default");
      }
      if (std::count(signature.parameters.begin(), signature.parameters.end(), name) != 0) {
        return tokens_.Fail(ErrorCode::kInvalidArgument, "parameter '{}' is there twice",
                            context_.names[name]);
      }
      signature.parameters.push_back(name);
    }
    tokens_.Take();
    return {};
  }

  Result<StmtPtr> Macro(int line) {
    StmtPtr stmt = New(StmtKind::kMacro, line);
    MOEBIUS_ASSIGN(stmt->name, expressions_.AssignName());
    stmt->signature.name = context_.names[stmt->name];
    const size_t mark = context_.unknowns.size();
    MOEBIUS_TRY(MacroSignature(stmt->signature));
    context_.KeepUnknowns(mark);
    MOEBIUS_ASSIGN(stmt->body, MacroBody(stmt->signature, {"endmacro"}));
    return stmt;
  }

  Result<StmtPtr> Call(int line) {
    StmtPtr stmt = New(StmtKind::kCall, line);
    if (tokens_.IsOperator("(")) MOEBIUS_TRY(MacroSignature(stmt->signature));
    MOEBIUS_ASSIGN(stmt->expr, expressions_.Expression());
    if (stmt->expr->kind != ExprKind::kCall) {
      return tokens_.Fail(ErrorCode::kInvalidArgument, "'{{% call %}}' needs a call");
    }
    MOEBIUS_ASSIGN(stmt->body, MacroBody(stmt->signature, {"endcall"}));
    return stmt;
  }

  // Marks what the assistant wrote, for training; rendering is that of its body, in a scope of its
  // own.
  Result<StmtPtr> Generation(int line) {
    StmtPtr stmt = New(StmtKind::kScope, line);
    MOEBIUS_ASSIGN(stmt->body, MacroBody(stmt->signature, {"endgeneration"}));
    return stmt;
  }

  Result<StmtPtr> FilterBlock(int line) {
    StmtPtr stmt = New(StmtKind::kFilter, line);
    const size_t mark = context_.unknowns.size();
    MOEBIUS_ASSIGN(stmt->expr, expressions_.Filters(nullptr, true));
    context_.KeepUnknowns(mark);
    MOEBIUS_ASSIGN(stmt->body, ScopedBody({"endfilter"}));
    return stmt;
  }

  Result<StmtPtr> With(int line) {
    StmtPtr stmt = New(StmtKind::kWith, line);
    while (!tokens_.Is(TokenType::kBlockEnd)) {
      if (!stmt->bindings.empty()) MOEBIUS_TRY(tokens_.ExpectOperator(","));
      MOEBIUS_ASSIGN(Target target, expressions_.AssignTarget(false));
      MOEBIUS_TRY(tokens_.ExpectOperator("="));
      MOEBIUS_ASSIGN(ExprPtr value, expressions_.Expression());
      stmt->bindings.emplace_back(std::move(target), std::move(value));
    }
    MOEBIUS_ASSIGN(stmt->body, ScopedBody({"endwith"}));
    return stmt;
  }

  Result<StmtPtr> LoopControl(const std::string& tag, int line) {
    if (context_.num_loops == 0) {
      return tokens_.Fail(ErrorCode::kInvalidArgument, "'{{% {} %}}' outside of a loop", tag);
    }
    return New(tag == "break" ? StmtKind::kBreak : StmtKind::kContinue, line);
  }

  Status Print(Body& body, int line) {
    bool first = true;
    while (!tokens_.Is(TokenType::kBlockEnd)) {
      if (!first) MOEBIUS_TRY(tokens_.ExpectOperator(","));
      first = false;
      StmtPtr output = New(StmtKind::kOutput, line);
      MOEBIUS_ASSIGN(output->expr, expressions_.Expression());
      body.push_back(std::move(output));
    }
    return {};
  }

  ParseContext context_;
  TokenStream& tokens_;
  ExprParser expressions_;
};

}  // namespace

Result<ParsedTemplate> Parse(std::string_view source) {
  MOEBIUS_ASSIGN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace moebius::text::jinja
