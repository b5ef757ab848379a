// moebius chat: a conversation. Each turn sends the whole of it; the prefix cache makes what was
// said before cheap.
#include <fmt/core.h>
#include <unistd.h>

#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "app/commands.h"
#include "app/load_table.h"
#include "app/remote.h"
#include "app/session.h"
#include "base/suggest.h"

namespace moebius::app {
namespace {

const std::vector<std::string> kWords = {"/exit", "/quit", "/reset", "/help"};

using Messages = std::vector<text::ChatMessage>;

// Who answers: a model in this process, or a server.
struct Partner {
  std::function<Result<std::string>(const Messages&)> answer;  // printed as it comes
  std::function<bool(const Messages&)> is_full;                // they leave no room for an answer
  std::function<bool()> is_gone;                               // for good
};

class Chat {
 public:
  Chat(Partner partner, const std::string& system)
      : partner_(std::move(partner)), system_(system), terminal_(isatty(STDIN_FILENO) != 0) {
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
        if (exit_code_ != kExitOk && partner_.is_gone()) break;
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

  void Turn(const std::string& text) {
    WarnOfMalformed("the line", text);
    messages_.push_back({"user", text});
    auto answer = partner_.answer(messages_);
    if (!answer) {
      // The turn did not happen; what was said before still holds.
      const bool is_full = messages_.size() >= 3 && partner_.is_full(messages_);
      messages_.pop_back();
      PrintError(answer.error());
      if (is_full) fmt::print(stderr, "The conversation fills the context; /reset forgets it.\n");
      exit_code_ = kExitFailure;
      return;
    }
    messages_.push_back({"assistant", std::move(*answer)});
  }

  const Partner partner_;
  const std::string& system_;
  const bool terminal_;
  Messages messages_;
  int exit_code_ = kExitOk;
};

Partner LocalPartner(const Session& session, Interrupt& interrupt) {
  const auto answer = [&](const Messages& messages) -> Result<std::string> {
    MOEBIUS_ASSIGN(
        frontend::GenerateOutput output,
        Answer(session, MakeRequest(session.sampling, frontend::MakeConversation(messages)),
               interrupt));
    return std::move(output.text);
  };
  const auto is_full = [&session](const Messages& messages) {
    const auto ids = session.frontend().encoder().Encode(frontend::MakeConversation(messages));
    return ids &&
           static_cast<int64_t>(ids->size()) >= session.frontend().engine().limits().max_model_len;
  };
  const auto is_gone = [&session] { return !session.frontend().engine().Health(); };
  return {answer, is_full, is_gone};
}

Result<int> RemoteChat(const ChatOptions& options, Interrupt& interrupt) {
  MOEBIUS_ASSIGN(RemoteServer server, RemoteServer::Connect(options.remote, options.open.model));
  frontend::SamplingFields sampling;
  sampling.max_tokens = kDefaultMaxTokens;
  sampling.Override(options.sampling);
  const auto answer = [&](const Messages& messages) -> Result<std::string> {
    MOEBIUS_ASSIGN(RemoteAnswer remote, server.Chat(messages, sampling, interrupt));
    return std::move(remote.text);
  };
  // The server's error says so itself.
  const auto never = [](const auto&...) { return false; };
  return Chat({answer, never, never}, options.system).Loop();
}

}  // namespace

Result<int> ChatCommand(const ChatOptions& options, Interrupt& interrupt) {
  if (!options.remote.url.empty()) return RemoteChat(options, interrupt);
  MOEBIUS_ASSIGN(SessionPlan plan, PlanSession(options));
  if (!plan.model.encoder.has_chat_template()) {
    return MakeError(ErrorCode::kNotFound,
                     "{}: no chat template, so there is no conversation; use moebius run",
                     options.open.model);
  }
  // What every turn would fail of should not wait for a model to load.
  MOEBIUS_TRY(CheckPrompt(plan, QuestionPrompt(options.system, "?")));
  MOEBIUS_ASSIGN(const Session session, OpenSession(std::move(plan)));
  const int exit_code = Chat(LocalPartner(session, interrupt), options.system).Loop();
  if (options.parallel.print_load) PrintLoad(session.model);
  return exit_code;
}

}  // namespace moebius::app
