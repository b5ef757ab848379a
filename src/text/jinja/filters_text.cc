// Filters that make text of their subject: upper, trim, replace, indent, ...
#include <fmt/core.h>

#include <algorithm>

#include "text/jinja/filters.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/operators.h"
#include "text/jinja/percent_format.h"
#include "text/jinja/print.h"
#include "text/jinja/string_ops.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

// jinja's soft_str: Markup stays Markup, everything else is printed.
Result<Value> SoftStr(Interpreter& interpreter, const Value& value) {
  if (value.IsString()) return value;
  MOEBIUS_ASSIGN(std::string text, ToStr(value, interpreter.budget()));
  return Value::String(std::move(text));
}

template <std::string (*kMap)(std::string_view)>
Result<Value> Map(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  MOEBIUS_ASSIGN(const Value text, SoftStr(interpreter, subject));
  return Value::String(kMap(text.AsString()), text.IsMarkup());
}

// Unlike str.title, words begin behind blanks, hyphens and opening brackets only.
std::string TitleWords(std::string_view text) {
  std::string out;
  bool starts_word = true;
  for (size_t at = 0; at < text.size();) {
    const size_t size = CharSize(text, at);
    const uint32_t code = CodeAt(text, at);
    const bool is_break =
        IsSpace(code) || (code < 0x80 && std::string_view("-({[<").find(static_cast<char>(code)) !=
                                             std::string_view::npos);
    if (is_break) {
      out += text.substr(at, size);
      starts_word = true;
      at += size;
    } else if (starts_word) {
      out += ToUpper(text.substr(at, size));
      starts_word = false;
      at += size;
    } else {
      // The rest of the word at once: a final sigma needs its surroundings.
      size_t end = at;
      while (end < text.size()) {
        const uint32_t next = CodeAt(text, end);
        if (IsSpace(next) || (next < 0x80 && std::string_view("-({[<").find(static_cast<char>(
                                                 next)) != std::string_view::npos))
          break;
        end += CharSize(text, end);
      }
      out += ToLower(text.substr(at, end - at));
      at = end;
    }
  }
  return out;
}

Result<Value> Trim(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const Value text, SoftStr(interpreter, subject));
  if (!args.IsSet(0))
    return Value::String(std::string(Strip(text.AsString(), Side::kBoth)), text.IsMarkup());
  MOEBIUS_ASSIGN(const std::string chars, args.Text(0, ""));
  MOEBIUS_TRY(ChargeSearch(text.AsString(), chars, interpreter.budget()));
  return Value::String(std::string(StripChars(text.AsString(), chars, Side::kBoth)),
                       text.IsMarkup());
}

Result<Value> Replace(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  Budget& budget = interpreter.budget();
  MOEBIUS_ASSIGN(const std::string text, ToStr(subject, budget));
  MOEBIUS_ASSIGN(const std::string from, ToStr(args.Get(0), budget));
  MOEBIUS_ASSIGN(const std::string to, ToStr(args.Get(1), budget));
  int64_t count = -1;
  if (args.IsSet(2)) {
    MOEBIUS_ASSIGN(count, args.Int(2, -1));
  }
  MOEBIUS_ASSIGN(std::string out, ReplaceText(text, from, to, count, budget));
  return Value::String(std::move(out));
}

Result<Value> Indent(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  if (!subject.IsString()) {
    return MakeError(ErrorCode::kInvalidArgument, "indent: needs str, not {}", subject.TypeName());
  }
  std::string indention;
  if (args.Has(0) && args.Get(0).IsString()) {
    indention = args.Get(0).AsString();
  } else {
    MOEBIUS_ASSIGN(const int64_t width, args.Int(0, 4));
    MOEBIUS_TRY(interpreter.budget().Bytes(std::max<int64_t>(width, 0)));
    indention = RepeatText(" ", width);
  }
  const bool blank = args.Truthy(2);
  const std::string text = subject.AsString() + "\n";
  const std::vector<std::string_view> lines = SplitLines(text, false);
  MOEBIUS_TRY(interpreter.budget().Bytes(
      static_cast<int64_t>(text.size() + lines.size() * (indention.size() + 1))));
  std::string out = args.Truthy(1) ? indention : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i != 0) {
      out += '\n';
      if (blank || !lines[i].empty()) out += indention;
    }
    out += lines[i];
  }
  return Value::String(std::move(out), subject.IsMarkup());
}

Result<Value> Center(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const Value text, SoftStr(interpreter, subject));
  MOEBIUS_ASSIGN(const int64_t width, args.Int(0, 80));
  const int64_t padding =
      std::max<int64_t>(width - static_cast<int64_t>(NumChars(text.AsString())), 0);
  MOEBIUS_TRY(interpreter.budget().Bytes(padding));
  const int64_t left = padding / 2 + (padding & width & 1);
  return Value::String(RepeatText(" ", left) + text.AsString() + RepeatText(" ", padding - left),
                       text.IsMarkup());
}

