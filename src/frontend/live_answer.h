// One answer under way, for a caller that must not wait: the engine's thread announces news, the
// owner polls when it pleases. What is not polled is merged, and with a budget it is bounded, too.
// Owned by one call; one thread at a time. Destroying it before the end cancels the request.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "base/result.h"
#include "engine/token_stream.h"
#include "frontend/frontend.h"
#include "frontend/generation.h"
#include "frontend/read_budget.h"
#include "frontend/request.h"

namespace moebius::frontend {

class LiveAnswer {
 public:
  // `on_news` is called on the engine's thread when something has arrived after the last Poll (once
  // until the next Poll), perhaps before Start returns, never after the answer is destroyed. It
  // must be quick and must not call the answer. With News::kEnd it is called for the end alone,
  // unless the request has stop strings, which somebody must look for. Errors as
  // EngineClient::Submit's and PromptEncoder::MakeInput's. `frontend` outlives the answer.
  //
  // With a `budget` (which the choices of a call share) the answer is for a reader who takes it as
  // it comes: a Poll gives a slice of about kSliceBytes and forgets the log probabilities that the
  // Poll before gave; what would wait beyond the budget ends the answer with kUnavailable.
  static Result<std::unique_ptr<LiveAnswer>> Start(const Frontend& frontend,
                                                   const GenerateRequest& request,
                                                   std::function<void()> on_news,
                                                   engine::News news = engine::News::kAny,
                                                   std::shared_ptr<ReadBudget> budget = nullptr);
  ~LiveAnswer();

  static constexpr int64_t kSliceBytes = 128 << 10;

  // What is new since the last call; none: nothing, and there will be news before there is more.
  // The views live until the next call.
  std::optional<Delta> Poll();

  bool finished() const { return generation_.finished(); }
  const GenerateOutput& output() const { return generation_.output(); }    // so far
  GenerateOutput TakeOutput() { return std::move(generation_.output()); }  // once finished

  // Ends it as cancelled; Poll shows it.
  void Cancel();

 private:
  LiveAnswer(const Frontend& frontend, const GenerateRequest& request,
             std::shared_ptr<ReadBudget> budget);
  std::optional<engine::TokenChunk> NextSlice();

  const Frontend* frontend_;
  const std::shared_ptr<ReadBudget> budget_;
  engine::TokenStream stream_;
  Generation generation_;
  std::optional<engine::TokenChunk> rest_;  // taken from the stream and not sliced off yet
  size_t num_sliced_ = 0;                   // tokens of rest_
  engine::RequestId id_;
  bool told_engine_ = false;
};

}  // namespace moebius::frontend
