// What happened to one request, as its client saw it. Plain values: the client fills a record, the
// figures read it. Times are seconds of one monotonic clock since the start of the run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace moebius::load {

enum class Outcome {
  kOk,
  kRateLimited,  // HTTP 429
  kClientError,  // any other 4xx, or a status that is no answer
  kServerError,  // 5xx
  kTimeout,      // the deadline of the request passed
  kBroken,       // no connection, or the stream was cut
  kStreamError,  // an error inside HTTP 200
  kEmpty,        // a whole answer without a single token
  kCancelled,    // by us, at the end of the run
};
constexpr int kNumOutcomes = 9;
// "ok", "rate_limited", ...
const char* OutcomeName(Outcome outcome);

// A piece of the stream that carried tokens.
struct TokenEvent {
  double time = 0;
  double tokens = 1;  // see AnswerReader: exact where the server says it
};

struct RequestRecord {
  int64_t index = 0;     // of the request in its run
  double scheduled = 0;  // when it was meant to be sent
  double released = 0;   // when a place among --max-concurrency was free; `scheduled` or later
  double sent = 0;       // t0
  double end = 0;        // the answer was whole, or the request had failed

  std::vector<TokenEvent> events;
  int64_t prompt_tokens = 0;     // the server's; before its answer, what the data set says
  int64_t cached_tokens = -1;    // of the prompt, from the server's cache; -1: it does not say
  int64_t output_tokens = 0;     // n: the server's (usage); without usage, the events
  int64_t reasoning_tokens = 0;  // of these, if the server says
  bool has_usage = false;
  bool exact_events = false;  // the tokens of each event are known, not spread

  Outcome outcome = Outcome::kOk;
  int status = 0;     // of HTTP; 0: none came
  std::string error;  // empty: ok
  std::string finish_reason;
  std::string text;

  bool ok() const { return outcome == Outcome::kOk; }
  // Of the server's doing, or of the way there: one that we ended has not failed.
  bool failed() const { return !ok() && outcome != Outcome::kCancelled; }
  // What came of it was of use: it was served, or would have been had we not ended it. Tokens of an
  // answer that failed are no throughput.
  bool was_served() const { return !failed(); }
  double Ttft() const { return events.empty() ? 0 : events.front().time - sent; }
  double EndToEnd() const { return events.empty() ? end - sent : events.back().time - sent; }
  // (t_n - t_1) / (n - 1), for n >= 2.
  double Tpot() const {
    if (events.empty() || output_tokens < 2) return 0;
    return (events.back().time - events.front().time) / static_cast<double>(output_tokens - 1);
  }
  // How late the generator sent it, of its own doing.
  double Lateness() const { return sent - released; }
};

}  // namespace moebius::load