Result<Value> Truncate(Interpreter&, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const int64_t length, args.Int(0, 255));
  MOEBIUS_ASSIGN(const std::string end, args.Text(2, "..."));
  int64_t leeway = 5;
  if (args.IsSet(3)) {
    MOEBIUS_ASSIGN(leeway, args.Int(3, 5));
  }
  const auto end_length = static_cast<int64_t>(NumChars(end));
  if (length < end_length || leeway < 0) {
    return MakeError(ErrorCode::kInvalidArgument, "truncate: length {} or leeway {} is too small",
                     length, leeway);
  }
  if (subject.IsUndefined()) return subject;
  MOEBIUS_ASSIGN(const int64_t size, Length(subject));
  if (size <= length || size - length <= leeway) return subject;
  if (!subject.IsString()) {
    return MakeError(ErrorCode::kInvalidArgument, "truncate: needs str, not {}",
                     subject.TypeName());
  }
  const std::string& text = subject.AsString();
  std::string kept = text.substr(0, ByteOffset(text, static_cast<size_t>(length - end_length)));
  if (!args.Truthy(1)) {
    const size_t blank = kept.rfind(' ');
    if (blank != std::string::npos) kept.resize(blank);
  }
  return Value::String(kept + end, subject.IsMarkup());
}

Result<Value> WordCount(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  MOEBIUS_ASSIGN(const Value value, SoftStr(interpreter, subject));
  const std::string& text = value.AsString();
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size(); at += CharSize(text, at)) {
    const bool is_word = text[at] == '_' || IsAlnum(CodeAt(text, at));
    if (is_word && !in_word) ++count;
    in_word = is_word;
  }
  return Value::Int(count);
}

Result<Value> Format(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  const CallArgs& given = args.rest();
  if (!given.positional.empty() && !given.keywords.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "format: cannot take positional and keyword arguments at once");
  }
  MOEBIUS_ASSIGN(const Value text, SoftStr(interpreter, subject));
  if (given.keywords.empty())
    return PercentFormat(interpreter, text, Value::Tuple(given.positional));
  Dict values;
  for (const auto& [name, value] : given.keywords) values.Set(name, value);
  return PercentFormat(interpreter, text, Value::Dict(std::move(values)));
}

template <bool kForce>
Result<Value> Escape(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  if (subject.IsMarkup() && !kForce) return subject;
  MOEBIUS_ASSIGN(const std::string text, ToStr(subject, interpreter.budget()));
  MOEBIUS_TRY(interpreter.budget().Bytes(static_cast<int64_t>(text.size()) * 5));
  return Value::String(EscapeHtml(text), true);
}

Result<Value> Safe(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  MOEBIUS_ASSIGN(std::string text, ToStr(subject, interpreter.budget()));
  return Value::String(std::move(text), true);
}

Result<Value> String(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  return SoftStr(interpreter, subject);
}

void AppendQuoted(std::string& out, const std::string& text, std::string_view safe) {
  for (char c : text) {
    const bool plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos ||
                       safe.find(c) != std::string_view::npos;
    if (plain) {
      out += c;
    } else {
      out += c == ' ' && safe.empty() ? "+" : fmt::format("%{:02X}", static_cast<uint8_t>(c));
    }
  }
}

Result<Value> UrlEncode(Interpreter& interpreter, const Value& subject, const BoundArgs&) {
  Budget& budget = interpreter.budget();
  std::string out;
  if (subject.IsString() || !IsIterable(subject)) {
    MOEBIUS_ASSIGN(const std::string text, ToStr(subject, budget));
    AppendQuoted(out, text, "/");
    return Value::String(std::move(out));
  }
  std::vector<Value> pairs;
  if (subject.IsDict()) {
    for (const auto& [key, value] : subject.AsDict()) pairs.push_back(Value::Tuple({key, value}));
  } else {
    MOEBIUS_ASSIGN(pairs, ToItems(subject, budget));
  }
  for (const Value& pair : pairs) {
    MOEBIUS_ASSIGN(const std::vector<Value> parts, ToItems(pair, budget));
    if (parts.size() != 2) return MakeError(ErrorCode::kInvalidArgument, "urlencode: needs pairs");
    if (!out.empty()) out += '&';
    for (size_t i = 0; i < 2; ++i) {
      MOEBIUS_ASSIGN(const std::string text, ToStr(parts[i], budget));
      AppendQuoted(out, text, "");
      if (i == 0) out += '=';
    }
  }
  return Value::String(std::move(out));
}

constexpr Builtin kTextFilters[] = {
    {"capitalize", "", 0, Map<ToCapitalized>},
    {"center", "width", 0, Center},
    {"e", "", 0, Escape<false>},
    {"escape", "", 0, Escape<false>},
    {"forceescape", "", 0, Escape<true>},
    {"format", "*", 0, Format},
    {"indent", "width first blank", 0, Indent},
    {"lower", "", 0, Map<ToLower>},
    {"replace", "old new count", 2, Replace},
    {"safe", "", 0, Safe},
    {"string", "", 0, String},
    {"title", "", 0, Map<TitleWords>},
    {"trim", "chars", 0, Trim},
    {"truncate", "length killwords end leeway", 0, Truncate},
    {"upper", "", 0, Map<ToUpper>},
    {"urlencode", "", 0, UrlEncode},
    {"wordcount", "", 0, WordCount},
};

}  // namespace

std::span<const Builtin> TextFilters() { return kTextFilters; }

}  // namespace moebius::text::jinja
