#include "bench/load.h"

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <utility>

namespace moebius::bench {
namespace {

// Shared with the sinks, which may outlive the call when it gives up early.
struct Board {
  std::mutex mutex;
  std::condition_variable all_done;
  Trace trace;
  size_t num_finished = 0;
  std::optional<Error> error;
};

engine::TokenSink MakeSink(const std::shared_ptr<Board>& board, size_t index) {
  return [board, index](const engine::TokenEvent& event) {
    const Clock::time_point now = Clock::now();
    const std::lock_guard lock(board->mutex);
    std::vector<Clock::time_point>& tokens = board->trace.requests[index].tokens;
    tokens.insert(tokens.end(), event.tokens.size(), now);
    if (!event.finish) return;
    if (*event.finish != engine::FinishReason::kLength && !board->error) {
      board->error =
          event.error != nullptr
              ? *event.error
              : Error(ErrorCode::kInternal, fmt::format("request {} ended early: {}", index,
                                                        engine::FinishReasonName(*event.finish)));
    }
    ++board->num_finished;
    board->all_done.notify_one();
  };
}

}  // namespace

std::vector<engine::RequestInput> MakeRequests(const Workload& workload, int64_t vocab_size) {
  std::mt19937_64 random(workload.seed);
  std::vector<engine::RequestInput> requests(static_cast<size_t>(workload.num_requests));
  for (engine::RequestInput& request : requests) {
    for (int64_t i = 0; i < workload.input_len; ++i) {
      request.prompt.push_back(static_cast<TokenId>(random() % static_cast<uint64_t>(vocab_size)));
    }
    request.sampling.temperature = 0;
    request.sampling.ignore_eos = true;
    request.sampling.max_tokens = static_cast<int32_t>(workload.output_len);
  }
  return requests;
}

Result<Trace> Run(engine::EngineClient& engine, std::vector<engine::RequestInput> requests) {
  const auto board = std::make_shared<Board>();
  const size_t count = requests.size();
  board->trace.requests.resize(count);
  const Clock::time_point start = Clock::now();
  for (size_t i = 0; i < count; ++i) {
    {
      const std::lock_guard lock(board->mutex);
      board->trace.requests[i].submitted = Clock::now();
    }
    MOEBIUS_TRY(
        engine.Submit(std::move(requests[i]), MakeSink(board, i)).map([](engine::RequestId) {}));
  }
  std::unique_lock lock(board->mutex);
  const auto finished = [&] { return board->num_finished == count; };
  while (!board->all_done.wait_for(lock, std::chrono::seconds(1), finished)) {
    lock.unlock();
    MOEBIUS_TRY(engine.Health());
    lock.lock();
  }
  if (board->error) return tl::unexpected(*board->error);
  Trace trace = std::move(board->trace);
  trace.seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return trace;
}

}  // namespace moebius::bench
