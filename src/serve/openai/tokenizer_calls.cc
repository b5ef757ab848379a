// POST /tokenize and /detokenize, GET /tokenizer_info.
#include <nlohmann/json.hpp>
#include <utility>

#include "serve/openai/call_fields.h"
#include "serve/openai/chat_prompt.h"
#include "serve/openai/json_text.h"
#include "serve/openai/text_prompt.h"

namespace moebius::serve {
namespace {

tl::unexpected<ApiError> NoTokenizer() {
  ApiError error;
  error.status = 404;
  error.message = "the model's folder has no tokenizer.json";
  return tl::unexpected(std::move(error));
}

ApiResult<std::vector<TokenId>> TokensOf(const JsonBody& body, const ApiContext& context) {
  if (body.Has("messages") == body.Has("prompt")) {
    return BadRequest("prompt", "{} of the fields prompt and messages, expected one",
                      body.Has("prompt") ? "both" : "none");
  }
  SERVE_ASSIGN(const bool special, BoolField(body, "add_special_tokens", body.Has("prompt")));
  if (body.Has("messages")) {
    SERVE_ASSIGN(ChatPrompt prompt, EncodeChat(body, context, special));
    return std::move(prompt.tokens);
  }
  const nlohmann::json& prompt = body.fields()["prompt"];
  if (!prompt.is_string()) {
    return BadRequest("prompt", "prompt is a JSON {}, expected a text", prompt.type_name());
  }
  return context.encoder->tokenizer()->Encode(prompt.get_ref<const std::string&>(), special);
}

// The named token's spelling, or null where the tokenizer names none.
void AppendNamed(std::string& out, const char* name, const std::string& text,
                 std::optional<TokenId> id) {
  out += fmt::format(R"(,"{}":)", name);
  if (text.empty()) {
    out += "null";
  } else {
    AppendJsonString(out, text);
  }
  out += fmt::format(R"(,"{}_id":)", name);
  if (id) {
    AppendInt(out, *id);
  } else {
    out += "null";
  }
}

}  // namespace

BodyResult Tokenize(std::string_view text, const ApiContext& context) {
  if (context.encoder->tokenizer() == nullptr) return NoTokenizer();
  SERVE_ASSIGN(const JsonBody body, JsonBody::Parse(text));
  SERVE_TRY(CheckModel(body, context));
  SERVE_ASSIGN(const bool with_texts, BoolField(body, "return_token_strs", false));
  SERVE_ASSIGN(const std::vector<TokenId> tokens, TokensOf(body, context));
  std::string out = R"({"count":)";
  AppendInt(out, static_cast<int64_t>(tokens.size()));
  out += R"(,"max_model_len":)";
  AppendInt(out, context.limits.max_model_len);
  out += R"(,"tokens":)";
  AppendIds(out, tokens);
  out += R"(,"token_strs":)";
  if (!with_texts) return out += "null}";
  for (size_t i = 0; i < tokens.size(); ++i) {
    out += i == 0 ? '[' : ',';
    AppendJsonString(out, context.encoder->tokenizer()->TokenText(tokens[i]));
  }
  return out += tokens.empty() ? "[]}" : "]}";
}

BodyResult Detokenize(std::string_view text, const ApiContext& context) {
  if (context.encoder->tokenizer() == nullptr) return NoTokenizer();
  SERVE_ASSIGN(const JsonBody body, JsonBody::Parse(text));
  SERVE_TRY(CheckModel(body, context));
  if (!body.Has("tokens")) {
    return BadRequest("tokens", "tokens is missing, expected a list of token ids");
  }
  if (!body.fields()["tokens"].is_array()) {
    return BadRequest("tokens", "tokens is a JSON {}, expected a list of token ids",
                      body.fields()["tokens"].type_name());
  }
  SERVE_ASSIGN(const std::vector<TokenId> tokens,
               ReadTokenIds(body.fields()["tokens"], context, "tokens"));
  std::string out = R"({"prompt":)";
  AppendJsonString(out, context.encoder->tokenizer()->Decode(tokens, false));
  return out += '}';
}

BodyResult TokenizerInfo(const ApiContext& context) {
  const text::Tokenizer* tokenizer = context.encoder->tokenizer();
  if (tokenizer == nullptr) return NoTokenizer();
  std::string out = R"({"tokenizer_class":"PreTrainedTokenizerFast","vocab_size":)";
  AppendInt(out, tokenizer->vocab_size());
  out += R"(,"model_max_length":)";
  AppendInt(out, context.limits.max_model_len);
  AppendNamed(out, "bos_token", tokenizer->bos_token(), tokenizer->bos_id());
  AppendNamed(out, "eos_token", tokenizer->eos_token(), tokenizer->eos_id());
  AppendNamed(out, "pad_token", tokenizer->pad_token(), tokenizer->pad_id());
  out += R"(,"chat_template":)";
  if (const text::ChatTemplate* chat_template = context.encoder->chat_template()) {
    AppendJsonString(out, chat_template->source());
  } else {
    out += "null";
  }
  return out += '}';
}

}  // namespace moebius::serve
