#include "text/regex_syntax.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <optional>
#include <vector>

#include "text/unicode.h"

namespace moebius::text {
namespace {

// The members of Oniguruma's classes. PCRE2's own \s has U+180E besides, its \w other marks and
// letters, its \h and \v are blanks where Oniguruma has hexadecimal digits and one control.
constexpr std::string_view kSpaceMembers = R"(\t-\r\x{20}\x{85}\p{Z})";
constexpr std::string_view kWordMembers =
    R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";
constexpr std::string_view kHexMembers = "0-9A-Fa-f";

constexpr int kMaxNesting = 32;

bool Compiles(const std::string& pattern) {
  int error = 0;
  PCRE2_SIZE where = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &where, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  Result<std::string> Run() {
    while (!AtEnd()) MOEBIUS_TRY(Step());
    if (!groups_.empty()) return Unsupported("an unclosed '('");
    return std::move(out_);
  }

 private:
  // What was read last, as a thing that a quantifier would apply to.
  struct Atom {
    size_t begin;     // in out_
    bool quantified;  // has a quantifier already
  };

  bool AtEnd() const { return pos_ == in_.size(); }
  char Peek(size_t ahead = 0) const { return pos_ + ahead < in_.size() ? in_[pos_ + ahead] : '\0'; }
  bool Accept(std::string_view token) {
    if (in_.substr(pos_, token.size()) != token) return false;
    pos_ += token.size();
    return true;
  }
  tl::unexpected<Error> Unsupported(std::string_view what) const {
    return MakeError(ErrorCode::kUnsupported, "regular expression '{}': {} is not supported", in_,
                     what);
  }

  Status Step();
  Status OpenGroup();
  Status CloseGroup();
  Status Quantifier();
  Status Escape();
  // After "\p" or "\P": the property, spelled for PCRE2.
  Result<std::string> Property(bool negated);
  // After '[': the class as a stand-alone expression.
  Result<std::string> Class(int depth);
  // One member or range end of a class.
  Result<std::string> ClassItem();
  // After '\': an escape that means one character, if it is one.
  Result<std::optional<std::string>> CharacterEscape();

  void BeginAtom() { atom_ = Atom{out_.size(), false}; }

  std::string_view in_;
  size_t pos_ = 0;
  std::string out_;
  std::optional<Atom> atom_;
  std::vector<size_t> groups_;  // where each open group begins in out_
};

Status Translator::Step() {
  switch (Peek()) {
    case '(':
      return OpenGroup();
    case ')':
      return CloseGroup();
    case '*':
    case '+':
    case '?':
    case '{':
      return Quantifier();
    case '\\':
      ++pos_;
      return Escape();
    case '[': {
      ++pos_;
      MOEBIUS_ASSIGN(const std::string members, Class(0));
      BeginAtom();
      out_ += members;
      return {};
    }
    case '|':
    case '^':
    case '$':
      atom_.reset();
      out_ += in_[pos_++];
      return {};
    default: {
      BeginAtom();
      const auto size = static_cast<size_t>(DecodeAt(in_, pos_).size);
      out_ += in_.substr(pos_, size);
      pos_ += size;
      return {};
    }
  }
}

Status Translator::OpenGroup() {
  if (groups_.size() >= kMaxNesting) return Unsupported("deeper nesting of groups");
  groups_.push_back(out_.size());
  ++pos_;
  atom_.reset();
  out_ += '(';
  if (Peek() == '*') return Unsupported("'(*'");
  if (!Accept("?")) return {};
  for (const std::string_view head : {":", "=", "!", ">", "<=", "<!"}) {
    if (Accept(head)) {
      out_ += '?';
      out_ += head;
      return {};
    }
  }
  // Case-insensitive groups; Oniguruma's other flags have other scopes or meanings.
  if (Accept("i:")) {
    out_ += "?i:";
    return {};
  }
  return Unsupported(fmt::format("'{}'", in_.substr(pos_ - 2, 4)));
}

Status Translator::CloseGroup() {
  if (groups_.empty()) return Unsupported("an unopened ')'");
  ++pos_;
  out_ += ')';
  atom_ = Atom{groups_.back(), false};
  groups_.pop_back();
  return {};
}

Status Translator::Quantifier() {
  std::string quantifier;
  bool interval = false;
  if (Peek() == '{') {
    size_t end = pos_ + 1;
    while (end < in_.size() && (std::isdigit(static_cast<uint8_t>(in_[end])) || in_[end] == ',')) {
      ++end;
    }
    const std::string_view bounds = in_.substr(pos_ + 1, end - pos_ - 1);
    if (end == in_.size() || in_[end] != '}' || bounds.empty() || bounds == ",") {
      BeginAtom();  // a brace that stands for itself
      out_ += "\\{";
      ++pos_;
      return {};
    }
    interval = true;
    quantifier = fmt::format("{{{}{}}}", bounds[0] == ',' ? "0" : "", bounds);
    pos_ = end + 1;
  } else {
    quantifier = in_[pos_++];
  }
  if (!atom_) return Unsupported(fmt::format("'{}' after nothing", quantifier));
  const auto wrap = [&] {
    out_.insert(atom_->begin, "(?:");
    out_ += ')';
  };
  if (atom_->quantified) wrap();
  out_ += quantifier;
  atom_->quantified = true;
  // "x{2}?" and "x{2,3}+" quantify again, where PCRE2 would read lazy and possessive; "x{2,3}?" is
  // lazy in both.
  const bool exact = interval && quantifier.find(',') == std::string::npos;
  const char next = Peek();
  if (next == '+' && !interval) out_ += in_[pos_++];
  if (next == '?' && !exact) out_ += in_[pos_++];
  return {};
}

Result<std::optional<std::string>> Translator::CharacterEscape() {
  const char c = Peek();
  const auto hex = [&](size_t digits) -> std::optional<std::string> {
    const std::string_view code = in_.substr(pos_ + 1, digits);
    if (code.size() < digits) return std::nullopt;
    for (const char digit : code) {
      if (!std::isxdigit(static_cast<uint8_t>(digit))) return std::nullopt;
    }
    pos_ += 1 + digits;
    return fmt::format("\\x{{{}}}", code);
  };
  switch (c) {
    case 'n':
    case 'r':
    case 't':
    case 'f':
    case 'a':
    case 'e':
      ++pos_;
      return std::string{'\\', c};
    case 'v':
      ++pos_;
      return "\\x{0b}";
    case 'u':
      if (auto code = hex(4)) return code;
      return Unsupported("this '\\u'");
    case 'x': {
      if (Peek(1) != '{') {
        if (auto code = hex(2)) return code;
        return Unsupported("this '\\x'");
      }
      const size_t end = in_.find('}', pos_);
      if (end == std::string_view::npos) return Unsupported("an unclosed '\\x{'");
      std::string code = fmt::format("\\{}", in_.substr(pos_, end + 1 - pos_));
      pos_ = end + 1;
      return code;
    }
    default:
      break;
  }
  const auto byte = static_cast<uint8_t>(c);
  if (AtEnd() || std::isalnum(byte)) return std::nullopt;
  const auto size = static_cast<size_t>(DecodeAt(in_, pos_).size);
  std::string literal = byte < 0x80 ? "\\" : "";
  literal += in_.substr(pos_, size);
  pos_ += size;
  return literal;
}

Status Translator::Escape() {
  const bool assertion = Peek() == 'A' || Peek() == 'z' || Peek() == 'Z';
  if (assertion) {
    atom_.reset();
    out_ += '\\';
    out_ += in_[pos_++];
    return {};
  }
  BeginAtom();
  const char c = Peek();
  const auto members = [&](bool negated, std::string_view list) {
    ++pos_;
    out_ += fmt::format("[{}{}]", negated ? "^" : "", list);
  };
  switch (c) {
    case 's':
    case 'S':
      members(c == 'S', kSpaceMembers);
      return {};
    case 'w':
    case 'W':
      members(c == 'W', kWordMembers);
      return {};
    case 'h':
    case 'H':
      members(c == 'H', kHexMembers);
      return {};
    case 'd':
    case 'D':
      members(c == 'D', R"(\p{Nd})");
      return {};
    case 'p':
    case 'P': {
      ++pos_;
      MOEBIUS_ASSIGN(const std::string property, Property(c == 'P'));
      out_ += property;
      return {};
    }
    default:
      break;
  }
  MOEBIUS_ASSIGN(const std::optional<std::string> character, CharacterEscape());
  if (!character) return Unsupported(fmt::format("'\\{}'", c));
  out_ += *character;
  return {};
}

Result<std::string> Translator::Property(bool negated) {
  const size_t end = in_.find('}', pos_);
  if (Peek() != '{' || end == std::string_view::npos) return Unsupported("'\\p' without braces");
  std::string_view name = in_.substr(pos_ + 1, end - pos_ - 1);
  pos_ = end + 1;
  if (!name.empty() && name[0] == '^') {
    negated = !negated;
    name.remove_prefix(1);
  }
  for (const char c : name) {
    if (!std::isalnum(static_cast<uint8_t>(c)) && c != '_') {
      return Unsupported(fmt::format("the property '{}'", name));
    }
  }
  // A script's plain name means its extensions too in PCRE2, the script alone in Oniguruma.
  for (const std::string_view kind : {name.size() <= 2 ? "" : "sc:", ""}) {
    std::string property = fmt::format("\\{}{{{}{}}}", negated ? 'P' : 'p', kind, name);
    if (Compiles(property)) return property;
  }
  return Unsupported(fmt::format("the property '{}'", name));
}

Result<std::string> Translator::ClassItem() {
  if (Peek() != '\\') {
    const auto size = static_cast<size_t>(DecodeAt(in_, pos_).size);
    std::string item(in_.substr(pos_, size));
    pos_ += size;
    return item;
  }
  ++pos_;
  const char c = Peek();
  switch (c) {
    case 's':
      ++pos_;
      return std::string(kSpaceMembers);
    case 'S':
      ++pos_;
      return R"(\P{White_Space})";
    case 'w':
      ++pos_;
      return std::string(kWordMembers);
    case 'h':
      ++pos_;
      return std::string(kHexMembers);
    case 'd':
    case 'D':
      ++pos_;
      return c == 'd' ? R"(\p{Nd})" : R"(\P{Nd})";
    case 'p':
    case 'P':
      ++pos_;
      return Property(c == 'P');
    case 'b':
      ++pos_;
      return R"(\x{08})";
    default:
      break;
  }
  MOEBIUS_ASSIGN(const std::optional<std::string> character, CharacterEscape());
  if (!character) return Unsupported(fmt::format("'\\{}' in a class", c));
  return *character;
}

Result<std::string> Translator::Class(int depth) {
  if (depth >= kMaxNesting) return Unsupported("deeper nesting of classes");
  const bool negated = Accept("^");
  std::vector<std::string> operands(1);  // of '&&'
  while (Peek() != ']') {
    if (AtEnd()) return Unsupported("an unclosed '['");
    if (Accept("&&")) {
      operands.emplace_back();
      continue;
    }
    const bool alone = operands.back().empty();
    if (Accept("[")) {
      // Beside other members it would mean the union with them.
      if (!alone || negated || Peek() == ':') return Unsupported("this class in a class");
      MOEBIUS_ASSIGN(operands.back(), Class(depth + 1));
      if (Peek() != ']' && in_.substr(pos_, 2) != "&&") {
        return Unsupported("a class beside other members of a class");
      }
      continue;
    }
    MOEBIUS_ASSIGN(const std::string item, ClassItem());
    operands.back() += alone ? "[" + item : item;
    if (Peek() == ']' || in_.substr(pos_, 2) == "&&") operands.back() += ']';
  }
  ++pos_;
  for (const std::string& operand : operands) {
    if (operand.empty()) return Unsupported("an empty class");
  }
  if (operands.size() == 1) {
    if (negated) operands[0].insert(1, "^");
    return operands[0];
  }
  if (negated) return Unsupported("a negated '&&'");
  std::string both = "(?:";
  for (size_t i = 1; i < operands.size(); ++i) both += "(?=" + operands[i] + ")";
  return both + operands[0] + ")";
}

}  // namespace

Result<std::string> TranslatePattern(std::string_view pattern) { return Translator(pattern).Run(); }

}  // namespace moebius::text
