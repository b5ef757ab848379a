#include "serve/openai/chat_messages.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja/json.h"

namespace moebius::serve {
namespace {

using text::jinja::Dict;
using text::jinja::Value;

bool IsNameChar(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

// Whether "for" at `pos` begins "for NAME in <a message's content>".
bool LoopsOverContent(std::string_view source, size_t pos) {
  pos += 3;
  const auto skip = [&](auto wanted) {
    while (pos < source.size() && wanted(source[pos])) ++pos;
  };
  const auto is_space = [](char c) { return c == ' '; };
  skip(is_space);
  skip(IsNameChar);
  skip(is_space);
  if (!source.substr(pos).starts_with("in ")) return false;
  pos += 3;
  skip(is_space);
  for (const std::string_view content :
       {"message.content", "message['content']", "message[\"content\"]", "content"}) {
    const std::string_view rest = source.substr(pos);
    if (!rest.starts_with(content)) continue;
    const char next = rest.size() > content.size() ? rest[content.size()] : ' ';
    return !IsNameChar(next) && next != '.' && next != '[' && next != '(';
  }
  return false;
}

tl::unexpected<ApiError> Wrong(const std::string& where, const Value& found,
                               std::string_view expected) {
  return BadRequest("messages", "{} is {}, expected {}", where, found.TypeName(), expected);
}

// The text of one part of a content.
ApiResult<std::string> PartText(const Value& part, const std::string& where) {
  if (part.IsString()) return part.AsString();
  if (!part.IsDict()) return Wrong(where, part, "an object with type and text");
  const Value* type = part.AsDict().Find("type");
  const std::string name = type == nullptr    ? "text"
                           : type->IsString() ? type->AsString()
                                              : type->TypeName();
  if (name != "text" && name != "input_text" && name != "output_text" && name != "refusal") {
    return BadRequest("messages", "{}.type is '{}', which is not supported; expected 'text'", where,
                      Shortened(name));
  }
  const Value* text = part.AsDict().Find(name == "refusal" ? "refusal" : "text");
  if (text == nullptr) return BadRequest("messages", "{}.text is missing", where);
  if (!text->IsString()) return Wrong(where + ".text", *text, "a text");
  return text->AsString();
}

ApiResult<Value> ReadContent(const Value& content, const TemplateTraits& traits,
                             const std::string& where) {
  if (content.IsString()) return content;
  if (!content.IsList()) return Wrong(where, content, "a text or a list of text parts");
  std::vector<Value> parts;
  std::string joined;
  for (size_t i = 0; i < content.Items().size(); ++i) {
    SERVE_ASSIGN(std::string text, PartText(content.Items()[i], fmt::format("{}[{}]", where, i)));
    if (i > 0) joined += '\n';
    joined += text;
    Dict part;
    part.Set("type", Value::String("text"));
    part.Set("text", Value::String(std::move(text)));
    parts.push_back(Value::Dict(std::move(part)));
  }
  return traits.loops_over_content ? Value::List(std::move(parts))
                                   : Value::String(std::move(joined));
}

// {"function": {"name", "arguments": JSON text}} with the arguments as the form wants them.
ApiResult<Value> ReadCall(const Value& call, const MessageForm& form, const std::string& where) {
  if (!call.IsDict()) return Wrong(where, call, "an object");
  const Value* function = call.AsDict().Find("function");
  if (function == nullptr || !function->IsDict()) {
    return BadRequest("messages", "{}.function is missing, expected an object", where);
  }
  const Value* arguments = function->AsDict().Find("arguments");
  if (arguments == nullptr || !arguments->IsString() || !form.parse_arguments) return call;
  const auto parsed =
      text::jinja::ParseJson(arguments->AsString().empty() ? "{}" : arguments->AsString(), where);
  if (!parsed || !parsed->IsDict()) return call;  // what a model once wrote need not be JSON
  Dict changed_function = function->AsDict();
  changed_function.Set("arguments", *parsed);
  Dict changed = call.AsDict();
  changed.Set("function", Value::Dict(std::move(changed_function)));
  return Value::Dict(std::move(changed));
}

ApiResult<Value> ReadCalls(const Value& calls, const MessageForm& form, const std::string& where) {
  if (!calls.IsList()) return Wrong(where, calls, "a list");
  std::vector<Value> items;
  for (size_t i = 0; i < calls.Items().size(); ++i) {
    SERVE_ASSIGN(Value call, ReadCall(calls.Items()[i], form, fmt::format("{}[{}]", where, i)));
    items.push_back(std::move(call));
  }
  return Value::List(std::move(items));
}

constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant",
                                                    "tool"};

std::string_view WithoutEnd(std::string_view text, std::string_view chars) {
  const size_t last = text.find_last_not_of(chars);
  return last == text.npos ? std::string_view() : text.substr(0, last + 1);
}

// Whether `text` ends with what holds a role: message.role, message['role'], role.
bool EndsWithRole(std::string_view text) {
  return WithoutEnd(text, " \t\n)]'\"").ends_with("role");
}

// Whether the literal between `before` and `after` is one that a role is compared with:
// "role == 'x'", "'x' != role", "role in ['y', 'x']".
bool IsComparedWithRole(std::string_view before, std::string_view after) {
  constexpr std::string_view kSpaces = " \t\n";
  static const std::string kName =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
  static const std::string kExpression = kName + ".[]()'\"";
  static const std::string kWords = kName + " \t\n,'\"-";
  const std::string_view left = WithoutEnd(before, kSpaces);
  if (left.ends_with("==") || left.ends_with("!=")) {
    return EndsWithRole(left.substr(0, left.size() - 2));
  }
  const size_t begin = after.find_first_not_of(kSpaces);
  if (begin != after.npos &&
      (after.substr(begin).starts_with("==") || after.substr(begin).starts_with("!="))) {
    std::string_view right = after.substr(begin + 2);
    right.remove_prefix(std::min(right.find_first_not_of(kSpaces), right.size()));
    return EndsWithRole(right.substr(0, right.find_first_not_of(kExpression)));
  }
  // Back over the list's other words.
  std::string_view list = WithoutEnd(left, kWords);
  if (!list.ends_with('[') && !list.ends_with('(')) return false;
  list = WithoutEnd(list.substr(0, list.size() - 1), kSpaces);
  if (!list.ends_with(" in")) return false;
  list = WithoutEnd(list.substr(0, list.size() - 3), kSpaces);
  if (list.ends_with(" not")) list.remove_suffix(4);
  return EndsWithRole(list);
}

// One of the API, or one that the template compares roles with ('ipython').
bool IsRole(const std::string& role, const TemplateTraits& traits) {
  if (std::find(kRoles.begin(), kRoles.end(), role) != kRoles.end()) return true;
  if (role.empty() || !std::all_of(role.begin(), role.end(), IsNameChar)) return false;
  const std::string_view source = traits.source;
  for (const char quote : {'\'', '"'}) {
    const std::string literal = quote + role + quote;
    for (size_t at = source.find(literal); at != source.npos; at = source.find(literal, at + 1)) {
      if (IsComparedWithRole(source.substr(0, at), source.substr(at + literal.size()))) return true;
    }
  }
  return false;
}

ApiResult<std::string> ReadRole(const Dict& message, const TemplateTraits& traits,
                                const std::string& where) {
  const Value* role = message.Find("role");
  if (role == nullptr) return BadRequest("messages", "{}.role is missing", where);
  const std::string expected = fmt::format("one of {}", fmt::join(kRoles, ", "));
  if (!role->IsString()) return Wrong(where + ".role", *role, expected);
  if (!IsRole(role->AsString(), traits)) {
    return BadRequest("messages", "{}.role is '{}', expected {}", where,
                      Shortened(role->AsString()), expected);
  }
  if (role->AsString() == "developer" && !traits.knows_developer) return std::string("system");
  return role->AsString();
}

ApiResult<Value> ReadMessage(const Dict& message, const TemplateTraits& traits,
                             const MessageForm& form, const std::string& where, bool* has_calls) {
  Dict out;
  SERVE_ASSIGN(const std::string role, ReadRole(message, traits, where));
  const Value* calls = message.Find("tool_calls");
  const bool with_calls =
      calls != nullptr && !calls->IsNone() && !(calls->IsList() && calls->Items().empty());
  *has_calls |= with_calls;
  const Value* content = message.Find("content");
  if (content != nullptr && content->IsNone()) content = nullptr;
  if (content == nullptr && (role == "user" || role == "system" || role == "developer")) {
    return BadRequest("messages", "{}.content is missing, expected a text or a list of text parts",
                      where);
  }
  out.Set("role", Value::String(role));
  if (content != nullptr) {
    SERVE_ASSIGN(Value text, ReadContent(*content, traits, where + ".content"));
    out.Set("content", std::move(text));
  } else {
    out.Set("content", with_calls && form.keep_null ? Value::None() : Value::String(""));
  }
  for (const auto& [key, value] : message) {
    const std::string& name = key.AsString();
    if (value.IsNone() || name == "role" || name == "content" || name == "tool_calls") continue;
    out.Set(name, value);
  }
  if (with_calls) {
    SERVE_ASSIGN(Value read, ReadCalls(*calls, form, where + ".tool_calls"));
    out.Set("tool_calls", std::move(read));
  }
  return Value::Dict(std::move(out));
}

}  // namespace

TemplateTraits TraitsOf(const std::string& template_source) {
  TemplateTraits traits;
  traits.source = template_source;
  traits.knows_developer = template_source.find("developer") != std::string::npos;
  for (size_t pos = template_source.find("for "); pos != std::string::npos;
       pos = template_source.find("for ", pos + 1)) {
    if (LoopsOverContent(template_source, pos)) traits.loops_over_content = true;
  }
  return traits;
}

ApiResult<Value> ReadMessages(const Value& messages, const TemplateTraits& traits,
                              const MessageForm& form, bool* has_calls) {
  if (!messages.IsList()) return Wrong("messages", messages, "a list of messages");
  if (messages.Items().empty()) {
    return BadRequest("messages", "messages is an empty list, expected at least one message");
  }
  std::vector<Value> read;
  for (size_t i = 0; i < messages.Items().size(); ++i) {
    const std::string where = fmt::format("messages[{}]", i);
    const Value& message = messages.Items()[i];
    if (!message.IsDict()) return Wrong(where, message, "an object");
    SERVE_ASSIGN(Value one, ReadMessage(message.AsDict(), traits, form, where, has_calls));
    read.push_back(std::move(one));
  }
  return Value::List(std::move(read));
}

std::string ContentText(const Value* content) {
  if (content == nullptr) return "";
  if (content->IsString()) return content->AsString();
  if (!content->IsList() || content->Items().empty()) return "";
  return content->Items().back().AsDict().Find("text")->AsString();
}

}  // namespace moebius::serve
