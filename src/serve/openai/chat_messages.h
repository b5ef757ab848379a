// A request's messages as a chat template gets them. Free functions, any thread.
#pragma once

#include <string>
#include <string_view>

#include "serve/openai/api_result.h"
#include "text/jinja/value.h"

namespace moebius::serve {

// What a template's source, which must outlive this, shows of how it reads messages.
struct TemplateTraits {
  std::string_view source;
  bool loops_over_content = false;  // reads lists of parts itself; else their texts are joined
  bool knows_developer = false;     // else that role is called system
};
TemplateTraits TraitsOf(const std::string& template_source);

// Templates differ in how they read past calls of tools; a conversation that one of these forms
// fails with may work in another.
struct MessageForm {
  bool parse_arguments = true;  // a call's arguments as a dict; else as the JSON text that came
  bool keep_null = true;        // the content beside calls stays None; else it is ""
};

// The messages as a list of dicts: content checked and made a text (or kept a list of text parts),
// members that are null dropped. 400 names the message and what was expected. `has_calls` says
// whether the form matters.
ApiResult<text::jinja::Value> ReadMessages(const text::jinja::Value& messages,
                                           const TemplateTraits& traits, const MessageForm& form,
                                           bool* has_calls);

// The text of a content that ReadMessages made: of a list, the last part's.
std::string ContentText(const text::jinja::Value* content);

}  // namespace moebius::serve
