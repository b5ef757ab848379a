// When what happened to one request, and the histograms of EngineStats that follow from it. Engine
// thread only.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "engine/engine_stats.h"
#include "engine/request.h"

namespace moebius::engine {

struct RequestTimes {
  using TimePoint = std::chrono::steady_clock::time_point;
  TimePoint arrival;
  std::optional<TimePoint> admission;    // the first one
  std::optional<TimePoint> first_token;  // given to the sink
  TimePoint last_token;
};

// A token came out.
void ObserveToken(RequestTimes::TimePoint now, RequestTimes* times, EngineStats* stats);

// The request has ended, however. max_tokens: what it could have had.
void ObserveEnd(RequestTimes::TimePoint now, const RequestTimes& times, const Usage& usage,
                int64_t max_tokens, EngineStats* stats);

}  // namespace moebius::engine
