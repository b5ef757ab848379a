#include "text/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <utility>

#include "text/jinja/string_literal.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

// One kind of newline, and none at the very end.
std::string NormalizeSource(std::string_view source) {
  std::string text = NormalizeNewlines(source);
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

bool IsAsciiDigit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeSource(source)) {}

  Result<std::vector<Token>> Run() {
    while (at_ < source_.size()) MOEBIUS_TRY(LexRoot());
    Emit(TokenType::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool StartsWith(size_t at, std::string_view text) const {
    return source_.compare(at, text.size(), text) == 0;
  }

  size_t SkipSpace(size_t at) const {
    while (at < source_.size() && IsSpace(CodeAt(source_, at))) at += CharSize(source_, at);
    return at;
  }

  Token& Emit(TokenType type, std::string text) {
    Token& token = tokens_.emplace_back();
    token.type = type;
    token.line = line_;
    token.text = std::move(text);
    return token;
  }

  // Moves to `end`, counting lines.
  void Advance(size_t end) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<int64_t>(at_),
                                         source_.begin() + static_cast<int64_t>(end), '\n'));
    after_newline_ = end > 0 && source_[end - 1] == '\n';
    at_ = end;
  }

  template <typename... Args>
  auto Fail(fmt::format_string<Args...> format, Args&&... args) const {
    return MakeError(ErrorCode::kInvalidArgument, "line {}: {}", line_,
                     fmt::format(format, std::forward<Args>(args)...));
  }

  // The text before a tag at `end`, without what the tag's sign or lstrip_blocks takes away.
  void EmitData(size_t end, char sign, bool lstrip) {
    std::string_view data = std::string_view(source_).substr(at_, end - at_);
    if (sign == '-') {
      data = Strip(data, Side::kRight);
    } else if (sign != '+' && lstrip) {
      const size_t newline = data.rfind('\n');
      const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line_start > 0 || after_newline_) && SkipSpace(at_ + line_start) >= end)
        data = data.substr(0, line_start);
    }
    if (!data.empty()) Emit(TokenType::kData, std::string(data));
  }

  static char SignAt(std::string_view text, size_t at) {
    return at < text.size() && (text[at] == '-' || text[at] == '+') ? text[at] : '\0';
  }

  // `{% raw %}` at `at`: the byte after it, or 0.
  size_t MatchRawBegin(size_t at) const {
    at += 2;
    if (SignAt(source_, at) != '\0') ++at;
    at = SkipSpace(at);
    if (!StartsWith(at, "raw")) return 0;
    at = SkipSpace(at + 3);
    if (StartsWith(at, "-%}")) return SkipSpace(at + 3);
    return StartsWith(at, "%}") ? at + 2 : 0;
  }

  // The end tag `close` at `at`: the byte after it and what it strips, or 0. `trim` takes one
  // newline.
  size_t MatchClose(size_t at, std::string_view close, bool trim) const {
    if (trim && StartsWith(at, "+") && StartsWith(at + 1, close)) return at + 1 + close.size();
    if (StartsWith(at, "-") && StartsWith(at + 1, close)) return SkipSpace(at + 1 + close.size());
    if (!StartsWith(at, close)) return 0;
    at += close.size();
    return trim && StartsWith(at, "\n") ? at + 1 : at;
  }

  // `{% endraw %}` at `at`: the byte after it, or 0.
  size_t MatchRawEnd(size_t at) const {
    at += 2;
    if (SignAt(source_, at) != '\0') ++at;
    at = SkipSpace(at);
    if (!StartsWith(at, "endraw")) return 0;
    return MatchClose(SkipSpace(at + 6), "%}", true);
  }

  Status LexRoot() {
    size_t tag = at_;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        Emit(TokenType::kData, source_.substr(at_));
        Advance(source_.size());
        return {};
      }
      const char next = source_[tag + 1];
      if (next == '%' || next == '{' || next == '#') break;
      ++tag;
    }
    const char kind = source_[tag + 1];
    const char sign = SignAt(source_, tag + 2);
    EmitData(tag, sign, kind != '{');
    Advance(tag);
    if (kind == '%') {
      if (const size_t body = MatchRawBegin(tag); body != 0) {
        Advance(body);
        return LexRaw();
      }
    }
    Advance(tag + 2 + (sign != '\0' ? 1 : 0));
    if (kind == '#') return LexComment();
    return kind == '%' ? LexTag(TokenType::kBlockBegin, TokenType::kBlockEnd, "%}", true)
                       : LexTag(TokenType::kVariableBegin, TokenType::kVariableEnd, "}}", false);
  }

  Status LexComment() {
    for (size_t at = at_; at < source_.size(); ++at) {
      if (const size_t end = MatchClose(at, "#}", true); end != 0) {
        Advance(end);
        return {};
      }
    }
    // As in jinja2, one that begins where the template ends is none.
    if (at_ == source_.size()) return {};
    return Fail("a comment '{{#' does not end");
  }

  Status LexRaw() {
    for (size_t at = at_; (at = source_.find("{%", at)) != std::string::npos; ++at) {
      const size_t end = MatchRawEnd(at);
      if (end == 0) continue;
      EmitData(at, SignAt(source_, at + 2), true);
      Advance(end);
      return {};
    }
    if (at_ == source_.size()) return {};
    return Fail("'{{% raw %}}' has no '{{% endraw %}}'");
  }

  Status LexTag(TokenType begin, TokenType end_type, std::string_view close, bool trim) {
    Emit(begin, "");
    std::string open_brackets;
    while (at_ < source_.size()) {
      if (open_brackets.empty()) {
        if (const size_t end = MatchClose(at_, close, trim); end != 0) {
          Emit(end_type, "");
          Advance(end);
          return {};
        }
      }
      if (const size_t end = SkipSpace(at_); end != at_) {
        Advance(end);
        continue;
      }
      MOEBIUS_TRY(LexExpressionToken(open_brackets));
    }
    // The parser says what is missing.
    return {};
  }

  Status LexExpressionToken(std::string& open_brackets) {
    const char c = source_[at_];
    if (IsAsciiDigit(c)) return LexNumber();
    const uint32_t code = CodeAt(source_, at_);
    if (c == '_' || IsAlnum(code)) return LexName();
    if (c == '\'' || c == '"') return LexString();
    return LexOperator(open_brackets);
  }

  Status LexName() {
    size_t end = at_;
    if (!IsAlpha(CodeAt(source_, at_)) && source_[at_] != '_')
      return Fail("invalid character in identifier");
    while (end < source_.size() && (source_[end] == '_' || IsAlnum(CodeAt(source_, end))))
      end += CharSize(source_, end);
    Emit(TokenType::kName, source_.substr(at_, end - at_));
    Advance(end);
    return {};
  }

  Status LexString() {
    const char quote = source_[at_];
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return Fail("a string does not end: {}", source_.substr(at_, 20));
    const std::string_view literal = std::string_view(source_).substr(at_ + 1, end - at_ - 1);
    Result<std::string> text = DecodeStringLiteral(literal);
    if (!text)
      return tl::unexpected<Error>(text.error().WithContext(fmt::format("line {}", line_)));
    Emit(TokenType::kString, std::move(*text));
    Advance(end + 1);
    return {};
  }

  // Digits with single underscores between them, from `at`; `at` when there are none.
  size_t SkipDigits(size_t at, std::string_view digits = "0123456789") const {
    const auto is_digit = [&](size_t i) {
      return i < source_.size() && digits.find(source_[i]) != std::string_view::npos;
    };
    if (!is_digit(at)) return at;
    while (is_digit(at) || (at < source_.size() && source_[at] == '_' && is_digit(at + 1))) ++at;
    return at;
  }

  // The end of a float at at_, or at_ when it is none (no fraction and no exponent).
  size_t MatchFloat() const {
    if (at_ > 0 && source_[at_ - 1] == '.') return at_;
    const size_t whole = SkipDigits(at_);
    size_t end = whole;
    if (StartsWith(end, ".") && SkipDigits(end + 1) != end + 1) end = SkipDigits(end + 1);
    if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      size_t digits = end + 1;
      if (SignAt(source_, digits) != '\0') ++digits;
      if (SkipDigits(digits) != digits) return SkipDigits(digits);
    }
    return end == whole ? at_ : end;
  }

  Status LexNumber() {
    if (const size_t end = MatchFloat(); end != at_) {
      std::string digits = source_.substr(at_, end - at_);
      std::erase(digits, '_');
      Token& token = Emit(TokenType::kFloat, digits);
      // Out of range, it gives inf and 0, as Python does.
      token.number = std::strtod(digits.c_str(), nullptr);
      Advance(end);
      return {};
    }
    constexpr std::array<std::pair<char, std::string_view>, 3> kBases = {
        {{'x', "0123456789abcdefABCDEF"}, {'o', "01234567"}, {'b', "01"}}};
    size_t begin = at_;
    size_t end = 0;
    int base = 10;
    for (const auto& [letter, digits] : kBases) {
      if (source_[at_] != '0' || at_ + 1 >= source_.size() || (source_[at_ + 1] | 0x20) != letter)
        continue;
      size_t first = at_ + 2;
      if (StartsWith(first, "_")) ++first;
      if (SkipDigits(first, digits) == first) continue;
      begin = first;
      end = SkipDigits(first, digits);
      base = letter == 'x' ? 16 : letter == 'o' ? 8 : 2;
    }
    // A decimal that begins with zero is only zeros: 007 is the two tokens 00 and 7.
    if (end == 0) end = source_[at_] == '0' ? SkipDigits(at_, "0") : SkipDigits(at_);
    std::string digits = source_.substr(begin, end - begin);
    std::erase(digits, '_');
    Token& token = Emit(TokenType::kInteger, digits);
    const auto [stop, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), token.integer, base);
    if (error != std::errc()) {
      return tl::unexpected<Error>(
          Error(ErrorCode::kUnsupported,
                fmt::format("line {}: integer {} is beyond 64 bits", line_, digits)));
    }
    Advance(end);
    return {};
  }

  Status LexOperator(std::string& open_brackets) {
    constexpr std::array<std::string_view, 26> kOperators = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    const auto* found = std::find_if(kOperators.begin(), kOperators.end(),
                                     [&](std::string_view op) { return StartsWith(at_, op); });
    if (found == kOperators.end()) {
      return Fail("unexpected character '{}'", source_.substr(at_, CharSize(source_, at_)));
    }
    const char c = (*found)[0];
    if (c == '(' || c == '[' || c == '{') {
      open_brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (c == ')' || c == ']' || c == '}') {
      if (open_brackets.empty()) return Fail("unexpected '{}'", c);
      if (open_brackets.back() != c)
        return Fail("unexpected '{}', expected '{}'", c, open_brackets.back());
      open_brackets.pop_back();
    }
    Emit(TokenType::kOperator, std::string(*found));
    Advance(at_ + found->size());
    return {};
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool after_newline_ =
      true;  // whether at_ is at the start of a line, as far as lstrip_blocks asks
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> Tokenize(std::string_view source) { return Lexer(source).Run(); }

std::string Describe(const Token& token) {
  switch (token.type) {
    case TokenType::kData:
      return "template text";
    case TokenType::kBlockBegin:
      return "{%";
    case TokenType::kBlockEnd:
      return "%}";
    case TokenType::kVariableBegin:
      return "{{";
    case TokenType::kVariableEnd:
      return "}}";
    case TokenType::kString:
      return fmt::format("\"{}\"", token.text);
    case TokenType::kEnd:
      return "the end of the template";
    default:
      return token.text;
  }
}

}  // namespace moebius::text::jinja
