#include "frontend/read_budget.h"

#include <fmt/format.h>

#include <utility>

namespace moebius::frontend {
namespace {

int64_t BytesOf(const engine::TokenEvent& event) {
  int64_t bytes = 0;
  for (size_t i = 0; i < event.tokens.size(); ++i) {
    const bool has_logprobs = i < event.logprobs.size();
    bytes += TokenBytes(has_logprobs, has_logprobs ? event.logprobs[i].top_tokens.size() : 0);
  }
  return bytes;
}

}  // namespace

bool ReadBudget::TryAdd(int64_t bytes) {
  if (unread_bytes_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= max_bytes_) return true;
  Take(bytes);
  was_exceeded_.store(true, std::memory_order_relaxed);
  return false;
}

engine::TokenSink WithinBudget(std::shared_ptr<ReadBudget> budget, engine::EngineClient* engine,
                               engine::TokenSink sink) {
  return [budget = std::move(budget), engine, sink = std::move(sink),
          is_over = false](const engine::TokenEvent& event) mutable {
    if (is_over) return;  // what was under way when it was cancelled
    const int64_t bytes = BytesOf(event);
    if (event.finish) {  // nothing comes after it
      budget->Add(bytes);
      return sink(event);
    }
    if (budget->TryAdd(bytes)) return sink(event);
    is_over = true;
    const Error error(
        ErrorCode::kUnavailable,
        fmt::format("the stream is read too slowly: more than {} bytes of it waited to be read",
                    budget->max_bytes()));
    engine::TokenEvent last;
    last.request = event.request;
    last.finish = engine::FinishReason::kError;
    last.error = &error;
    last.usage = event.usage;
    sink(last);  // first: whoever knows of the cancellation finds the end
    engine->Cancel(event.request, engine::FinishReason::kCancelled);
  };
}

}  // namespace moebius::frontend
