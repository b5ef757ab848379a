#include "serve/openai/text_prompt.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace moebius::serve {
namespace {

using nlohmann::json;

ApiResult<TextPrompt> EncodeOne(const json& value, const ApiContext& context,
                                bool add_special_tokens, bool want_text, const std::string& where) {
  const text::Tokenizer* tokenizer = context.encoder->tokenizer();
  TextPrompt prompt;
  if (value.is_array()) {
    SERVE_ASSIGN(prompt.tokens, ReadTokenIds(value, context, where));
    if (want_text && tokenizer != nullptr) prompt.text = tokenizer->Decode(prompt.tokens, false);
  } else if (!value.is_string()) {
    return BadRequest("prompt", "{} is a JSON {}, expected a text or a list of token ids", where,
                      value.type_name());
  } else if (tokenizer == nullptr) {
    return BadRequest("prompt", "prompt: the model has no tokenizer; give token ids instead");
  } else {
    prompt.text = value.get<std::string>();
    prompt.tokens = tokenizer->Encode(prompt.text, add_special_tokens);
  }
  if (prompt.tokens.empty()) {
    return BadRequest("prompt", "{} is empty, expected at least one token", where);
  }
  return prompt;
}

}  // namespace

ApiResult<std::vector<TokenId>> ReadTokenIds(const json& list, const ApiContext& context,
                                             const std::string& param) {
  std::vector<TokenId> ids;
  ids.reserve(list.size());
  for (const json& item : list) {
    const int64_t vocab_size = context.limits.vocab_size;
    const bool fits = item.is_number_unsigned()
                          ? item.get<uint64_t>() < static_cast<uint64_t>(vocab_size)
                          : false;
    if (!fits) {
      return BadRequest(param.substr(0, param.find('[')),
                        "{}[{}] is {}, expected a token id from 0 to {}", param, ids.size(),
                        item.is_number() ? item.dump() : item.type_name(), vocab_size - 1);
    }
    ids.push_back(static_cast<TokenId>(item.get<uint64_t>()));
  }
  return ids;
}

ApiResult<std::vector<TextPrompt>> EncodePrompts(const JsonBody& body, const ApiContext& context,
                                                 bool add_special_tokens, bool want_text) {
  if (!body.Has("prompt")) {
    return BadRequest("prompt", "prompt is missing, expected a text or a list of token ids");
  }
  const json& value = body.fields()["prompt"];
  if (value.is_array() && value.empty()) {
    return BadRequest("prompt", "prompt is an empty list, expected at least one prompt");
  }
  const bool is_list = value.is_array() && !value[0].is_number();
  std::vector<TextPrompt> prompts;
  const size_t count = is_list ? value.size() : 1;
  if (static_cast<int64_t>(count) > context.max_choices) {
    return BadRequest("prompt", "prompt has {} prompts, expected at most {}", count,
                      context.max_choices);
  }
  for (size_t i = 0; i < count; ++i) {
    const std::string where = is_list ? fmt::format("prompt[{}]", i) : "prompt";
    SERVE_ASSIGN(TextPrompt prompt, EncodeOne(is_list ? value[i] : value, context,
                                              add_special_tokens, want_text, where));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace moebius::serve
