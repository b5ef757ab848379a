// Methods of str. A method of Markup gives Markup, and escapes the text it is given.
#include <fmt/core.h>

#include <algorithm>
#include <functional>

#include "text/jinja/interpreter.h"
#include "text/jinja/iterate.h"
#include "text/jinja/methods.h"
#include "text/jinja/operators.h"
#include "text/jinja/str_format.h"
#include "text/jinja/string_ops.h"
#include "text/jinja/unicode.h"

namespace moebius::text::jinja {
namespace {

Value Like(const Value& subject, std::string text) {
  return Value::String(std::move(text), subject.IsMarkup());
}

// A text argument, escaped where the subject is Markup and the argument is not.
Result<std::string> SafeText(const Value& subject, const BoundArgs& args, size_t idx,
                             std::string fallback) {
  MOEBIUS_ASSIGN(std::string text, args.Text(idx, std::move(fallback)));
  if (subject.IsMarkup() && args.Has(idx) && !args.Get(idx).IsMarkup()) return EscapeHtml(text);
  return text;
}

Status ChargePieces(Interpreter& interpreter, const Value& subject, size_t num_pieces) {
  constexpr int64_t kPieceBytes = 96;
  return interpreter.budget().Bytes(static_cast<int64_t>(subject.AsString().size()) +
                                    static_cast<int64_t>(num_pieces) * kPieceBytes);
}

template <std::string (*kMap)(std::string_view)>
Result<Value> MapMethod(Interpreter&, const Value& subject, const BoundArgs&) {
  return Like(subject, kMap(subject.AsString()));
}

template <Side kSide>
Result<Value> StripMethod(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  if (!args.IsSet(0)) return Like(subject, std::string(Strip(subject.AsString(), kSide)));
  MOEBIUS_ASSIGN(const std::string chars, args.Text(0, ""));
  MOEBIUS_TRY(ChargeSearch(subject.AsString(), chars, interpreter.budget()));
  return Like(subject, std::string(StripChars(subject.AsString(), chars, kSide)));
}

template <bool kFromRight>
Result<Value> Split(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const int64_t max_splits, args.Int(1, -1));
  std::optional<std::string> separator;
  if (args.IsSet(0)) {
    MOEBIUS_ASSIGN(separator, args.Text(0, ""));
    if (separator->empty()) return MakeError(ErrorCode::kInvalidArgument, "split: empty separator");
  }
  MOEBIUS_TRY(ChargeSearch(subject.AsString(), separator.value_or(""), interpreter.budget()));
  const std::vector<std::string_view> views =
      SplitText(subject.AsString(), separator, max_splits, kFromRight);
  MOEBIUS_TRY(ChargePieces(interpreter, subject, views.size()));
  std::vector<Value> parts;
  for (std::string_view part : views) {
    parts.push_back(Like(subject, std::string(part)));
  }
  return Value::List(std::move(parts));
}

Result<Value> SplitLinesMethod(Interpreter& interpreter, const Value& subject,
                               const BoundArgs& args) {
  const std::vector<std::string_view> views = SplitLines(subject.AsString(), args.Truthy(0));
  MOEBIUS_TRY(ChargePieces(interpreter, subject, views.size()));
  std::vector<Value> lines;
  for (std::string_view line : views) {
    lines.push_back(Like(subject, std::string(line)));
  }
  return Value::List(std::move(lines));
}

template <bool kFromRight>
Result<Value> Partition(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::string separator, args.Text(0, ""));
  MOEBIUS_TRY(ChargeSearch(subject.AsString(), separator, interpreter.budget()));
  if (separator.empty())
    return MakeError(ErrorCode::kInvalidArgument, "partition: empty separator");
  const std::string& text = subject.AsString();
  const size_t at = kFromRight ? text.rfind(separator) : text.find(separator);
  if (at == std::string::npos) {
    const Value empty = Like(subject, "");
    return kFromRight ? Value::Tuple({empty, empty, subject})
                      : Value::Tuple({subject, empty, empty});
  }
  return Value::Tuple({Like(subject, text.substr(0, at)), Like(subject, separator),
                       Like(subject, text.substr(at + separator.size()))});
}

// subject[start:stop] for the methods that search in a part, and where that part begins.
struct Part {
  std::string_view text;
  int64_t first_char;
  bool valid;  // false where start lies behind the end: nothing is found there, not even ""
};
Result<Part> PartOf(const Value& subject, const BoundArgs& args, size_t start_idx) {
  const std::string& text = subject.AsString();
  const bool whole = !args.IsSet(start_idx) && !args.IsSet(start_idx + 1);
  if (whole) return Part{text, 0, true};
  const auto length = static_cast<int64_t>(NumChars(text));
  const auto resolve = [&](size_t idx, int64_t absent) -> Result<int64_t> {
    if (!args.IsSet(idx)) return absent;
    MOEBIUS_ASSIGN(const int64_t at, args.Int(idx, absent));
    return at < 0 ? std::max<int64_t>(std::max(at, -length) + length, 0) : at;
  };
  MOEBIUS_ASSIGN(const int64_t start, resolve(start_idx, 0));
  MOEBIUS_ASSIGN(const int64_t stop, resolve(start_idx + 1, length));
  const int64_t end = std::min(stop, length);
  if (start > end) return Part{{}, start, false};
  const size_t begin = ByteOffset(text, static_cast<size_t>(start));
  const size_t size =
      ByteOffset(std::string_view(text).substr(begin), static_cast<size_t>(end - start));
  return Part{std::string_view(text).substr(begin, size), start, true};
}

