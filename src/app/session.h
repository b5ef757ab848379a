// What the commands that answer have in common: a loaded model, the sampling that flags and folder
// ask for, and how an answer looks on the terminal. Used by the main thread.
#pragma once

#include <string>
#include <vector>

#include "app/interrupt.h"
#include "app/model_folder.h"
#include "app/options.h"
#include "base/result.h"
#include "frontend/frontend.h"
#include "frontend/open.h"

namespace moebius::app {

constexpr int32_t kDefaultMaxTokens = 512;

// Everything but the weights: enough to check a request before they are read.
struct SessionPlan {
  ModelFolder folder;
  frontend::PreparedModel model;
  frontend::SamplingFields sampling;  // defaults, then generation_config.json, then flags
};
Result<SessionPlan> PlanSession(const GenerateOptions& options);

// Whether the model would take this prompt with the session's sampling. (Memory may yet allow less
// than the length that is known here.)
Status CheckPrompt(const SessionPlan& plan, const frontend::Prompt& prompt);

struct Session {
  frontend::OpenedModel model;
  frontend::SamplingFields sampling;

  const frontend::Frontend& frontend() const { return *model.frontend; }
};
Result<Session> OpenSession(SessionPlan plan);

// A request with the session's sampling and `more` on top.
frontend::GenerateRequest MakeRequest(const frontend::SamplingFields& sampling,
                                      frontend::Prompt prompt,
                                      const frontend::SamplingFields& more = {});

// A conversation of one question, after the system message if there is one.
std::vector<text::ChatMessage> Question(const std::string& system, const std::string& question);
frontend::Prompt QuestionPrompt(const std::string& system, const std::string& question);

// Streams the answer to standard output, each piece flushed, and a line of figures to standard
// error. Errors: the request was refused, or failed on the way. A cancelled answer is no error.
Result<frontend::GenerateOutput> Answer(const Session& session,
                                        const frontend::GenerateRequest& request,
                                        Interrupt& interrupt);

// A line on standard error where `text` is not UTF-8; `name` says whose text it is.
void WarnOfMalformed(const std::string& name, const std::string& text);

// "stop", "length", "abort", "error": OpenAI's and vLLM's names.
const char* FinishName(engine::FinishReason reason);

// "moebius: error: ..." on standard error.
void PrintError(const Error& error);

}  // namespace moebius::app
