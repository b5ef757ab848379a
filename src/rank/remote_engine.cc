#include "rank/remote_engine.h"

#include <pthread.h>

#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace moebius::rank {
namespace {

using engine::FinishReason;
using engine::LogprobEntry;
using engine::RequestId;
using engine::TokenLogprobs;

// What an engine may take to end its requests: a step that runs is finished.
constexpr auto kStopTimeout = std::chrono::seconds(10);

std::vector<TokenLogprobs> ViewsOf(const std::vector<LogprobEntry>& entries) {
  std::vector<TokenLogprobs> views;
  views.reserve(entries.size());
  for (const LogprobEntry& entry : entries) {
    views.push_back({entry.token, entry.logprob, entry.rank, entry.top_tokens, entry.top_logprobs});
  }
  return views;
}

}  // namespace

RemoteEngine::RemoteEngine(std::unique_ptr<FrameSocket> socket, Options options)
    : socket_(std::move(socket)), options_(std::move(options)), reader_([this] {
        pthread_setname_np(pthread_self(), "remote engine");
        ReadLoop();
      }) {}

RemoteEngine::~RemoteEngine() {
  {
    std::unique_lock lock(mutex_);
    is_stopping_ = true;
    changed_.notify_all();
    if (!has_ended_) socket_->Send(Encode(StopMessage()));
    changed_.wait_for(lock, kStopTimeout, [&] { return has_ended_; });
  }
  socket_->Close();
  reader_.join();
}

bool RemoteEngine::is_ready() const {
  const std::lock_guard lock(mutex_);
  return is_ready_;
}

Result<RequestId> RemoteEngine::Submit(engine::RequestInput input, engine::TokenSink sink) {
  MOEBIUS_TRY(engine::Validate(input, limits()));
  if (input.constraint != nullptr) {
    return MakeError(ErrorCode::kUnsupported,
                     "a constraint on the output is not supported by ranks that are processes");
  }
  if (const Status health = Health(); !health) {
    return MakeError(ErrorCode::kUnavailable, "{}", health.error().message());
  }
  SubmitMessage message;
  message.input = std::move(input);
  const std::lock_guard lock(mutex_);
  if (is_stopping_ || has_ended_) {
    return MakeError(ErrorCode::kUnavailable, "the engine is shutting down");
  }
  if (static_cast<int64_t>(requests_.size()) - limits_.max_num_seqs >= limits_.max_num_waiting) {
    return MakeError(ErrorCode::kUnavailable,
                     "{} requests are under way, expected at most {} that run and {} that wait",
                     requests_.size(), limits_.max_num_seqs, limits_.max_num_waiting);
  }
  message.request = next_request_;
  const std::string frame = Encode(message);
  if (frame.size() > FrameSocket::kMaxFrame) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "the request has {} bytes on its way to a rank, expected at most {}",
                     frame.size(), FrameSocket::kMaxFrame);
  }
  ++next_request_;
  requests_[message.request] = std::make_shared<Live>(Live{std::move(sink), {}, {}});
  socket_->Send(frame);  // under the lock: a Cancel must come after it
  return RequestId(message.request);
}

void RemoteEngine::Cancel(RequestId request, FinishReason reason) {
  const std::lock_guard lock(mutex_);
  if (requests_.contains(request.value())) {
    socket_->Send(Encode(CancelMessage{request.value(), reason}));
  }
}

engine::EngineStats RemoteEngine::Stats() const {
  const std::lock_guard lock(mutex_);
  return stats_.stats;
}

moe::ExpertStats RemoteEngine::ExpertLoad() const {
  const std::lock_guard lock(mutex_);
  return stats_.experts;
}

Status RemoteEngine::Health() const {
  const std::lock_guard lock(mutex_);
  if (fault_) return tl::unexpected(*fault_);
  if (stats_.fault) return tl::unexpected(*stats_.fault);
  return {};
}

