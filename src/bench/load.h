// Offline load on an engine in this process: random prompts of one length, all submitted at once,
// and when each token came. Used by one thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "engine/engine_client.h"

namespace moebius::bench {

using Clock = std::chrono::steady_clock;

struct Workload {
  int64_t num_requests = 1;
  int64_t input_len = 32;
  int64_t output_len = 128;
  uint64_t seed = 0;  // of the prompts: no two requests of two seeds share a prefix worth caching
};

// Greedy requests that end tokens do not stop.
std::vector<engine::RequestInput> MakeRequests(const Workload& workload, int64_t vocab_size);

struct RequestTrace {
  Clock::time_point submitted;
  std::vector<Clock::time_point> tokens;
};

struct Trace {
  std::vector<RequestTrace> requests;
  double seconds = 0;  // first submission to last token
};

// Submits all requests and waits for the last. An error of the first request that was refused or
// failed.
Result<Trace> Run(engine::EngineClient& engine, std::vector<engine::RequestInput> requests);

}  // namespace moebius::bench
