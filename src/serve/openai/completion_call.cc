// POST /v1/completions.
#include <memory>
#include <utility>

#include "serve/openai/call_base.h"
#include "serve/openai/json_text.h"
#include "serve/openai/logprobs_json.h"
#include "serve/openai/text_prompt.h"

namespace moebius::serve {
namespace {

using frontend::GenerateOutput;

class CompletionCall : public CallBase {
 public:
  // `prompts`: the texts to echo, one a prompt, or none.
  CompletionCall(CallFields call_fields, std::vector<frontend::GenerateRequest> requests,
                 const ApiContext& context, std::vector<std::string> prompts)
      : CallBase(std::move(call_fields), std::move(requests), context),
        prompts_(std::move(prompts)),
        offsets_(this->requests().size(), 0) {}

 protected:
  void AppendChunks(std::string& out, size_t choice, const News& news,
                    const GenerateOutput& output) override {
    out.reserve(kChunkBytes + news.text.size() * 2);
    BeginChunk(out);
    AppendChoice(out, choice, news, output);
    out += ']';
    EndChunk(out, choice, output);
  }

  void AppendChoice(std::string& out, size_t choice, const News& news,
                    const GenerateOutput& output) override {
    const bool echoes = news.is_first && fields().echo;
    out += R"({"index":)";
    AppendInt(out, static_cast<int64_t>(choice));
    out += R"(,"text":")";
    if (echoes) AppendJsonEscaped(out, prompt_text(choice));
    AppendJsonEscaped(out, news.text);
    out += R"(","logprobs":)";
    AppendLogprobs(out, choice, news, output);
    out += ',';
    AppendFinish(out, choice, news, output);
    if (fields().return_token_ids) {
      if (news.is_first) {
        out += R"(,"prompt_token_ids":)";
        AppendIds(out, prompt_tokens(choice));
      }
      out += R"(,"token_ids":)";
      AppendIds(out, news.tokens);
    }
    if (fields().num_prompt_logprobs >= 0) {
      out += R"(,"prompt_logprobs":)";
      AppendPromptLogprobs(out, output.prompt_logprobs,
                           {fields().num_prompt_logprobs, as_token_ids()});
    }
    out += '}';
  }

  void AppendExtras(std::string&, std::span<const GenerateOutput>) const override {}
  const char* ObjectName(bool) const override { return "text_completion"; }
  int64_t NumReasoningTokens(size_t, const GenerateOutput&) const override { return -1; }

 private:
  static constexpr size_t kChunkBytes = 256;

  const std::string& prompt_text(size_t choice) const {
    return prompts_[choice / static_cast<size_t>(fields().n)];
  }

  void AppendLogprobs(std::string& out, size_t choice, const News& news,
                      const GenerateOutput& output) {
    const bool echoes = news.is_first && fields().echo;
    if (fields().num_logprobs < 0 || (news.logprobs.empty() && !echoes)) {
      out += "null";
      return;
    }
    CompletionLogprobs logprobs({fields().num_logprobs, as_token_ids()}, offsets_[choice]);
    if (echoes) AddPrompt(choice, output, logprobs);
    for (size_t i = 0; i < news.logprobs.size(); ++i) {
      const bool is_stop = news.is_last && i + 1 == news.logprobs.size() && output.stop_token;
      logprobs.Add(news.logprobs[i], ShownText(choice, news.logprobs[i], is_stop));
    }
    offsets_[choice] = logprobs.offset();
    logprobs.AppendTo(out);
  }

  void AddPrompt(size_t choice, const GenerateOutput& output, CompletionLogprobs& logprobs) const {
    const std::vector<TokenId>& tokens = prompt_tokens(choice);
    PromptTexts texts(tokenizer(), prompt_text(choice));
    const std::string bytes = tokenizer() != nullptr ? tokenizer()->TokenBytes(tokens[0]) : "";
    logprobs.AddFirst(tokens[0], bytes, texts.Next(tokens[0]));
    for (const frontend::TokenLogprob& logprob : output.prompt_logprobs) {
      logprobs.Add(logprob, texts.Next(logprob.token));
    }
  }

  // What of the choice's text an output token is.
  std::string_view ShownText(size_t choice, const frontend::TokenLogprob& logprob,
                             bool is_stop) const {
    const frontend::GenerateRequest& request = requests()[choice];
    const bool is_hidden = (is_stop && !request.include_stop_str_in_output) ||
                           (request.skip_special_tokens && tokenizer() != nullptr &&
                            tokenizer()->IsSpecial(logprob.token));
    return is_hidden ? std::string_view() : std::string_view(logprob.bytes);
  }

  std::vector<std::string> prompts_;
  std::vector<int64_t> offsets_;  // of each choice's next token, in characters
};

}  // namespace

CallResult ParseCompletion(std::string_view text, const ApiContext& context,
                           const std::string& request_id) {
  SERVE_ASSIGN(const JsonBody body, JsonBody::Parse(text));
  SERVE_ASSIGN(CallFields fields,
               ParseCallFields(body, Endpoint::kCompletion, context, request_id));
  SERVE_ASSIGN(std::vector<TextPrompt> prompts,
               EncodePrompts(body, context, fields.add_special_tokens, fields.echo));
  std::vector<std::vector<TokenId>> tokens;
  std::vector<std::string> texts;
  for (TextPrompt& prompt : prompts) {
    const size_t num_tokens = prompt.tokens.size();
    SERVE_TRY(FitPrompt(fields, context, "prompt", prompt.tokens));
    const bool is_cut = prompt.tokens.size() < num_tokens;
    if (fields.echo && is_cut && context.encoder->tokenizer() != nullptr) {
      prompt.text = context.encoder->tokenizer()->Decode(prompt.tokens, false);
    }
    tokens.push_back(std::move(prompt.tokens));
    texts.push_back(std::move(prompt.text));
  }
  SERVE_ASSIGN(auto requests, MakeRequests(fields, context, std::move(tokens)));
  return std::make_unique<CompletionCall>(std::move(fields), std::move(requests), context,
                                          std::move(texts));
}

}  // namespace moebius::serve
