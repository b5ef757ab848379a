#include "serve/openai/chat_prompt.h"

#include <fmt/ranges.h>

#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>

#include "serve/openai/call_fields.h"
#include "serve/openai/chat_messages.h"
#include "serve/openai/unsupported.h"
#include "text/jinja/json.h"

namespace moebius::serve {
namespace {

using frontend::Conversation;
using text::jinja::Value;

ApiResult<Value> ParseMember(const JsonBody& body, const char* name) {
  const Result<Value> value = text::jinja::ParseJson(body.Text(name), name);
  if (!value) return tl::unexpected(RequestError(value.error(), name));
  return *value;
}

// Templates that know the field would take a misspelt one for their default.
ApiResult<void> CheckReasoningEffort(const JsonBody& body) {
  if (!body.Has("reasoning_effort")) return {};
  constexpr std::string_view kEfforts[] = {"none", "minimal", "low", "medium",
                                           "high", "xhigh",   "max"};
  const nlohmann::json& effort = body.fields()["reasoning_effort"];
  for (const std::string_view known : kEfforts) {
    if (effort.is_string() && effort.get_ref<const std::string&>() == known) return {};
  }
  return BadRequest("reasoning_effort", "reasoning_effort is {}, expected one of {}",
                    Shortened(effort.dump()), fmt::join(kEfforts, ", "));
}

// What stands around a template's spaces.
std::string_view Trimmed(std::string_view text, bool left, bool right) {
  constexpr std::string_view kSpaces = " \t\n\r\f\v";
  if (left) text.remove_prefix(std::min(text.find_first_not_of(kSpaces), text.size()));
  if (right) text = text.substr(0, text.find_last_not_of(kSpaces) + 1);
  return text;
}

// Cuts what the template put behind the last message, so that the model goes on within it. The
// template may have trimmed the message.
ApiResult<void> CutBehind(const std::string& last_message, std::string& text) {
  const std::string_view core = Trimmed(last_message, true, true);
  const size_t begin = core.empty() ? std::string::npos : text.rfind(core);
  if (begin == std::string::npos) {
    return BadRequest("continue_final_message",
                      "continue_final_message: the last message has no text that the chat template "
                      "shows, so there is nothing to continue");
  }
  const std::string_view with_tail = Trimmed(last_message, true, false);
  const bool has_tail = std::string_view(text).substr(begin).starts_with(with_tail);
  text.resize(begin + (has_tail ? with_tail : core).size());
  return {};
}

ApiResult<void> ReadOptions(const JsonBody& body, Conversation& conversation, bool* continues) {
  SERVE_ASSIGN(*continues, BoolField(body, "continue_final_message", false));
  SERVE_ASSIGN(const bool prompts, BoolField(body, "add_generation_prompt", !*continues));
  if (*continues && prompts) {
    return BadRequest("continue_final_message",
                      "continue_final_message and add_generation_prompt exclude each other");
  }
  conversation.options.add_generation_prompt = prompts;
  SERVE_TRY(CheckReasoningEffort(body));
  for (const char* name : {"documents", "reasoning_effort"}) {
    if (!body.Has(name)) continue;
    SERVE_ASSIGN(Value value, ParseMember(body, name));
    conversation.options.variables.Set(name, std::move(value));
  }
  if (body.Has("tools")) {
    SERVE_ASSIGN(Value tools, ParseMember(body, "tools"));
    if (!tools.IsList())
      return BadRequest("tools", "tools is {}, expected a list", tools.TypeName());
    if (!tools.Items().empty()) conversation.tools = std::move(tools);
  }
  if (!body.Has("chat_template_kwargs")) return {};
  SERVE_ASSIGN(const Value kwargs, ParseMember(body, "chat_template_kwargs"));
  if (!kwargs.IsDict()) {
    return BadRequest("chat_template_kwargs",
                      "chat_template_kwargs is a JSON {}, expected an object",
                      body.fields()["chat_template_kwargs"].type_name());
  }
  for (const auto& [key, value] : kwargs.AsDict()) {
    conversation.options.variables.Set(key, value);
  }
  return {};
}

// Renders the conversation in the first form of its messages that the template takes.
ApiResult<std::string> Render(const Value& messages, const ApiContext& context,
                              Conversation& conversation) {
  constexpr std::array<MessageForm, 4> kForms = {
      {{true, true}, {false, true}, {true, false}, {false, false}}};
  const text::ChatTemplate* chat_template = context.encoder->chat_template();
  const TemplateTraits traits =
      chat_template != nullptr ? TraitsOf(chat_template->source()) : TemplateTraits();
  std::optional<Error> refusal;
  for (const MessageForm& form : kForms) {
    bool has_calls = false;
    SERVE_ASSIGN(conversation.messages, ReadMessages(messages, traits, form, &has_calls));
    Result<std::string> text = context.encoder->Render(conversation);
    if (text) return *std::move(text);
    if (!refusal) refusal = text.error();
    if (!has_calls) break;
  }
  return tl::unexpected(RequestError(*refusal, "messages"));
}

}  // namespace

ApiResult<ChatPrompt> EncodeChat(const JsonBody& body, const ApiContext& context,
                                 bool add_special_tokens) {
  if (!body.Has("messages")) {
    return BadRequest("messages", "messages is missing, expected a list of messages");
  }
  SERVE_ASSIGN(const Value messages, ParseMember(body, "messages"));
  Conversation conversation;
  ChatPrompt prompt;
  SERVE_TRY(ReadOptions(body, conversation, &prompt.continues));
  SERVE_ASSIGN(prompt.text, Render(messages, context, conversation));
  const text::jinja::Dict& last = conversation.messages.Items().back().AsDict();
  if (last.Find("role")->AsString() == "assistant" || prompt.continues) {
    prompt.last_message = ContentText(last.Find("content"));
  }
  if (prompt.continues) SERVE_TRY(CutBehind(prompt.last_message, prompt.text));
  const text::Tokenizer* tokenizer = context.encoder->tokenizer();
  if (tokenizer == nullptr) {
    return BadRequest("messages",
                      "messages: the model has no tokenizer; give token ids to "
                      "/v1/completions instead");
  }
  prompt.tokens = tokenizer->Encode(prompt.text, add_special_tokens);
  return prompt;
}

}  // namespace moebius::serve
