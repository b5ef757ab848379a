#include "bench/figures.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace moebius::bench {
namespace {

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

double Percentile(const std::vector<double>& sorted, double share) {
  const double at = share * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], at - static_cast<double>(below));
}

// Tokens and seconds of the part of an iteration in which nothing is left to prefill.
struct DecodePart {
  int64_t tokens = 0;
  double seconds = 0;
};
DecodePart DecodeOf(const Trace& trace) {
  Clock::time_point begin;
  Clock::time_point end;
  for (const RequestTrace& request : trace.requests) {
    if (request.tokens.empty()) continue;
    begin = std::max(begin, request.tokens.front());
    end = std::max(end, request.tokens.back());
  }
  DecodePart part;
  part.seconds = Seconds(end - begin);
  for (const RequestTrace& request : trace.requests) {
    part.tokens += std::count_if(request.tokens.begin(), request.tokens.end(),
                                 [&](Clock::time_point time) { return time > begin; });
  }
  return part;
}

}  // namespace

Summary Summarise(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  Summary summary;
  summary.mean =
      std::accumulate(samples.begin(), samples.end(), 0.0) / static_cast<double>(samples.size());
  summary.p50 = Percentile(samples, 0.5);
  summary.p90 = Percentile(samples, 0.9);
  summary.p99 = Percentile(samples, 0.99);
  summary.min = samples.front();
  summary.max = samples.back();
  return summary;
}

Figures Measure(const std::vector<Trace>& iterations, int64_t input_len) {
  std::vector<double> ttft, tpot, itl, latency;
  DecodePart decode;
  double seconds = 0;
  int64_t num_tokens = 0;
  int64_t num_requests = 0;
  for (const Trace& trace : iterations) {
    seconds += trace.seconds;
    latency.push_back(trace.seconds);
    const DecodePart part = DecodeOf(trace);
    decode.tokens += part.tokens;
    decode.seconds += part.seconds;
    for (const RequestTrace& request : trace.requests) {
      ++num_requests;
      num_tokens += static_cast<int64_t>(request.tokens.size());
      if (request.tokens.empty()) continue;
      ttft.push_back(Seconds(request.tokens.front() - request.submitted));
      for (size_t i = 1; i < request.tokens.size(); ++i) {
        itl.push_back(Seconds(request.tokens[i] - request.tokens[i - 1]));
      }
      if (request.tokens.size() > 1) {
        tpot.push_back(Seconds(request.tokens.back() - request.tokens.front()) /
                       static_cast<double>(request.tokens.size() - 1));
      }
    }
  }
  Figures figures{Summarise(std::move(ttft)), Summarise(std::move(tpot)), Summarise(std::move(itl)),
                  Summarise(std::move(latency))};
  if (seconds > 0) {
    figures.output_rate = static_cast<double>(num_tokens) / seconds;
    figures.total_rate = static_cast<double>(num_tokens + num_requests * input_len) / seconds;
    figures.request_rate = static_cast<double>(num_requests) / seconds;
  }
  if (decode.seconds > 0) figures.decode_rate = static_cast<double>(decode.tokens) / decode.seconds;
  return figures;
}

}  // namespace moebius::bench
