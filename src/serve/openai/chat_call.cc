// POST /v1/chat/completions.
#include <memory>
#include <optional>
#include <utility>

#include "serve/openai/call_base.h"
#include "serve/openai/chat_prompt.h"
#include "serve/openai/json_text.h"
#include "serve/openai/logprobs_json.h"
#include "serve/openai/reasoning.h"
#include "serve/openai/unsupported.h"

namespace moebius::serve {
namespace {

using frontend::GenerateOutput;

class ChatCall : public CallBase {
 public:
  ChatCall(CallFields call_fields, std::vector<frontend::GenerateRequest> requests,
           const ApiContext& context, const ChatPrompt& prompt)
      : CallBase(std::move(call_fields), std::move(requests), context) {
    if (fields().echo) echo_ = prompt.last_message;
    if (context.reasoning_parser.empty()) return;
    const ThinkStart start =
        FindThinkStart(context.reasoning_parser,
                       prompt.continues ? prompt.last_message : prompt.text, prompt.continues);
    splitters_.assign(this->requests().size(), ReasoningSplitter(start));
  }

 protected:
  void AppendChunks(std::string& out, size_t choice, const News& news,
                    const GenerateOutput& output) override {
    out.reserve(kChunkBytes + news.text.size() * 2);
    if (news.is_first) AppendRole(out, choice, output);
    BeginChunk(out);
    out += R"({"index":)";
    AppendInt(out, static_cast<int64_t>(choice));
    out += R"(,"delta":{)";
    AppendDelta(out, choice, news);
    out += R"(},"logprobs":)";
    AppendLogprobs(out, news);
    out += ',';
    AppendFinish(out, choice, news, output);
    AppendTokenIds(out, news);
    out += "}]";
    EndChunk(out, choice, output);
  }

  void AppendChoice(std::string& out, size_t choice, const News& news,
                    const GenerateOutput& output) override {
    Parts parts = Split(choice, news);
    out += R"({"index":)";
    AppendInt(out, static_cast<int64_t>(choice));
    out += R"(,"message":{"role":"assistant","content":)";
    if (parts.content.empty() && !parts.reasoning.empty() && echo_.empty()) {
      out += "null";
    } else {
      AppendJsonString(out, echo_ + std::string(parts.content));
    }
    out += R"(,"refusal":null)";
    if (!splitters_.empty()) {
      const bool shown = fields().include_reasoning && !parts.reasoning.empty();
      for (const char* name : {R"(,"reasoning":)", R"(,"reasoning_content":)"}) {
        out += name;
        if (shown) {
          AppendJsonString(out, parts.reasoning);
        } else {
          out += "null";
        }
      }
    }
    out += R"(},"logprobs":)";
    AppendLogprobs(out, news);
    out += ',';
    AppendFinish(out, choice, news, output);
    AppendTokenIds(out, news);
    out += '}';
  }

  void AppendExtras(std::string& out, std::span<const GenerateOutput> outputs) const override {
    if (fields().num_prompt_logprobs >= 0 && !outputs.empty()) {
      out += R"(,"prompt_logprobs":)";
      AppendPromptLogprobs(out, outputs[0].prompt_logprobs,
                           {fields().num_prompt_logprobs, as_token_ids()});
    }
    AppendPromptIds(out);
  }

  const char* ObjectName(bool is_chunk) const override {
    return is_chunk ? "chat.completion.chunk" : "chat.completion";
  }

  // Tokens up to the end of the reasoning, by the bytes that they add.
  int64_t NumReasoningTokens(size_t choice, const GenerateOutput& output) const override {
    if (splitters_.empty()) return -1;
    const size_t wanted = splitters_[choice].reasoning_bytes();
    size_t bytes = 0;
    int64_t count = 0;
    for (const TokenId token : output.token_ids) {
      if (bytes >= wanted) break;
      if (tokenizer() != nullptr) bytes += tokenizer()->TokenBytes(token).size();
      ++count;
    }
    return count;
  }

 private:
  // Most chunks and a role chunk.
  static constexpr size_t kChunkBytes = 448;

  struct Parts {
    std::string_view content;
    std::string reasoning;
    std::string own_content;  // what `content` may show
  };

  Parts Split(size_t choice, const News& news) {
    Parts parts;
    if (splitters_.empty() || splitters_[choice].is_content()) {
      parts.content = news.text;
      return parts;
    }
    splitters_[choice].Push(news.text, parts.reasoning, content_);
    if (news.is_last) splitters_[choice].Finish(parts.reasoning, content_);
    parts.own_content = std::exchange(content_, {});
    parts.content = parts.own_content;
    return parts;
  }

  void AppendRole(std::string& out, size_t choice, const GenerateOutput& output) const {
    BeginChunk(out);
    out += R"({"index":)";
    AppendInt(out, static_cast<int64_t>(choice));
    out += R"(,"delta":{"role":"assistant","content":)";
    AppendJsonString(out, echo_);
    out += R"(},"logprobs":null,"finish_reason":null}])";
    AppendPromptIds(out);
    EndChunk(out, choice, output);
  }

  void AppendDelta(std::string& out, size_t choice, const News& news) {
    const bool was_content = splitters_.empty() || splitters_[choice].is_content();
    const Parts parts = Split(choice, news);
    const bool has_reasoning = !parts.reasoning.empty() && fields().include_reasoning;
    if (has_reasoning) {
      out += R"("reasoning":)";
      AppendJsonString(out, parts.reasoning);
      out += R"(,"reasoning_content":)";
      AppendJsonString(out, parts.reasoning);
    }
    if (!parts.content.empty() || was_content) {
      out += has_reasoning ? R"(,"content":)" : R"("content":)";
      AppendJsonString(out, parts.content);
    }
  }

  void AppendLogprobs(std::string& out, const News& news) const {
    if (fields().num_logprobs < 0 || news.logprobs.empty()) {
      out += "null";
      return;
    }
    AppendChatLogprobs(out, news.logprobs, {fields().num_logprobs, as_token_ids()});
  }

  void AppendTokenIds(std::string& out, const News& news) const {
    if (!fields().return_token_ids) return;
    out += R"(,"token_ids":)";
    AppendIds(out, news.tokens);
  }

  void AppendPromptIds(std::string& out) const {
    if (!fields().return_token_ids) return;
    out += R"(,"prompt_token_ids":)";
    AppendIds(out, prompt_tokens(0));
  }

  std::string echo_;                          // the last message's content, in front of the answer
  std::vector<ReasoningSplitter> splitters_;  // one a choice; none: no reasoning is looked for
  std::string content_;
};

}  // namespace

CallResult ParseChatCompletion(std::string_view text, const ApiContext& context,
                               const std::string& request_id) {
  SERVE_ASSIGN(const JsonBody body, JsonBody::Parse(text));
  SERVE_ASSIGN(CallFields fields, ParseCallFields(body, Endpoint::kChat, context, request_id));
  SERVE_TRY(CheckTools(body));
  SERVE_ASSIGN(ChatPrompt prompt, EncodeChat(body, context, fields.add_special_tokens));
  SERVE_TRY(FitPrompt(fields, context, "messages", prompt.tokens));
  std::vector<std::vector<TokenId>> prompts;
  prompts.push_back(std::move(prompt.tokens));
  SERVE_ASSIGN(auto requests, MakeRequests(fields, context, std::move(prompts)));
  return std::make_unique<ChatCall>(std::move(fields), std::move(requests), context, prompt);
}

}  // namespace moebius::serve
