// Reads one answer of an OpenAI-compatible server as its bytes arrive and keeps what the figures
// need. One a request, one thread.
//
// Token events. A completions chunk counts if it has choices; a chat chunk too, unless all it does
// is name the role before anything is said; reasoning and tool-call deltas are tokens like others.
// How many tokens an event carried is known where the server sends usage with every chunk
// (stream_options.continuous_usage_stats; chunks that add none are no events then). Elsewhere the
// usage at the end says how many there were, and they are spread over the events evenly. Chunks are
// never taken for tokens where there is usage.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "bench/load/record.h"
#include "bench/load/sse.h"

namespace moebius::load {

class AnswerReader {
 public:
  // Fills `record`, which must outlive it. keep_text: the answer's text, too.
  AnswerReader(RequestRecord* record, bool keep_text) : record_(record), keep_text_(keep_text) {}

  void OnHead(int status) { record_->status = status; }
  void OnData(std::string_view bytes, double arrival);
  // The last call. `transport`: how the HTTP exchange ended.
  void OnEnd(const Status& transport, double now);

 private:
  void OnEvent(std::string_view data, double arrival);
  void SpreadTokens();
  void Fail(Outcome outcome, std::string error);
  void FailByStatus();

  RequestRecord* record_;
  bool keep_text_;
  SseParser sse_;
  std::string error_body_;      // the beginning of an answer that is no stream
  int64_t counted_tokens_ = 0;  // of usage that came with tokens
  bool continuous_usage_ = false;
  bool is_done_ = false;  // [DONE]
};

// The message of an error body in OpenAI's shape, else the body's beginning.
std::string ErrorMessageOf(std::string_view body);

}  // namespace moebius::load