void RemoteEngine::Fail(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (fault_) return;
    fault_ = error;
    changed_.notify_all();
  }
  socket_->Close();
}

void RemoteEngine::ReadLoop() {
  const Status status = ReadMessages();
  std::optional<Error> error;
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, options_.patience, [&] { return fault_ || is_stopping_; });
    if (!fault_ && !is_stopping_) fault_ = status.error();
    error = fault_;
    has_ended_ = true;
    changed_.notify_all();
  }
  if (options_.on_ready) options_.on_ready();
  EndAll(error ? *error : status.error());
  socket_->Close();
}

Status RemoteEngine::ReadMessages() {
  while (true) {
    MOEBIUS_ASSIGN(const std::string frame, socket_->Receive());
    Result<FromRank> message = DecodeFromRank(frame);
    if (!message) return tl::unexpected(std::move(message).error());
    std::visit([this](auto& value) { OnMessage(value); }, *message);
  }
}

void RemoteEngine::OnMessage(ReadyMessage& message) {
  {
    const std::lock_guard lock(mutex_);
    limits_ = std::move(message.limits);
    stats_.stats = std::move(message.stats);
    is_ready_ = true;
  }
  if (options_.on_ready) options_.on_ready();
}

void RemoteEngine::OnMessage(RefusedMessage& message) {
  EventMessage event;
  event.request = message.request;
  event.event.finish = FinishReason::kError;
  event.event.error = std::move(message.error);
  OnMessage(event);
}

void RemoteEngine::OnMessage(EventMessage& message) {
  const engine::TokenChunk& chunk = message.event;
  std::shared_ptr<Live> live;
  {
    const std::lock_guard lock(mutex_);
    const auto found = requests_.find(message.request);
    if (found == requests_.end()) return;
    live = found->second;
    if (!message.continues) live->usage = chunk.usage;
    if (chunk.finish) requests_.erase(found);
  }
  if (message.continues || !live->prompt_logprobs.empty()) {
    for (LogprobEntry& entry : message.event.prompt_logprobs) {
      live->prompt_logprobs.push_back(std::move(entry));
    }
    if (message.continues) return;
    message.event.prompt_logprobs = std::exchange(live->prompt_logprobs, {});
  }
  const std::vector<TokenLogprobs> logprobs = ViewsOf(chunk.logprobs);
  const std::vector<TokenLogprobs> prompt_logprobs = ViewsOf(chunk.prompt_logprobs);
  engine::TokenEvent event;
  event.request = RequestId(message.request);
  event.tokens = chunk.tokens;
  event.logprobs = logprobs;
  event.prompt_logprobs = prompt_logprobs;
  event.finish = chunk.finish;
  event.stop_token = chunk.stop_token;
  event.error = chunk.error ? &*chunk.error : nullptr;
  event.usage = chunk.usage;
  live->sink(event);
}

void RemoteEngine::OnMessage(StatsMessage& message) {
  const std::lock_guard lock(mutex_);
  stats_ = std::move(message);
}

void RemoteEngine::OnMessage(StepReport& message) {
  if (!options_.on_step) return;
  message.record.dp_rows = message.dp_rows;
  message.record.expert_counts = message.expert_counts;
  options_.on_step(message.record);
}

// On the reading thread, after its last message; nobody is taken any more.
void RemoteEngine::EndAll(const Error& error) {
  std::unordered_map<int64_t, std::shared_ptr<Live>> requests;
  bool is_stopping = false;
  {
    const std::lock_guard lock(mutex_);
    requests.swap(requests_);
    is_stopping = is_stopping_ && !fault_;
  }
  for (const auto& [id, live] : requests) {
    engine::TokenEvent event;
    event.request = RequestId(id);
    event.finish = is_stopping ? FinishReason::kCancelled : FinishReason::kError;
    event.error = is_stopping ? nullptr : &error;
    event.usage = live->usage;
    live->sink(event);
  }
}

}  // namespace moebius::rank
