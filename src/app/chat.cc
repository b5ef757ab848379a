// moebius chat: a conversation. Each turn sends the whole of it; the prefix cache makes what was
// said before cheap.
#include <fmt/core.h>
#include <unistd.h>

#include <iostream>
#include <string>
#include <vector>

#include "app/commands.h"
#include "app/session.h"
#include "base/suggest.h"

namespace moebius::app {
namespace {

const std::vector<std::string> kWords = {"/exit", "/quit", "/reset", "/help"};

class Chat {
 public:
  Chat(const Session& session, const std::string& system, Interrupt& interrupt)
      : session_(session),
        system_(system),
        interrupt_(interrupt),
        terminal_(isatty(STDIN_FILENO) != 0) {
    Reset();
  }

  int Loop() {
    if (terminal_)
      fmt::print(stderr, "/reset forgets the conversation, /exit (or Ctrl-D) ends it.\n");
    std::string line;
    while (ReadLine(line)) {
      if (line.find_first_not_of(" \t") == std::string::npos) continue;
      if (line[0] == '/') {
        if (!Obey(line)) break;
      } else {
        Turn(line);
      }
    }
    return exit_code_;
  }

 private:
  bool ReadLine(std::string& line) const {
    if (terminal_) fmt::print(stderr, "> ");
    if (!std::getline(std::cin, line)) {
      if (terminal_) fmt::print(stderr, "\n");
      return false;
    }
    if (!line.empty() && line.back() == '\r') line.pop_back();
    return true;
  }

  void Reset() {
    messages_.clear();
    if (!system_.empty()) messages_.push_back({"system", system_});
  }

  // False: the conversation is over.
  bool Obey(const std::string& word) {
    if (word == "/exit" || word == "/quit") return false;
    if (word == "/reset") {
      Reset();
    } else if (word == "/help") {
      fmt::print(
          stderr,
          "/reset forgets the conversation; /exit, /quit or Ctrl-D ends it; /help is this. Another "
          "line that begins with / is no command and is not said; everything else is.\n");
    } else {
      fmt::print(stderr, "unknown command {}{}\n", word, DidYouMean(word, kWords));
    }
    return true;
  }

  // Whether it is what was said before that leaves no room for an answer.
  bool IsFull() const {
    if (messages_.size() < 3) return false;
    const auto ids = session_.frontend().encoder().Encode(frontend::MakeConversation(messages_));
    return ids &&
           static_cast<int64_t>(ids->size()) >= session_.frontend().engine().limits().max_model_len;
  }

  void Turn(const std::string& text) {
    WarnOfMalformed("the line", text);
    messages_.push_back({"user", text});
    auto output =
        Answer(session_, MakeRequest(session_.sampling, frontend::MakeConversation(messages_)),
               interrupt_);
    if (!output) {
      // The turn did not happen; what was said before still holds.
      const bool is_full = IsFull();
      messages_.pop_back();
      PrintError(output.error());
      if (is_full) fmt::print(stderr, "The conversation fills the context; /reset forgets it.\n");
      exit_code_ = kExitFailure;
      return;
    }
    messages_.push_back({"assistant", std::move(output->text)});
  }

  const Session& session_;
  const std::string& system_;
  Interrupt& interrupt_;
  const bool terminal_;
  std::vector<text::ChatMessage> messages_;
  int exit_code_ = kExitOk;
};

}  // namespace

Result<int> ChatCommand(const ChatOptions& options, Interrupt& interrupt) {
  MOEBIUS_ASSIGN(SessionPlan plan, PlanSession(options));
  if (!plan.model.encoder.has_chat_template()) {
    return MakeError(ErrorCode::kNotFound,
                     "{}: no chat template, so there is no conversation; use moebius run",
                     options.open.model);
  }
  // What every turn would fail of should not wait for a model to load.
  MOEBIUS_TRY(CheckPrompt(plan, QuestionPrompt(options.system, "?")));
  MOEBIUS_ASSIGN(const Session session, OpenSession(std::move(plan)));
  return Chat(session, options.system, interrupt).Loop();
}

}  // namespace moebius::app