template <bool kAtEnd>
Result<Value> Affix(Interpreter&, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const Part part, PartOf(subject, args, 1));
  std::vector<Value> affixes = {args.Get(0)};
  if (args.Get(0).IsTuple()) affixes = args.Get(0).Items();
  bool found = false;
  for (const Value& affix : affixes) {
    if (!affix.IsString()) {
      return MakeError(ErrorCode::kInvalidArgument, "{}: needs str or a tuple of str, not {}",
                       args.function(), affix.TypeName());
    }
    found = found || (part.valid && (kAtEnd ? part.text.ends_with(affix.AsString())
                                            : part.text.starts_with(affix.AsString())));
  }
  return Value::Bool(found);
}

template <bool kFromRight, bool kMustExist>
Result<Value> Find(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::string wanted, args.Text(0, ""));
  MOEBIUS_TRY(ChargeSearch(subject.AsString(), wanted, interpreter.budget()));
  MOEBIUS_ASSIGN(const Part part, PartOf(subject, args, 1));
  const size_t at = !part.valid  ? std::string_view::npos
                    : kFromRight ? part.text.rfind(wanted)
                                 : part.text.find(wanted);
  if (at != std::string_view::npos) {
    return Value::Int(part.first_char + static_cast<int64_t>(NumChars(part.text.substr(0, at))));
  }
  if (kMustExist)
    return MakeError(ErrorCode::kInvalidArgument, "{}: substring not found", args.function());
  return Value::Int(-1);
}

Result<Value> Count(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::string wanted, args.Text(0, ""));
  MOEBIUS_TRY(ChargeSearch(subject.AsString(), wanted, interpreter.budget()));
  MOEBIUS_ASSIGN(const Part part, PartOf(subject, args, 1));
  if (!part.valid) return Value::Int(0);
  if (wanted.empty()) return Value::Int(static_cast<int64_t>(NumChars(part.text)) + 1);
  int64_t count = 0;
  for (size_t at = 0; (at = part.text.find(wanted, at)) != std::string_view::npos;
       at += wanted.size())
    ++count;
  return Value::Int(count);
}

Result<Value> ReplaceMethod(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::string from, args.Text(0, ""));
  MOEBIUS_ASSIGN(const std::string to, SafeText(subject, args, 1, ""));
  MOEBIUS_ASSIGN(const int64_t max_count, args.Int(2, -1));
  MOEBIUS_ASSIGN(std::string text,
                 ReplaceText(subject.AsString(), from, to, max_count, interpreter.budget()));
  return Like(subject, std::move(text));
}

Result<Value> JoinMethod(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const std::vector<Value> items, ToItems(args.Get(0), interpreter.budget()));
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].IsString()) {
      return MakeError(ErrorCode::kInvalidArgument, "join: item {} is {}, not str", i,
                       items[i].TypeName());
    }
    MOEBIUS_TRY(interpreter.budget().Bytes(
        static_cast<int64_t>(subject.AsString().size() + items[i].AsString().size())));
    if (i != 0) text += subject.AsString();
    text += subject.IsMarkup() && !items[i].IsMarkup() ? EscapeHtml(items[i].AsString())
                                                       : items[i].AsString();
  }
  return Like(subject, std::move(text));
}

enum class Align : uint8_t { kLeft, kRight, kCenter };
template <Align kAlign>
Result<Value> Justify(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const int64_t width, args.Int(0, 0));
  MOEBIUS_ASSIGN(const std::string fill, SafeText(subject, args, 1, " "));
  if (NumChars(fill) != 1) {
    return MakeError(ErrorCode::kInvalidArgument, "{}: the fill must be one character",
                     args.function());
  }
  const auto length = static_cast<int64_t>(NumChars(subject.AsString()));
  const int64_t padding = std::max<int64_t>(width - length, 0);
  MOEBIUS_TRY(interpreter.budget().Bytes(padding > INT64_MAX / 4 ? padding : padding * 4));
  // The odd blank of a centred text goes where CPython puts it.
  const int64_t left = kAlign == Align::kLeft    ? 0
                       : kAlign == Align::kRight ? padding
                                                 : padding / 2 + (padding & width & 1);
  return Like(subject,
              RepeatText(fill, left) + subject.AsString() + RepeatText(fill, padding - left));
}

