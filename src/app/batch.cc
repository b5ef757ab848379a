// moebius run --input-file: every request of a JSONL file at once, answers in the file's order.
#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "app/batch_file.h"
#include "app/commands.h"
#include "app/load_table.h"
#include "app/output_file.h"
#include "app/session.h"
#include "app/standard_output.h"
#include "base/progress.h"

namespace moebius::app {
namespace {

// Requests beyond these wait here instead of in the engine's queue.
constexpr size_t kMaxInFlight = 512;

// Answers requests on as many threads as there may be in flight, writes them in order.
class Batch {
 public:
  // `path` names the requests, `out_name` where the answers go.
  Batch(const Session& session, const std::string& path, const std::vector<BatchLine>& lines,
        std::FILE* out, std::string out_name, std::stop_token cancel)
      : session_(session),
        path_(path),
        lines_(lines),
        out_(out),
        out_name_(std::move(out_name)),
        cancel_(std::move(cancel)),
        answers_(lines.size()),
        progress_("answering", static_cast<int64_t>(lines.size())) {}

  // The number of requests that failed; an error if answers could not be written, which ends it.
  Result<int> Run() {
    std::vector<std::thread> threads;
    const size_t count = std::min(lines_.size(), kMaxInFlight);
    threads.reserve(count);
    for (size_t i = 0; i < count; ++i) threads.emplace_back([this] { Work(); });
    for (std::thread& thread : threads) thread.join();
    if (!written_) return tl::unexpected(written_.error());
    return num_failed_;
  }

 private:
  bool IsOver() const { return cancel_.stop_requested() || broken_; }

  void Work() {
    for (size_t i = next_++; i < lines_.size() && !IsOver(); i = next_++) {
      const BatchLine& line = lines_[i];
      const auto output = session_.frontend().Generate(
          MakeRequest(session_.sampling, line.prompt, line.sampling), {}, cancel_);
      Deliver(i, output);
    }
  }

  void Deliver(size_t index, const Result<frontend::GenerateOutput>& output) {
    const std::lock_guard lock(mutex_);
    const BatchLine& line = lines_[index];
    answers_[index] = output ? FormatAnswer(line, *output) : FormatFailure(line, output.error());
    if (!output || output->error) {
      ++num_failed_;
      const Error& error = output ? *output->error : output.error();
      PrintError(error.WithContext(fmt::format("{}:{}", path_, line.number)));
    }
    for (; num_written_ < answers_.size() && !answers_[num_written_].empty(); ++num_written_) {
      if (written_) written_ = WriteLine(out_, answers_[num_written_], out_name_);
      answers_[num_written_].clear();
      answers_[num_written_].shrink_to_fit();
    }
    broken_ = !written_;
    progress_.Advance();
  }

  const Session& session_;
  const std::string& path_;
  const std::vector<BatchLine>& lines_;
  std::FILE* const out_;
  const std::string out_name_;
  const std::stop_token cancel_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> broken_{false};  // the rest would be computed for nobody
  std::mutex mutex_;                 // guards what follows
  std::vector<std::string> answers_;
  size_t num_written_ = 0;
  int num_failed_ = 0;
  Status written_;
  Progress progress_;
};

// Plain prompts become conversations of one question.
void AskAsUser(const RunOptions& options, std::vector<BatchLine>& lines) {
  for (BatchLine& line : lines) {
    const auto* text = std::get_if<std::string>(&line.prompt);
    if (text != nullptr) line.prompt = QuestionPrompt(options.system, *text);
  }
}

// What every request would fail of should not wait for a model to load: the session's sampling, and
// a template that is missing or broken.
Status CheckBatch(const SessionPlan& plan, const std::string& path,
                  const std::vector<BatchLine>& lines) {
  MOEBIUS_TRY(CheckPrompt(plan, std::vector<TokenId>{0}));
  for (const BatchLine& line : lines) {
    if (!std::holds_alternative<frontend::Conversation>(line.prompt)) continue;
    const Status status = plan.model.encoder.TemplateStatus();
    if (!status) {
      return tl::unexpected(status.error().WithContext(fmt::format("{}:{}", path, line.number)));
    }
    break;
  }
  return {};
}

}  // namespace

Result<int> RunBatch(const RunOptions& options, Interrupt& interrupt) {
  MOEBIUS_ASSIGN(std::vector<BatchLine> lines, ReadBatchFile(options.input_file));
  MOEBIUS_ASSIGN(SessionPlan plan, PlanSession(options));
  if (options.chat.value_or(plan.model.encoder.has_chat_template())) AskAsUser(options, lines);
  MOEBIUS_TRY(CheckBatch(plan, options.input_file, lines));
  std::optional<OutputFile> file;
  if (!options.output_file.empty()) {
    MOEBIUS_ASSIGN(file, OutputFile::Open("--output-file", options.output_file));
  }
  MOEBIUS_ASSIGN(const Session session, OpenSession(std::move(plan)));
  Batch batch(session, options.input_file, lines, file ? file->Begin() : stdout,
              file ? file->name() : "standard output", interrupt.Begin());
  const Result<int> num_failed = batch.Run();
  interrupt.End();
  if (options.parallel.print_load) PrintLoad(session.model);
  if (!num_failed) return tl::unexpected(num_failed.error());
  if (file) MOEBIUS_TRY(file->Finish());
  if (*num_failed > 0) {
    return MakeError(ErrorCode::kInternal, "{}: {} of {} requests failed", options.input_file,
                     *num_failed, lines.size());
  }
  return kExitOk;
}

}  // namespace moebius::app
