#include "bench/load/schedule.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace moebius::load {
namespace {

// One gap of a process with this rate.
class Gaps {
 public:
  explicit Gaps(const ArrivalOptions& options)
      : even_(std::isinf(options.burstiness)),
        random_(options.seed),
        gamma_(even_ ? 1.0 : options.burstiness, even_ ? 1.0 : 1.0 / options.burstiness) {}

  double Next(double rate) {
    if (std::isinf(rate)) return 0;
    return (even_ ? 1.0 : gamma_(random_)) / rate;
  }

 private:
  bool even_;
  std::mt19937_64 random_;
  std::gamma_distribution<double> gamma_;  // of mean 1
};

}  // namespace

Status CheckArrivals(const ArrivalOptions& options) {
  if (!(options.request_rate > 0)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--request-rate is {}, expected a number above 0 or inf",
                     options.request_rate);
  }
  if (!(options.burstiness > 0)) {
    return MakeError(ErrorCode::kInvalidArgument, "--burstiness is {}, expected a number above 0",
                     options.burstiness);
  }
  if (options.ramp_up == RampUp::kNone) return {};
  if (!std::isinf(options.request_rate)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--request-rate and --ramp-up-strategy exclude each other: the ramp has its "
                     "own rates");
  }
  const double start = options.ramp_up_start_rps;
  const double end = options.ramp_up_end_rps;
  if (!(end > 0) || !std::isfinite(end) || !(start >= 0) || start > end) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--ramp-up-start-rps is {} and --ramp-up-end-rps {}: expected 0 or more, and "
                     "an end above 0 that is not below the start",
                     start, end);
  }
  if (start == 0 && options.ramp_up == RampUp::kExponential) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--ramp-up-start-rps is 0, expected more: an exponential ramp never leaves 0");
  }
  return {};
}

double RateAt(const ArrivalOptions& options, double progress) {
  const double start = options.ramp_up_start_rps;
  const double end = options.ramp_up_end_rps;
  switch (options.ramp_up) {
    case RampUp::kNone:
      return options.request_rate;
    case RampUp::kLinear:
      return start + (end - start) * progress;
    case RampUp::kExponential:
      return start * std::pow(end / start, progress);
  }
  return options.request_rate;
}

std::vector<double> Arrivals(const ArrivalOptions& options, int64_t num_requests) {
  std::vector<double> times(static_cast<size_t>(std::max<int64_t>(num_requests, 0)));
  Gaps gaps(options);
  double now = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    // A linear ramp from 0 has no first gap at rate 0: the middle of each request's share of the
    // ramp is its rate.
    const double progress = (static_cast<double>(i) + 0.5) / static_cast<double>(times.size());
    now += gaps.Next(RateAt(options, progress));
    times[i] = now;
  }
  if (options.ramp_up == RampUp::kNone && now > 0) {
    const double scale = static_cast<double>(num_requests) / options.request_rate / now;
    for (double& time : times) time *= scale;
  }
  return times;
}

std::vector<double> ArrivalsWithin(const ArrivalOptions& options, double duration) {
  std::vector<double> times;
  Gaps gaps(options);
  // Arrivals of a process with rate 1, taken to the time by which so many are due: exact for a rate
  // that changes, where a gap drawn at the rate of its beginning would not be.
  double due = 0;
  double now = 0;
  double done = 0;  // integral of the rate up to `now`
  const double step = std::max(duration / 10000, 1e-6);
  while (true) {
    due += gaps.Next(1);
    while (now < duration && done + RateAt(options, (now + step / 2) / duration) * step < due) {
      done += RateAt(options, (now + step / 2) / duration) * step;
      now += step;
    }
    const double rate = RateAt(options, std::min((now + step / 2) / duration, 1.0));
    const double time = now + (due - done) / rate;
    if (!(time < duration)) return times;
    times.push_back(time);
  }
}

int64_t ConcurrencyAt(int64_t max_concurrency, double ramp_seconds, double seconds) {
  if (ramp_seconds <= 0 || seconds >= ramp_seconds) return max_concurrency;
  const double share = std::max(seconds, 0.0) / ramp_seconds;
  return 1 + static_cast<int64_t>(share * static_cast<double>(max_concurrency - 1));
}

}  // namespace moebius::load
