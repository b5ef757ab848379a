#include "engine/token_stream.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace moebius::engine {
namespace {

void AppendEntries(std::span<const TokenLogprobs> more, std::vector<LogprobEntry>* all) {
  for (const TokenLogprobs& entry : more) {
    all->push_back({entry.logprob,
                    entry.rank,
                    {entry.top_tokens.begin(), entry.top_tokens.end()},
                    {entry.top_logprobs.begin(), entry.top_logprobs.end()}});
  }
}

void MoveEntries(std::vector<LogprobEntry>& more, std::vector<LogprobEntry>* all) {
  for (LogprobEntry& entry : more) all->push_back(std::move(entry));
}

}  // namespace

struct TokenStream::Buffer {
  std::mutex mutex;
  std::condition_variable arrived;
  TokenChunk chunk;
  bool has_news = false;
  bool is_over = false;  // the finishing chunk has been taken
};

TokenStream::TokenStream() : buffer_(std::make_shared<Buffer>()) {}

TokenSink TokenStream::Sink() const {
  return [buffer = buffer_](const TokenEvent& event) {
    {
      const std::lock_guard lock(buffer->mutex);
      TokenChunk& chunk = buffer->chunk;
      chunk.tokens.insert(chunk.tokens.end(), event.tokens.begin(), event.tokens.end());
      AppendEntries(event.logprobs, &chunk.logprobs);
      AppendEntries(event.prompt_logprobs, &chunk.prompt_logprobs);
      chunk.finish = event.finish;
      chunk.stop_token = event.stop_token;
      if (event.error != nullptr) chunk.error = *event.error;
      chunk.usage = event.usage;
      buffer->has_news = true;
    }
    buffer->arrived.notify_one();
  };
}

Result<TokenChunk> TokenStream::Next(std::chrono::milliseconds timeout) {
  std::unique_lock lock(buffer_->mutex);
  if (buffer_->is_over) {
    return MakeError(ErrorCode::kNotFound, "the request's last event has been taken already");
  }
  if (!buffer_->arrived.wait_for(lock, timeout, [&] { return buffer_->has_news; })) {
    return MakeError(ErrorCode::kDeadline, "no token within {} ms", timeout.count());
  }
  buffer_->has_news = false;
  buffer_->is_over = buffer_->chunk.finish.has_value();
  return std::exchange(buffer_->chunk, {});
}

Result<TokenChunk> TokenStream::Collect(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  TokenChunk all;
  while (!all.finish) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    MOEBIUS_ASSIGN(TokenChunk chunk, Next(std::max(left, std::chrono::milliseconds(0))));
    all.tokens.insert(all.tokens.end(), chunk.tokens.begin(), chunk.tokens.end());
    MoveEntries(chunk.logprobs, &all.logprobs);
    MoveEntries(chunk.prompt_logprobs, &all.prompt_logprobs);
    all.finish = chunk.finish;
    all.stop_token = chunk.stop_token;
    all.error = std::move(chunk.error);
    all.usage = chunk.usage;
  }
  return all;
}

}  // namespace moebius::engine
