#include "text/chat_template.h"

#include <fmt/core.h>

#include <fstream>
#include <sstream>
#include <utility>

#include "text/jinja/json.h"
#include "text/jinja/template.h"

namespace moebius::text {
namespace {

using jinja::Dict;
using jinja::Template;
using jinja::Value;
namespace fs = std::filesystem;

// Absent when there is no such file.
Result<std::optional<std::string>> ReadFileIfAny(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return std::optional<std::string>();
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return MakeError(ErrorCode::kCorrupt, "{}: cannot be read", path.string());
  return std::optional<std::string>(text.str());
}

// The object in a JSON file; empty when there is no such file.
Result<Dict> ReadJsonObjectIfAny(const fs::path& path) {
  MOEBIUS_ASSIGN(const std::optional<std::string> text, ReadFileIfAny(path));
  if (!text) return Dict();
  MOEBIUS_ASSIGN(const Value value, jinja::ParseJson(*text, path.string()));
  if (!value.IsDict()) {
    return MakeError(ErrorCode::kCorrupt, "{}: expected an object, found {}", path.string(),
                     value.TypeName());
  }
  return value.AsDict();
}

struct Sources {
  std::optional<std::string> default_source;
  std::optional<std::string> tool_use;
};

// `chat_template` as tokenizer_config.json has it: a text, or [{"name": ..., "template": ...},
// ...].
Result<Sources> NamedSources(const Value& field, const std::string& file) {
  Sources sources;
  if (field.IsString()) {
    sources.default_source = field.AsString();
    return sources;
  }
  std::string names;
  if (field.IsList()) {
    for (const Value& entry : field.Items()) {
      const Value* name = entry.IsDict() ? entry.AsDict().Find("name") : nullptr;
      const Value* source = entry.IsDict() ? entry.AsDict().Find("template") : nullptr;
      if (name == nullptr || source == nullptr || !name->IsString() || !source->IsString()) {
        return MakeError(ErrorCode::kCorrupt,
                         "{}: each chat_template of a list needs texts 'name' and 'template'",
                         file);
      }
      if (name->AsString() == "default") sources.default_source = source->AsString();
      if (name->AsString() == "tool_use") sources.tool_use = source->AsString();
      names += (names.empty() ? "" : ", ") + name->AsString();
    }
    if (sources.default_source) return sources;
    return MakeError(ErrorCode::kNotFound,
                     "{}: chat_template has no entry named 'default', only: {}", file, names);
  }
  return MakeError(ErrorCode::kCorrupt, "{}: chat_template must be a text or a list, found {}",
                   file, field.TypeName());
}

Result<Sources> FindSources(const fs::path& folder, const Dict& tokenizer_config) {
  Sources sources;
  MOEBIUS_ASSIGN(sources.default_source, ReadFileIfAny(folder / "chat_template.jinja"));
  if (sources.default_source) {
    MOEBIUS_ASSIGN(sources.tool_use,
                   ReadFileIfAny(folder / "additional_chat_templates" / "tool_use.jinja"));
    return sources;
  }
  const Value* field = tokenizer_config.Find("chat_template");
  if (field != nullptr && !field->IsNone())
    return NamedSources(*field, (folder / "tokenizer_config.json").string());
  const fs::path json_path = folder / "chat_template.json";
  MOEBIUS_ASSIGN(const Dict json, ReadJsonObjectIfAny(json_path));
  field = json.Find("chat_template");
  if (field != nullptr) return NamedSources(*field, json_path.string());
  return MakeError(ErrorCode::kNotFound,
                   "{}: no chat template: looked for chat_template.jinja, 'chat_template' in "
                   "tokenizer_config.json, and "
                   "chat_template.json",
                   folder.string());
}

// Adds each special token ("bos_token": a text, or an object with "content") that is not there yet.
void AddSpecialTokens(const Dict& config, Dict& variables) {
  for (const auto& [key, value] : config) {
    const std::string& name = key.AsString();
    if (!name.ends_with("_token") || variables.Find(name) != nullptr) continue;
    const Value* content = value.IsDict() ? value.AsDict().Find("content") : &value;
    if (content != nullptr && content->IsString()) variables.Set(name, *content);
  }
}

// transformers gives a message's reasoning under every name that templates read it by.
Value WithReasoningNames(const Value& message) {
  if (!message.IsDict()) return message;
  const Value* reasoning = nullptr;
  for (std::string_view name : {"reasoning_content", "thinking", "reasoning"}) {
    const Value* value = message.AsDict().Find(name);
    if (reasoning == nullptr && value != nullptr && !value->IsNone()) reasoning = value;
  }
  if (reasoning == nullptr) return message;
  Dict named;
  named.Set("thinking", *reasoning);
  for (const auto& [key, value] : message.AsDict()) named.Set(key, value);
  named.Set("reasoning_content", *reasoning);
  return Value::Dict(std::move(named));
}

// The text within a value, in bytes.
int64_t TextBytes(const Value& value) {
  if (value.IsString()) return static_cast<int64_t>(value.AsString().size());
  int64_t bytes = 0;
  if (value.IsList()) {
    for (const Value& item : value.Items()) bytes += TextBytes(item);
  } else if (value.IsDict()) {
    for (const auto& [key, item] : value.AsDict()) bytes += TextBytes(key) + TextBytes(item);
  }
  return bytes;
}

}  // namespace

Result<ChatTemplate> ChatTemplate::Load(const fs::path& folder) {
  MOEBIUS_ASSIGN(const Dict config, ReadJsonObjectIfAny(folder / "tokenizer_config.json"));
  MOEBIUS_ASSIGN(const Dict special_tokens,
                 ReadJsonObjectIfAny(folder / "special_tokens_map.json"));
  MOEBIUS_ASSIGN(Sources sources, FindSources(folder, config));
  const auto located = [&folder](const Error& error) { return error.WithContext(folder.string()); };
  Dict variables;
  AddSpecialTokens(config, variables);
  AddSpecialTokens(special_tokens, variables);
  MOEBIUS_ASSIGN(ChatTemplate chat_template,
                 FromSource(*sources.default_source, std::move(variables)).map_error(located));
  if (sources.tool_use) {
    MOEBIUS_ASSIGN(chat_template.tool_use_,
                   Template::Parse(std::move(*sources.tool_use)).map_error([&](const Error& error) {
                     return located(error.WithContext("chat template 'tool_use'"));
                   }));
  }
  return chat_template;
}

Result<ChatTemplate> ChatTemplate::FromSource(const std::string& source, Dict variables) {
  ChatTemplate chat_template;
  chat_template.variables_ = std::move(variables);
  MOEBIUS_ASSIGN(chat_template.default_, Template::Parse(source).map_error([](const Error& error) {
    return error.WithContext("chat template");
  }));
  return chat_template;
}

Result<std::string> ChatTemplate::Apply(const Value& messages, const Value& tools,
                                        const ChatTemplateOptions& options) const {
  if (!messages.IsList()) {
    return MakeError(ErrorCode::kInvalidArgument, "messages: expected a list, found {}",
                     messages.TypeName());
  }
  std::vector<Value> named;
  for (const Value& message : messages.Items()) {
    if (!message.IsDict()) {
      return MakeError(ErrorCode::kInvalidArgument, "messages[{}]: expected an object, found {}",
                       named.size(), message.TypeName());
    }
    named.push_back(WithReasoningNames(message));
  }
  if (!tools.IsNone() && !tools.IsList()) {
    return MakeError(ErrorCode::kInvalidArgument, "tools: expected a list, found {}",
                     tools.TypeName());
  }
  Dict variables = variables_;
  for (const auto& [name, value] : options.variables) variables.Set(name, value);
  if (variables.Find("documents") == nullptr) variables.Set("documents", Value::None());
  variables.Set("messages", Value::List(std::move(named)));
  variables.Set("tools", tools);
  variables.Set("add_generation_prompt", Value::Bool(options.add_generation_prompt));
  const bool with_tools = !tools.IsNone() && tool_use_ != nullptr;
  jinja::RenderOptions render_options;
  render_options.now = options.now;
  // Long conversations may take long: some passes over the text, some copies of it.
  const int64_t text_bytes = TextBytes(messages) + TextBytes(tools);
  render_options.limits.steps += text_bytes * 8;
  render_options.limits.bytes += text_bytes * 64;
  return (with_tools ? tool_use_ : default_)
      ->Render(variables, render_options)
      .map_error([](const Error& error) { return error.WithContext("chat template"); });
}

Result<std::string> ChatTemplate::Apply(const std::vector<ChatMessage>& messages,
                                        const ChatTemplateOptions& options) const {
  std::vector<Value> values;
  for (const ChatMessage& message : messages) {
    Dict dict;
    dict.Set("role", Value::String(message.role));
    dict.Set("content", Value::String(message.content));
    values.push_back(Value::Dict(std::move(dict)));
  }
  return Apply(Value::List(std::move(values)), Value::None(), options);
}

const std::string& ChatTemplate::source() const { return default_->source(); }

}  // namespace moebius::text
