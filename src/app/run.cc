// moebius run: one answer, or one for each line of a file.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <fstream>
#include <iostream>
#include <iterator>

#include "app/commands.h"
#include "app/load_table.h"
#include "app/remote.h"
#include "app/session.h"
#include "app/standard_output.h"

namespace moebius::app {
namespace {

std::string ReadStandardInput() {
  std::string text{std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

// Blank lines and lines that begin with # are no prompts.
Result<std::vector<std::string>> ReadPrompts(const std::string& path) {
  std::ifstream file(path);
  if (!file) return MakeError(ErrorCode::kNotFound, "--prompts-file: {} cannot be read", path);
  std::vector<std::string> prompts;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.find_first_not_of(" \t") == std::string::npos || line[0] == '#') continue;
    prompts.push_back(line);
  }
  if (prompts.empty())
    return MakeError(ErrorCode::kInvalidArgument, "--prompts-file: {} holds no prompt", path);
  return prompts;
}

Result<frontend::Prompt> TextPrompt(const frontend::PromptEncoder& encoder,
                                    const RunOptions& options, const std::string& text) {
  const bool has_template = encoder.has_chat_template();
  if (!options.chat.value_or(has_template)) {
    if (!options.system.empty()) {
      return MakeError(ErrorCode::kInvalidArgument, "--system needs a chat template: {}",
                       has_template ? "--no-chat turned it off" : "the model's folder has none");
    }
    return frontend::Prompt(text);
  }
  return QuestionPrompt(options.system, text);
}

// One line a token: its log probability, its text, and the best with theirs.
void PrintLogprobs(const frontend::GenerateOutput& output) {
  for (const frontend::TokenLogprob& token : output.logprobs) {
    std::string line =
        fmt::format("{:10.4f}  {:>6}  {:?}", token.logprob, token.token, token.bytes);
    for (const auto& top : token.top)
      line += fmt::format("  | {:.4f} {} {:?}", top.logprob, top.token, top.bytes);
    fmt::print("{}\n", line);
  }
}

Result<int> AnswerOne(const Session& session, const RunOptions& options, frontend::Prompt prompt,
                      Interrupt& interrupt) {
  MOEBIUS_ASSIGN(const frontend::GenerateOutput output,
                 Answer(session, MakeRequest(session.sampling, std::move(prompt)), interrupt));
  PrintLogprobs(output);
  // Without a tokeniser the ids are the answer.
  if (options.print_ids || session.frontend().tokenizer() == nullptr) {
    fmt::print("{}\n", fmt::join(output.token_ids, ","));
  }
  FlushStandardOutput();
  return output.finish == engine::FinishReason::kCancelled ? Interrupt::kExitCode : kExitOk;
}

Result<std::vector<std::string>> Texts(const RunOptions& options) {
  std::vector<std::string> texts;
  if (!options.prompts_file.empty()) {
    MOEBIUS_ASSIGN(texts, ReadPrompts(options.prompts_file));
  } else if (options.prompt) {
    texts.push_back(*options.prompt == "-" ? ReadStandardInput() : *options.prompt);
    if (texts.back().empty()) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--prompt: -, standard input, is empty, expected text");
    }
  }
  for (const std::string& text : texts) {
    WarnOfMalformed(options.prompt ? "--prompt" : "a line of --prompts-file", text);
  }
  return texts;
}

// Calls `answer` with the index of each prompt, between its question and a blank line where there
// is a file of them.
template <typename F>
Result<int> AnswerEach(const RunOptions& options, const std::vector<std::string>& texts,
                       size_t count, F answer) {
  for (size_t i = 0; i < count; ++i) {
    if (!options.prompts_file.empty()) {
      fmt::print("> {}\n", texts[i]);
      FlushStandardOutput();
    }
    MOEBIUS_ASSIGN(const int exit_code, answer(i));
    if (exit_code != kExitOk) return exit_code;
    if (!options.prompts_file.empty()) fmt::print("\n");
  }
  return kExitOk;
}

Result<int> RemoteRun(const RunOptions& options, const std::vector<std::string>& texts,
                      Interrupt& interrupt) {
  MOEBIUS_ASSIGN(RemoteServer server, RemoteServer::Connect(options.remote, options.open.model));
  frontend::SamplingFields sampling;
  sampling.max_tokens = kDefaultMaxTokens;
  sampling.Override(options.sampling);
  const bool chat = options.chat.value_or(true) && !options.prompt_ids;
  return AnswerEach(
      options, texts, options.prompt_ids ? 1 : texts.size(), [&](size_t i) -> Result<int> {
        RemoteAnswer answer;
        if (chat) {
          MOEBIUS_ASSIGN(answer,
                         server.Chat(Question(options.system, texts[i]), sampling, interrupt));
        } else {
          const auto text =
              options.prompt_ids ? std::optional<std::string>() : std::optional(texts[i]);
          MOEBIUS_ASSIGN(answer,
                         server.Complete(text, options.prompt_ids.value_or(std::vector<TokenId>()),
                                         sampling, interrupt));
        }
        return answer.finish == "abort" ? Interrupt::kExitCode : kExitOk;
      });
}

}  // namespace

Result<int> RunCommand(const RunOptions& options, Interrupt& interrupt) {
  if (!options.input_file.empty()) return RunBatch(options, interrupt);
  MOEBIUS_ASSIGN(const std::vector<std::string> texts, Texts(options));
  if (!options.remote.url.empty()) return RemoteRun(options, texts, interrupt);
  MOEBIUS_ASSIGN(SessionPlan plan, PlanSession(options));
  std::vector<frontend::Prompt> prompts;
  if (options.prompt_ids) prompts.emplace_back(*options.prompt_ids);
  for (const std::string& text : texts) {
    MOEBIUS_ASSIGN(frontend::Prompt prompt, TextPrompt(plan.model.encoder, options, text));
    prompts.push_back(std::move(prompt));
  }
  // A bad request should not wait for a model to load.
  for (const frontend::Prompt& prompt : prompts) MOEBIUS_TRY(CheckPrompt(plan, prompt));
  MOEBIUS_ASSIGN(const Session session, OpenSession(std::move(plan)));
  auto answered = AnswerEach(options, texts, prompts.size(), [&](size_t i) {
    return AnswerOne(session, options, std::move(prompts[i]), interrupt);
  });
  if (options.parallel.print_load) PrintLoad(session.model);
  return answered;
}

}  // namespace moebius::app
