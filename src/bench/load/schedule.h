// When requests are to be sent: the intended schedule of an open loop, and how many may be under
// way in a closed one. Known before the run, so that a late generator is seen as late instead of
// being hidden in the measurement (coordinated omission). Plain functions, any thread.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace moebius::load {

enum class RampUp { kNone, kLinear, kExponential };

struct ArrivalOptions {
  double request_rate = std::numeric_limits<double>::infinity();  // a second; inf: all at once
  // Gaps are gamma distributed with this shape: 1 a Poisson process, less is burstier, more is more
  // even, inf is a metronome.
  double burstiness = 1;
  // The rate goes from start to end over the requests (or over `duration` seconds, where set).
  RampUp ramp_up = RampUp::kNone;
  double ramp_up_start_rps = 0;
  double ramp_up_end_rps = 0;
  uint64_t seed = 0;
};

// kInvalidArgument names the flag.
Status CheckArrivals(const ArrivalOptions& options);

// Seconds after the start, ascending, of `num_requests` arrivals. With a fixed rate they are scaled
// to end at num_requests / rate, so that seeds do not change the load.
std::vector<double> Arrivals(const ArrivalOptions& options, int64_t num_requests);

// The same for as many as arrive within `duration` seconds; for a finite rate or a ramp.
std::vector<double> ArrivalsWithin(const ArrivalOptions& options, double duration);

// The rate at `progress` in [0, 1] of a ramp; without one, the rate.
double RateAt(const ArrivalOptions& options, double progress);

// Requests that may be under way `seconds` after the start: from 1 to `max_concurrency` evenly over
// `ramp_seconds`.
int64_t ConcurrencyAt(int64_t max_concurrency, double ramp_seconds, double seconds);

}  // namespace moebius::load
