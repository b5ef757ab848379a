#include "text/jinja/str_format.h"

#include <charconv>
#include <string>

#include "text/jinja/attributes.h"
#include "text/jinja/interpreter.h"
#include "text/jinja/number_format.h"
#include "text/jinja/print.h"

namespace moebius::text::jinja {
namespace {

// An index: all digits. Absent otherwise.
std::optional<int64_t> AsIndex(std::string_view text) {
  int64_t number = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || text[0] == '-' || error != std::errc() || stop != text.data() + text.size())
    return std::nullopt;
  return number;
}

class StrFormatter {
 public:
  StrFormatter(Interpreter& interpreter, const CallArgs& args)
      : interpreter_(interpreter), args_(args) {}

  // A specification may hold fields itself ("{:{width}}"), but no deeper.
  Result<std::string> Run(std::string_view format, int levels) {
    std::string out;
    for (size_t at = 0; at < format.size();) {
      const char c = format[at];
      if (c != '{' && c != '}') {
        out += c;
        ++at;
        continue;
      }
      if (at + 1 < format.size() && format[at + 1] == c) {
        out += c;
        at += 2;
        continue;
      }
      if (c == '}') return Fail("single '}'");
      if (levels == 0) return Fail("fields nested too deeply");
      const size_t end = FieldEnd(format, at);
      if (end == std::string_view::npos) return Fail("'{' without '}'");
      MOEBIUS_ASSIGN(const std::string text, Field(format.substr(at + 1, end - at - 1), levels));
      out += text;
      at = end + 1;
    }
    return out;
  }

 private:
  static tl::unexpected<Error> Fail(std::string_view what) {
    return MakeError(ErrorCode::kInvalidArgument, "str.format: {}", what);
  }

  static size_t FieldEnd(std::string_view format, size_t open) {
    int depth = 0;
    for (size_t at = open; at < format.size(); ++at) {
      if (format[at] == '{') ++depth;
      if (format[at] == '}' && --depth == 0) return at;
    }
    return std::string_view::npos;
  }

  Result<std::string> Field(std::string_view field, int levels) {
    const size_t name_end = std::min(field.find_first_of("!:"), field.size());
    MOEBIUS_ASSIGN(Value value, Resolve(field.substr(0, name_end)));
    std::string_view rest = field.substr(name_end);
    if (rest.starts_with('!')) {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':'))
        return Fail("bad conversion behind '!'");
      MOEBIUS_ASSIGN(value, Convert(value, rest[1]));
      rest.remove_prefix(2);
    }
    if (rest.starts_with(':')) rest.remove_prefix(1);
    MOEBIUS_ASSIGN(const std::string spec, Run(rest, levels - 1));
    return Format(value, spec);
  }

  Result<Value> Convert(const Value& value, char conversion) {
    Budget& budget = interpreter_.budget();
    if (conversion != 's' && conversion != 'r') {
      return MakeError(ErrorCode::kUnsupported, "str.format: conversion '!{}' is not supported",
                       conversion);
    }
    MOEBIUS_ASSIGN(std::string text,
                   conversion == 's' ? ToStr(value, budget) : ToRepr(value, budget));
    return Value::String(std::move(text));
  }

  // "0", "name", "" (the next one), each with ".attribute" and "[element]" behind.
  Result<Value> Resolve(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    MOEBIUS_ASSIGN(Value value, Argument(name.substr(0, first_end)));
    name.remove_prefix(first_end);
    while (!name.empty()) {
      const bool is_attribute = name[0] == '.';
      const size_t end =
          is_attribute ? std::min(name.find_first_of(".[", 1), name.size()) : name.find(']');
      if (end == std::string_view::npos) return Fail("missing ']'");
      const std::string part(name.substr(1, end - 1));
      if (part.empty()) return Fail("an empty attribute");
      if (is_attribute) {
        MOEBIUS_ASSIGN(value, GetAttribute(interpreter_, value, part));
      } else {
        const std::optional<int64_t> index = AsIndex(part);
        MOEBIUS_ASSIGN(
            value, GetItem(interpreter_, value, index ? Value::Int(*index) : Value::String(part)));
      }
      name.remove_prefix(is_attribute ? end : end + 1);
      if (!name.empty() && name[0] != '.' && name[0] != '[')
        return Fail("only '.' or '[' may follow ']'");
    }
    return value;
  }

  Result<Value> Argument(std::string_view name) {
    const std::optional<int64_t> index = AsIndex(name);
    if (name.empty() || index) {
      if (is_automatic_.value_or(name.empty()) != name.empty())
        return Fail("mixes '{}' with numbered fields");
      is_automatic_ = name.empty();
      const auto idx = static_cast<size_t>(name.empty() ? next_++ : *index);
      if (idx >= args_.positional.size()) return Fail("not enough arguments");
      return args_.positional[idx];
    }
    for (const auto& [keyword, value] : args_.keywords) {
      if (keyword == name) return value;
    }
    return MakeError(ErrorCode::kInvalidArgument, "str.format: no argument '{}'", name);
  }

  Result<std::string> Format(const Value& value, const std::string& spec_text) {
    Budget& budget = interpreter_.budget();
    if (spec_text.empty()) return ToStr(value, budget);
    if (!value.IsNumber() && !value.IsString()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "str.format: a {} takes no format specification", value.TypeName());
    }
    MOEBIUS_ASSIGN(const FormatSpec spec, ParseFormatSpec(spec_text));
    if (value.IsString()) return FormatText(value.AsString(), spec, budget);
    return FormatNumber(value, spec, budget);
  }

  Interpreter& interpreter_;
  const CallArgs& args_;
  int64_t next_ = 0;
  std::optional<bool> is_automatic_;
};

}  // namespace

Result<Value> StrFormatMethod(Interpreter& interpreter, const Value& subject,
                              const BoundArgs& args) {
  if (subject.IsMarkup())
    return MakeError(ErrorCode::kUnsupported, "format of Markup is not supported");
  MOEBIUS_TRY(interpreter.budget().Bytes(static_cast<int64_t>(subject.AsString().size())));
  MOEBIUS_ASSIGN(std::string text,
                 StrFormatter(interpreter, args.rest()).Run(subject.AsString(), 2));
  return Value::String(std::move(text));
}

}  // namespace moebius::text::jinja
