#include "app/session.h"

#include <cstdio>
#include <utility>

#include "app/numbers.h"
#include "app/standard_output.h"
#include "base/log.h"
#include "frontend/open_ranks.h"
#include "text/unicode.h"

namespace moebius::app {
namespace {

void PrintFigures(const frontend::GenerateOutput& output) {
  const frontend::Timing& timing = output.timing;
  const auto count = static_cast<int64_t>(output.token_ids.size());
  std::string line = Count(output.usage.num_prompt_tokens, "prompt token");
  if (output.usage.num_cached_tokens > 0)
    line += fmt::format(" ({} cached)", output.usage.num_cached_tokens);
  line += ", " + Count(count, "token");
  if (count > 0) line += fmt::format(", first after {:.1f} ms", timing.first_token * 1e3);
  double seconds = 0;
  for (const double gap : timing.gaps) seconds += gap;
  if (seconds > 0)
    line +=
        fmt::format(", then {:.1f} tokens/s", static_cast<double>(timing.gaps.size()) / seconds);
  fmt::print(stderr, "[{}, finish: {}]\n", line, FinishName(output.finish));
}

}  // namespace

const char* FinishName(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return "stop";
    case engine::FinishReason::kLength:
      return "length";
    case engine::FinishReason::kCancelled:
      return "abort";
    case engine::FinishReason::kError:
      return "error";
  }
  return "error";
}

void WarnOfMalformed(const std::string& name, const std::string& text) {
  const size_t valid = text::ValidPrefix(text);
  if (valid < text.size())
    fmt::print(stderr, "moebius: {} is not UTF-8 from byte {} on\n", name, valid);
}

void PrintError(const Error& error) { fmt::print(stderr, "moebius: error: {}\n", error.message()); }

Result<SessionPlan> PlanSession(const GenerateOptions& options) {
  frontend::OpenOptions open = options.open;
  MOEBIUS_ASSIGN(ModelFolder folder, ModelFolder::Find(open));
  MOEBIUS_ASSIGN(frontend::PreparedModel model, folder.Named(frontend::Prepare(open)));
  frontend::SamplingFields sampling;
  sampling.max_tokens = kDefaultMaxTokens;
  if (options.generation_config == "auto") sampling.Override(model.defaults);
  sampling.Override(options.sampling);
  return SessionPlan{std::move(folder), std::move(model), std::move(sampling)};
}

Status CheckPrompt(const SessionPlan& plan, const frontend::Prompt& prompt) {
  return plan.model.encoder.Check(MakeRequest(plan.sampling, prompt), plan.model.limits);
}

Result<Session> OpenSession(SessionPlan plan) {
  const frontend::OpenOptions& open = plan.model.options;
  if (open.parallel.num_gpus() > 1) {
    LogInfo("{}", DescribeRanks(open, plan.model.config));
    const std::string balance = DescribeBalance(open, plan.model.config);
    if (!balance.empty()) LogInfo("{}", balance);
    for (const std::string& line : DescribeBinding(open)) LogInfo("{}", line);
  }
  MOEBIUS_ASSIGN(frontend::OpenedModel model,
                 plan.folder.Named(frontend::Load(std::move(plan.model))));
  return Session{std::move(model), std::move(plan.sampling)};
}

frontend::GenerateRequest MakeRequest(const frontend::SamplingFields& sampling,
                                      frontend::Prompt prompt,
                                      const frontend::SamplingFields& more) {
  frontend::GenerateRequest request;
  request.prompt = std::move(prompt);
  frontend::SamplingFields all = sampling;
  all.Override(more);
  all.Apply(request);
  return request;
}

std::vector<text::ChatMessage> Question(const std::string& system, const std::string& question) {
  std::vector<text::ChatMessage> messages;
  if (!system.empty()) messages.push_back({"system", system});
  messages.push_back({"user", question});
  return messages;
}

frontend::Prompt QuestionPrompt(const std::string& system, const std::string& question) {
  return frontend::MakeConversation(Question(system, question));
}

Result<frontend::GenerateOutput> Answer(const Session& session,
                                        const frontend::GenerateRequest& request,
                                        Interrupt& interrupt) {
  char last = '\n';
  const auto show = [&last](const frontend::Delta& delta) {
    if (delta.text.empty()) return;
    std::fwrite(delta.text.data(), 1, delta.text.size(), stdout);
    FlushStandardOutput();
    last = delta.text.back();
  };
  auto output = session.frontend().Generate(request, show, interrupt.Begin());
  interrupt.End();
  if (last != '\n') std::fputc('\n', stdout);
  FlushStandardOutput();
  if (!output) return output;
  PrintFigures(*output);
  if (output->finish == engine::FinishReason::kError) {
    return tl::unexpected(output->error ? *output->error
                                        : Error(ErrorCode::kInternal, "the answer failed"));
  }
  return output;
}

}  // namespace moebius::app
