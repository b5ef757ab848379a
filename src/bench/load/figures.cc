#include "bench/load/figures.h"

#include <algorithm>
#include <cmath>

namespace moebius::load {
namespace {

void AddSamples(const RequestRecord& record, Samples& samples) {
  samples.ttft.push_back(record.Ttft());
  samples.e2el.push_back(record.EndToEnd());
  samples.client_queue_time.push_back(record.sent - record.scheduled);
  samples.e2el_with_queue.push_back(record.EndToEnd() + record.sent - record.scheduled);
  if (record.output_tokens >= 2) samples.tpot.push_back(record.Tpot());
  const std::vector<TokenEvent>& events = record.events;
  if (events.size() >= 2) samples.ttst.push_back(events[1].time - events[0].time);
  for (size_t i = 1; i < events.size(); ++i) {
    const double gap = events[i].time - events[i - 1].time;
    samples.itl.push_back(gap);
    constexpr int64_t kMostCopies = 4096;  // whatever a server claims of one event
    const auto copies = std::clamp<int64_t>(std::llround(events[i].tokens), 1, kMostCopies);
    samples.itl_per_token.insert(samples.itl_per_token.end(), static_cast<size_t>(copies),
                                 gap / std::max(events[i].tokens, 1.0));
  }
}

bool IsOverSaturated(std::span<const RequestRecord> records) {
  std::vector<double> sent;
  std::vector<double> ttft;
  double last_sent = 0;
  for (const RequestRecord& record : records) {
    last_sent = std::max(last_sent, record.sent);
    if (!record.ok()) continue;
    sent.push_back(record.sent);
    ttft.push_back(record.Ttft());
  }
  // Sampled evenly while requests were still being sent; afterwards they can only become fewer.
  constexpr int kSamples = 50;
  const std::vector<InFlight> steps = InFlightOverTime(records);
  std::vector<double> times;
  std::vector<double> counts;
  size_t at = 0;
  for (int i = 0; i < kSamples && !steps.empty(); ++i) {
    const double time = last_sent * (i + 0.5) / kSamples;
    while (at + 1 < steps.size() && steps[at + 1].time <= time) ++at;
    times.push_back(time);
    counts.push_back(static_cast<double>(steps[at].count));
  }
  // Beyond chance, and by more than half the mean over the run: a slope of a thousandth is none.
  const auto grew = [last_sent](const std::vector<double>& x, const std::vector<double>& y) {
    const auto fit = FitSlope(x, y);
    return fit && fit->low > 0 && fit->slope * last_sent > 0.5 * Mean(y);
  };
  return grew(times, counts) && grew(sent, ttft);
}

}  // namespace

bool IsGood(const RequestRecord& record, const Limits& limits) {
  return record.ok() && record.Ttft() * 1e3 <= limits.ttft_ms.value_or(INFINITY) &&
         record.Tpot() * 1e3 <= limits.tpot_ms.value_or(INFINITY) &&
         record.EndToEnd() * 1e3 <= limits.e2el_ms.value_or(INFINITY);
}

Stalls FindStalls(const std::vector<double>& itl) {
  Stalls stalls;
  if (itl.empty()) return stalls;
  std::vector<double> sorted = itl;
  std::sort(sorted.begin(), sorted.end());
  stalls.threshold = 5 * Percentile(sorted, 50);
  const auto first = std::upper_bound(sorted.begin(), sorted.end(), stalls.threshold);
  stalls.count = sorted.end() - first;
  stalls.share = static_cast<double>(stalls.count) / static_cast<double>(sorted.size());
  stalls.longest = sorted.back();
  return stalls;
}

std::vector<InFlight> InFlightOverTime(std::span<const RequestRecord> records) {
  std::vector<std::pair<double, int>> changes;
  for (const RequestRecord& record : records) {
    changes.emplace_back(record.sent, 1);
    changes.emplace_back(std::max(record.end, record.sent), -1);
  }
  std::sort(changes.begin(), changes.end());  // one that leaves makes room for one that comes
  std::vector<InFlight> steps;
  int64_t count = 0;
  for (const auto& [time, change] : changes) {
    count += change;
    if (!steps.empty() && steps.back().time == time) {
      steps.back().count = count;
    } else {
      steps.push_back({time, count});
    }
  }
  return steps;
}

std::vector<double> TokensPerSecond(std::span<const RequestRecord> records) {
  std::vector<double> seconds;
  for (const RequestRecord& record : records) {
    if (!record.was_served()) continue;
    for (const TokenEvent& event : record.events) {
      const auto second = static_cast<size_t>(std::max(event.time, 0.0));
      if (second >= seconds.size()) seconds.resize(second + 1);
      seconds[second] += event.tokens;
    }
  }
  return seconds;
}

Figures MeasureRun(std::span<const RequestRecord> records, double duration, const Limits& limits,
                   bool open_loop) {
  Figures figures;
  figures.duration = duration;
  figures.knows_cached = true;
  int64_t good = 0;
  for (const RequestRecord& record : records) {
    ++figures.by_outcome[static_cast<size_t>(record.outcome)];
    figures.samples.lateness.push_back(record.Lateness());
    if (!record.ok()) {
      ++(record.failed() ? figures.failed : figures.cancelled);
      continue;
    }
    ++figures.completed;
    good += IsGood(record, limits) ? 1 : 0;
    figures.input_tokens += record.prompt_tokens;
    figures.cached_tokens += std::max<int64_t>(record.cached_tokens, 0);
    figures.knows_cached = figures.knows_cached && record.cached_tokens >= 0;
    figures.output_tokens += record.output_tokens;
    figures.reasoning_tokens += record.reasoning_tokens;
    figures.num_without_usage += record.has_usage ? 0 : 1;
    figures.num_inexact +=
        !record.exact_events && record.output_tokens != static_cast<int64_t>(record.events.size())
            ? 1
            : 0;
    AddSamples(record, figures.samples);
  }
  figures.knows_cached = figures.knows_cached && figures.completed > 0;
  if (duration > 0) {
    figures.request_rate = static_cast<double>(figures.completed) / duration;
    figures.goodput = static_cast<double>(good) / duration;
    figures.output_rate = static_cast<double>(figures.output_tokens) / duration;
    figures.total_rate =
        static_cast<double>(figures.input_tokens + figures.output_tokens) / duration;
  }
  for (const double tokens : TokensPerSecond(records)) {
    figures.max_output_tokens_per_s = std::max(figures.max_output_tokens_per_s, tokens);
  }
  for (const InFlight& step : InFlightOverTime(records)) {
    figures.max_concurrent_requests = std::max(figures.max_concurrent_requests, step.count);
  }
  figures.stalls = FindStalls(figures.samples.itl);
  figures.over_saturated = open_loop && IsOverSaturated(records);
  return figures;
}

}  // namespace moebius::load
