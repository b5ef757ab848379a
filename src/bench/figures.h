// From traces to the figures that people compare: TTFT, TPOT, ITL, tokens a second. Plain
// functions.
#pragma once

#include <cstdint>
#include <vector>

#include "bench/load.h"

namespace moebius::bench {

// Of samples in any order; percentiles by linear interpolation between neighbours. All 0 without
// samples.
struct Summary {
  double mean = 0;
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double min = 0;
  double max = 0;
};
Summary Summarise(std::vector<double> samples);

// Seconds, except where said.
struct Figures {
  Summary ttft;             // submission to first token, a request
  Summary tpot;             // mean time of a token after the first, a request
  Summary itl;              // between two tokens of a request
  Summary latency;          // the whole of an iteration
  double output_rate = 0;   // tokens a second
  double total_rate = 0;    // prompt tokens too
  double request_rate = 0;  // requests a second
  // Tokens a second after every request of an iteration had its first: what decoding alone gives.
  double decode_rate = 0;
};
Figures Measure(const std::vector<Trace>& iterations, int64_t input_len);

}  // namespace moebius::bench