Result<Value> ZeroFill(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  MOEBIUS_ASSIGN(const int64_t width, args.Int(0, 0));
  const std::string& text = subject.AsString();
  const int64_t padding = std::max<int64_t>(width - static_cast<int64_t>(NumChars(text)), 0);
  MOEBIUS_TRY(interpreter.budget().Bytes(padding));
  const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
  return Like(subject, text.substr(0, sign) + RepeatText("0", padding) + text.substr(sign));
}

// All characters have the property, and there is one.
template <bool (*kProperty)(uint32_t)>
Result<Value> All(Interpreter&, const Value& subject, const BoundArgs&) {
  const std::string& text = subject.AsString();
  for (size_t at = 0; at < text.size(); at += CharSize(text, at)) {
    if (!kProperty(CodeAt(text, at))) return Value::Bool(false);
  }
  return Value::Bool(!text.empty());
}

bool IsAsciiCode(uint32_t code) { return code < 0x80; }
Result<Value> AllAscii(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  if (subject.AsString().empty()) return Value::Bool(true);
  return All<IsAsciiCode>(interpreter, subject, args);
}
Result<Value> AllPrintable(Interpreter& interpreter, const Value& subject, const BoundArgs& args) {
  if (subject.AsString().empty()) return Value::Bool(true);
  return All<IsPrintable>(interpreter, subject, args);
}

template <bool kUpper>
Result<Value> IsCase(Interpreter&, const Value& subject, const BoundArgs&) {
  return Value::Bool(kUpper ? IsUpperText(subject.AsString()) : IsLowerText(subject.AsString()));
}

Result<Value> IsTitleMethod(Interpreter&, const Value& subject, const BoundArgs&) {
  const std::string& text = subject.AsString();
  bool in_word = false;
  bool any = false;
  for (size_t at = 0; at < text.size(); at += CharSize(text, at)) {
    const uint32_t code = CodeAt(text, at);
    const bool is_lower = IsLower(code);
    const bool starts_word = IsUpper(code) || IsTitle(code);
    if ((starts_word && in_word) || (is_lower && !in_word)) return Value::Bool(false);
    in_word = starts_word || is_lower;
    any = any || in_word;
  }
  return Value::Bool(any);
}

constexpr Builtin kStringMethods[] = {
    {"capitalize", "", 0, MapMethod<ToCapitalized>},
    {"center", "$width $fill", 1, Justify<Align::kCenter>},
    {"count", "$sub $start $end", 1, Count},
    {"endswith", "$suffix $start $end", 1, Affix<true>},
    {"find", "$sub $start $end", 1, Find<false, false>},
    {"format", "*", 0, StrFormatMethod},
    {"index", "$sub $start $end", 1, Find<false, true>},
    {"isalnum", "", 0, All<IsAlnum>},
    {"isalpha", "", 0, All<IsAlpha>},
    {"isascii", "", 0, AllAscii},
    {"isdecimal", "", 0, All<IsDecimal>},
    {"isdigit", "", 0, All<IsDigit>},
    {"islower", "", 0, IsCase<false>},
    {"isnumeric", "", 0, All<IsNumeric>},
    {"isprintable", "", 0, AllPrintable},
    {"isspace", "", 0, All<IsSpace>},
    {"istitle", "", 0, IsTitleMethod},
    {"isupper", "", 0, IsCase<true>},
    {"join", "$items", 1, JoinMethod},
    {"ljust", "$width $fill", 1, Justify<Align::kLeft>},
    {"lower", "", 0, MapMethod<ToLower>},
    {"lstrip", "$chars", 0, StripMethod<Side::kLeft>},
    {"partition", "$sep", 1, Partition<false>},
    {"replace", "$old $new $count", 2, ReplaceMethod},
    {"rfind", "$sub $start $end", 1, Find<true, false>},
    {"rindex", "$sub $start $end", 1, Find<true, true>},
    {"rjust", "$width $fill", 1, Justify<Align::kRight>},
    {"rpartition", "$sep", 1, Partition<true>},
    {"rsplit", "sep maxsplit", 0, Split<true>},
    {"rstrip", "$chars", 0, StripMethod<Side::kRight>},
    {"split", "sep maxsplit", 0, Split<false>},
    {"splitlines", "keepends", 0, SplitLinesMethod},
    {"startswith", "$prefix $start $end", 1, Affix<false>},
    {"strip", "$chars", 0, StripMethod<Side::kBoth>},
    {"swapcase", "", 0, MapMethod<ToSwappedCase>},
    {"title", "", 0, MapMethod<ToTitle>},
    {"upper", "", 0, MapMethod<ToUpper>},
    {"zfill", "$width", 1, ZeroFill},
};

}  // namespace

const Builtin* FindStringMethod(std::string_view name) { return FindBuiltin(kStringMethods, name); }

}  // namespace moebius::text::jinja
