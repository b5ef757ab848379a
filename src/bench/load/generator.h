// The load generator: sends each request when the schedule says so, open or closed loop, and
// collects the records. It reads the clock of its client only; what it sends through is a function,
// so that tests need no network.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <stop_token>
#include <vector>

#include "base/result.h"
#include "bench/load/record.h"
#include "bench/load/schedule.h"

namespace moebius::load {

struct LoadShape {
  int64_t num_requests = 0;
  ArrivalOptions arrivals;
  std::vector<double> timed;  // a trace's own times, instead of `arrivals`; empty: none
  std::optional<int64_t> max_concurrency;
  double concurrency_ramp_seconds = 0;  // from 1 to max_concurrency
  // Sends for so many seconds, beginning the requests anew when they run out. 0: each once.
  double duration = 0;
};
// kInvalidArgument names the flag.
Status CheckShape(const LoadShape& shape);

// What a run goes through.
struct Transport {
  std::function<double()> now;  // seconds since the start, steady
  // Sends request `record.index` modulo num_requests and calls back once, from any thread; it fills
  // `sent` and what comes after.
  std::function<void(RequestRecord record, std::function<void(RequestRecord)> done)> send;
  std::function<void()> cancel_all;
  std::function<void()> on_done;  // after each record; may be empty
};

struct LoadRun {
  std::vector<RequestRecord> records;  // by index
  double duration = 0;                 // from the start to the last end
  double cpu_seconds = 0;              // of this process
  bool was_stopped = false;
};
// Returns when every request that was sent has ended. A stop request cancels what is under way.
LoadRun RunLoad(const LoadShape& shape, const Transport& transport, std::stop_token stop);

// Whether the generator was the limit, and in which words; empty: it was not. Late: more than 5 %
// of the requests by more than 10 ms. Busy: more than 85 % of a core, which its one thread has.
std::vector<std::string> GeneratorWarnings(const LoadRun& run);

}  // namespace moebius::load
