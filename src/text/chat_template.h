// A model's chat template: turns messages and tools into the prompt text, as the checkpoint's own
// Jinja template has it. Immutable once loaded; any thread may call Apply, and several at once.
#pragma once

#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "text/jinja/value.h"

namespace moebius::text {

namespace jinja {
class Template;
}

struct ChatMessage {
  std::string role;
  std::string content;
};

struct ChatTemplateOptions {
  bool add_generation_prompt = true;
  // Further variables of the template (`enable_thinking`, `documents`, ...); they win over the
  // tokeniser's own.
  jinja::Dict variables;
  // What strftime_now reads; the wall clock when absent. Local time.
  std::optional<std::time_t> now;
};

class ChatTemplate {
 public:
  // Reads a Hugging Face folder. The template is the first of `chat_template.jinja`,
  // `chat_template` of tokenizer_config.json (one text, or a list of {name, template}),
  // `chat_template.json`; a second one named "tool_use" (in the list, or
  // additional_chat_templates/tool_use.jinja) serves requests with tools. The special tokens of
  // tokenizer_config.json and special_tokens_map.json become variables (`bos_token`, ...).
  // kNotFound: none of these holds a template. kInvalidArgument or kUnsupported: it does not parse;
  // the message quotes the construct and its line.
  static Result<ChatTemplate> Load(const std::filesystem::path& folder);
  // From text; `variables` are what Load takes from the tokeniser's files.
  static Result<ChatTemplate> FromSource(const std::string& source, jinja::Dict variables = {});

  // `messages`: a list of dicts with at least `role`; `tools`: a list of dicts, or None. The
  // reasoning of a message is found under any of `reasoning_content`, `thinking`, `reasoning`, as
  // transformers has it. kInvalidArgument: the template refused the conversation (its
  // raise_exception message is in the error), or failed on it; kUnsupported: it uses what this
  // Jinja lacks.
  Result<std::string> Apply(const jinja::Value& messages, const jinja::Value& tools,
                            const ChatTemplateOptions& options = {}) const;
  Result<std::string> Apply(const std::vector<ChatMessage>& messages,
                            const ChatTemplateOptions& options = {}) const;

  // The template's text (the one for requests without tools).
  const std::string& source() const;

 private:
  ChatTemplate() = default;

  std::shared_ptr<const jinja::Template> default_;
  std::shared_ptr<const jinja::Template> tool_use_;  // may be null
  jinja::Dict variables_;
};

}  // namespace moebius::text
