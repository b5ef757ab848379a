// One completion call under way, from its body to its last byte: parsed on a text thread, answered
// by one LiveAnswer a choice, rendered by its ApiCall. Streamed, the connection pulls (Take) on an
// HTTP thread and the engine only wakes it; else a text thread gathers (Collect) when the answers
// have ended. Owned by the CallRunner until its end, and by whoever works on it.
//
// What takes long (parsing, submitting, gathering) happens outside the mutex, so that an HTTP
// thread never waits for it when the client leaves meanwhile.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "frontend/live_answer.h"
#include "net/http_server.h"
#include "serve/openai/api_call.h"
#include "serve/reply.h"
#include "serve/stats_recorder.h"
#include "serve/text_pool.h"

namespace moebius::serve {

using ParseCall = CallResult (*)(std::string_view body, const ApiContext& context,
                                 const std::string& request_id);

// What all calls of a server share; outlives them.
struct CallEnvironment {
  const frontend::Frontend* frontend = nullptr;
  const ApiContext* api = nullptr;
  TextPool* text_pool = nullptr;
  StatsRecorder* stats = nullptr;
  int64_t max_unread_bytes = 0;  // of one stream: what may wait for its reader
  // The call has ended: it need not be kept. Any thread.
  std::function<void(int64_t call_id)> on_end;
};

class LiveCall : public std::enable_shared_from_this<LiveCall> {
 public:
  LiveCall(const CallEnvironment* environment, int64_t id, std::shared_ptr<Reply> reply,
           std::optional<int> data_parallel_rank);
  ~LiveCall();

  // Parses, submits every choice and begins to answer. On a text thread, once.
  void Run(ParseCall parse, const std::string& body);

  // Ends it with this error, now (streamed: with the next Take). Ended already: no effect.
  void Abort(const ApiError& error);
  // The client has left: nobody is to be told.
  void Abandon();

  // Streamed: a piece of what there is to send, empty only if there is nothing. HTTP thread.
  net::BodySource::Piece Take();

  int64_t id() const { return id_; }
  Reply::Clock::time_point arrival() const { return reply_->arrival(); }
  // Streamed: what waits for its reader, in the bytes that it will be said in.
  int64_t unread_bytes() const { return budget_->unread_bytes(); }

 private:
  using Answers = std::vector<std::unique_ptr<frontend::LiveAnswer>>;

  void Start(std::unique_ptr<ApiCall> api);
  Result<Answers> Submit(const ApiCall& api);
  void CollectSoon();
  void Collect();
  std::optional<std::string> Gather(Answers* answers);
  // With the mutex held:
  void PollStreamed(std::string* bytes, int64_t* num_tokens);
  bool PollChoice(size_t choice, std::string* bytes, int64_t* num_tokens);
  void End();

  const CallEnvironment* const environment_;
  const int64_t id_;
  const std::shared_ptr<Reply> reply_;
  const std::optional<int> data_parallel_rank_;  // that is to answer all choices
  const std::shared_ptr<frontend::ReadBudget> budget_;
  std::atomic<bool> is_collecting_{false};  // a Collect is posted and has not begun
  std::mutex collect_mutex_;                // one Collect at a time; taken before the other

  std::mutex mutex_;
  std::unique_ptr<ApiCall> api_;
  Answers answers_;              // by choice; empty while Collect has them
  std::vector<bool> has_ended_;  // by choice: OnFinish has been called
  size_t num_ended_ = 0;
  size_t next_choice_ = 0;           // streamed: whose turn it is
  std::optional<ApiError> failure_;  // streamed: to be told with the next Take
  bool is_streaming_ = false;
  bool is_over_ = false;
};

}  // namespace moebius::serve
