#include "engine/token_stream.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <utility>

namespace moebius::engine {
namespace {

void AppendEntries(std::span<const TokenLogprobs> more, std::vector<LogprobEntry>* all) {
  for (const TokenLogprobs& entry : more) {
    all->push_back({entry.token,
                    entry.logprob,
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
  std::function<void()> on_news;

  void Append(const TokenEvent& event) {
    chunk.tokens.insert(chunk.tokens.end(), event.tokens.begin(), event.tokens.end());
    AppendEntries(event.logprobs, &chunk.logprobs);
    AppendEntries(event.prompt_logprobs, &chunk.prompt_logprobs);
    chunk.finish = event.finish;
    chunk.stop_token = event.stop_token;
    if (event.error != nullptr) chunk.error = *event.error;
    chunk.usage = event.usage;
  }

  TokenChunk Take() {
    has_news = false;
    is_over = chunk.finish.has_value();
    return std::exchange(chunk, {});
  }
};

TokenStream::TokenStream() : buffer_(std::make_shared<Buffer>()) {}

TokenSink TokenStream::Sink() const { return Sink({}, News::kEnd); }

TokenSink TokenStream::Sink(std::function<void()> on_news, News news) const {
  buffer_->on_news = std::move(on_news);
  return [buffer = buffer_, news](const TokenEvent& event) {
    {
      const std::lock_guard lock(buffer->mutex);
      const bool is_first = !std::exchange(buffer->has_news, true);
      buffer->Append(event);
      // Under the lock, so that Mute can promise silence.
      if (buffer->on_news && (event.finish || (news == News::kAny && is_first))) buffer->on_news();
    }
    buffer->arrived.notify_one();
  };
}

void TokenStream::Mute() {
  std::function<void()> dropped;  // may own much: not destroyed under the lock
  const std::lock_guard lock(buffer_->mutex);
  dropped.swap(buffer_->on_news);
}

std::optional<TokenChunk> TokenStream::TryNext() {
  const std::lock_guard lock(buffer_->mutex);
  if (!buffer_->has_news) return std::nullopt;
  return buffer_->Take();
}

Result<TokenChunk> TokenStream::Next(std::chrono::milliseconds timeout) {
  std::unique_lock lock(buffer_->mutex);
  if (buffer_->is_over) {
    return MakeError(ErrorCode::kNotFound, "the request's last event has been taken already");
  }
  if (!buffer_->arrived.wait_for(lock, timeout, [&] { return buffer_->has_news; })) {
    return MakeError(ErrorCode::kDeadline, "no token within {} ms", timeout.count());
  }
  return buffer_->Take();
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
