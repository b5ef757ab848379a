// The tokens of a template and the parser's place among them. Shared by the parsers of expressions
// and statements.
#pragma once

#include <fmt/core.h>

#include <algorithm>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja/lexer.h"

namespace moebius::text::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& next() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  // Returns the current token and moves on; stays at the end.
  const Token& Take() {
    const Token& token = tokens_[at_];
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }

  bool Is(TokenType type) const { return current().type == type; }
  bool IsOperator(std::string_view text) const { return IsOperator(current(), text); }
  bool IsName(std::string_view text) const { return IsName(current(), text); }
  static bool IsOperator(const Token& token, std::string_view text) {
    return token.type == TokenType::kOperator && token.text == text;
  }
  static bool IsName(const Token& token, std::string_view text) {
    return token.type == TokenType::kName && token.text == text;
  }

  bool SkipOperator(std::string_view text) {
    if (!IsOperator(text)) return false;
    Take();
    return true;
  }
  bool SkipName(std::string_view text) {
    if (!IsName(text)) return false;
    Take();
    return true;
  }
  Status ExpectOperator(std::string_view text) {
    if (SkipOperator(text)) return {};
    return Unexpected(fmt::format("'{}'", text));
  }
  Status ExpectName(std::string_view text) {
    if (SkipName(text)) return {};
    return Unexpected(fmt::format("'{}'", text));
  }
  Status Expect(TokenType type, std::string_view what) {
    if (!Is(type)) return Unexpected(what);
    Take();
    return {};
  }
  Result<std::string> ExpectAnyName() {
    if (!Is(TokenType::kName)) return Unexpected("a name");
    return Take().text;
  }

  tl::unexpected<Error> Unexpected(std::string_view wanted) const {
    return Fail(ErrorCode::kInvalidArgument, "expected {}, got '{}'", wanted, Describe(current()));
  }
  template <typename... Args>
  tl::unexpected<Error> Fail(ErrorCode code, fmt::format_string<Args...> format,
                             Args&&... args) const {
    return MakeError(code, "line {}: {}", line(), fmt::format(format, std::forward<Args>(args)...));
  }

 private:
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace moebius::text::jinja
