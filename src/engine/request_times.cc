#include "engine/request_times.h"

#include <algorithm>

namespace moebius::engine {
namespace {

// An arrival that its sender put into the future is one of now.
double Seconds(RequestTimes::TimePoint begin, RequestTimes::TimePoint end) {
  return std::max(0.0, std::chrono::duration<double>(end - begin).count());
}

}  // namespace

void ObserveToken(RequestTimes::TimePoint now, RequestTimes* times, EngineStats* stats) {
  if (times->first_token) {
    stats->inter_token_latency.Observe(Seconds(times->last_token, now));
  } else {
    times->first_token = now;
    stats->time_to_first_token.Observe(Seconds(times->arrival, now));
  }
  times->last_token = now;
}

void ObserveEnd(RequestTimes::TimePoint now, const RequestTimes& times, const Usage& usage,
                int64_t max_tokens, EngineStats* stats) {
  stats->e2e_latency.Observe(Seconds(times.arrival, now));
  stats->prompt_length.Observe(static_cast<double>(usage.num_prompt_tokens));
  stats->output_length.Observe(static_cast<double>(usage.num_output_tokens));
  stats->max_tokens.Observe(static_cast<double>(max_tokens));
  if (!times.admission) return;
  stats->queue_time.Observe(Seconds(times.arrival, *times.admission));
  stats->computed_prompt_tokens.Observe(
      static_cast<double>(usage.num_prompt_tokens - usage.num_cached_tokens));
  if (!times.first_token) return;
  const double decode = Seconds(*times.first_token, times.last_token);
  stats->prefill_time.Observe(Seconds(*times.admission, *times.first_token));
  stats->decode_time.Observe(decode);
  stats->inference_time.Observe(Seconds(*times.admission, times.last_token));
  if (usage.num_output_tokens > 1) {
    stats->time_per_output_token.Observe(decode / static_cast<double>(usage.num_output_tokens - 1));
  }
}

}  // namespace moebius::engine
