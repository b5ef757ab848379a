#include "bench/load/generator.h"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <ctime>
#include <deque>
#include <mutex>

namespace moebius::load {
namespace {

double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// What the sending thread and the callbacks share.
class Generator {
 public:
  Generator(const LoadShape& shape, const Transport& transport, std::stop_token stop)
      : shape_(shape), transport_(transport), stop_(std::move(stop)) {}

  LoadRun Run();

 private:
  // When request `index` is meant to be sent; none: there are no more. Without a schedule (a closed
  // loop for a duration) that is as soon as it may.
  std::optional<double> ScheduledAt(int64_t index, double now) const;
  bool WaitUntil(double time);
  // Waits for a place among --max-concurrency; when it became free. None: stopped, or the duration
  // is over.
  std::optional<double> TakePlace();
  void Finish(RequestRecord record);

  bool has_schedule() const { return !schedule_.empty(); }
  bool IsOver(double now) const { return shape_.duration > 0 && now >= shape_.duration; }

  const LoadShape& shape_;
  const Transport& transport_;
  const std::stop_token stop_;
  std::vector<double> schedule_;

  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::vector<RequestRecord> records_;
  std::deque<double> free_places_;  // since when
  int64_t num_places_ = 0;          // handed out so far, free or taken
  int64_t num_in_flight_ = 0;
};

std::optional<double> Generator::ScheduledAt(int64_t index, double now) const {
  if (!has_schedule()) return IsOver(now) ? std::nullopt : std::optional<double>(now);
  if (static_cast<size_t>(index) >= schedule_.size()) return std::nullopt;
  const double time = schedule_[static_cast<size_t>(index)];
  return IsOver(time) ? std::nullopt : std::optional<double>(time);
}

bool Generator::WaitUntil(double time) {
  std::unique_lock lock(mutex_);
  while (!stop_.stop_requested()) {
    const double rest = time - transport_.now();
    if (rest <= 0) return true;
    changed_.wait_for(lock, stop_, std::chrono::duration<double>(rest),
                      [&] { return transport_.now() >= time; });
  }
  return false;
}

std::optional<double> Generator::TakePlace() {
  if (!shape_.max_concurrency) return transport_.now();
  std::unique_lock lock(mutex_);
  while (!stop_.stop_requested()) {
    const double now = transport_.now();
    const int64_t allowed =
        ConcurrencyAt(*shape_.max_concurrency, shape_.concurrency_ramp_seconds, now);
    for (; num_places_ < allowed; ++num_places_) free_places_.push_back(now);
    if (!free_places_.empty()) {
      const double since = free_places_.front();
      free_places_.pop_front();
      return since;
    }
    if (IsOver(now)) return std::nullopt;
    // Woken by a place; otherwise looked at again, as the ramp and the duration go on by
    // themselves.
    changed_.wait_for(lock, stop_, std::chrono::milliseconds(5),
                      [&] { return !free_places_.empty(); });
  }
  return std::nullopt;
}

void Generator::Finish(RequestRecord record) {
  const auto index = static_cast<size_t>(record.index);
  {
    const std::lock_guard lock(mutex_);
    records_[index] = std::move(record);
    if (shape_.max_concurrency) free_places_.push_back(transport_.now());
    --num_in_flight_;
    changed_.notify_all();  // under the lock: the run may be over, and this object with it
  }
}

LoadRun Generator::Run() {
  const bool endless = std::isinf(RateAt(shape_.arrivals, 1));
  if (!shape_.timed.empty()) {
    schedule_ = shape_.timed;
  } else if (shape_.duration <= 0) {
    schedule_ = Arrivals(shape_.arrivals, shape_.num_requests);
  } else if (!endless) {
    schedule_ = ArrivalsWithin(shape_.arrivals, shape_.duration);
  }
  const double cpu = CpuSeconds();
  for (int64_t index = 0; !stop_.stop_requested(); ++index) {
    auto scheduled = ScheduledAt(index, transport_.now());
    if (!scheduled || !WaitUntil(*scheduled)) break;
    const auto place = TakePlace();
    if (!place) break;
    if (!has_schedule()) {
      // It was meant for the moment its place came free.
      scheduled = place;
      if (IsOver(transport_.now())) break;
    }
    RequestRecord record;
    record.index = index;
    record.scheduled = *scheduled;
    record.released =
        shape_.max_concurrency ? std::max(record.scheduled, *place) : record.scheduled;
    {
      const std::lock_guard lock(mutex_);
      records_.emplace_back();
      ++num_in_flight_;
    }
    transport_.send(std::move(record), [this](RequestRecord done) {
      if (transport_.on_done) transport_.on_done();
      Finish(std::move(done));  // last: the run may end with it
    });
  }
  LoadRun run;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, stop_, [&] { return num_in_flight_ == 0; });
  run.was_stopped = stop_.stop_requested();
  if (run.was_stopped) {
    lock.unlock();
    transport_.cancel_all();
    lock.lock();
    changed_.wait(lock, [&] { return num_in_flight_ == 0; });
  }
  run.cpu_seconds = CpuSeconds() - cpu;
  run.records = std::move(records_);
  for (const RequestRecord& record : run.records) {
    run.duration = std::max(run.duration, record.end);
  }
  return run;
}

}  // namespace

Status CheckShape(const LoadShape& shape) {
  MOEBIUS_TRY(CheckArrivals(shape.arrivals));
  if (shape.num_requests < 1) {
    return MakeError(ErrorCode::kInvalidArgument, "--num-prompts is {}, expected 1 or more",
                     shape.num_requests);
  }
  if (shape.max_concurrency && *shape.max_concurrency < 1) {
    return MakeError(ErrorCode::kInvalidArgument, "--max-concurrency is {}, expected 1 or more",
                     *shape.max_concurrency);
  }
  if (!(shape.concurrency_ramp_seconds >= 0) || !std::isfinite(shape.concurrency_ramp_seconds)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--concurrency-ramp-sec is {}, expected 0 or more",
                     shape.concurrency_ramp_seconds);
  }
  if (shape.concurrency_ramp_seconds > 0 && !shape.max_concurrency) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--concurrency-ramp-sec needs --max-concurrency, to which it leads");
  }
  if (!(shape.duration >= 0) || !std::isfinite(shape.duration)) {
    return MakeError(ErrorCode::kInvalidArgument, "--duration is {}, expected seconds, 0 or more",
                     shape.duration);
  }
  if (shape.duration > 0 && !shape.max_concurrency && shape.timed.empty() &&
      std::isinf(RateAt(shape.arrivals, 1))) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--duration needs --request-rate, --ramp-up-strategy or --max-concurrency: "
                     "without one, requests for {} s would all be sent at once",
                     shape.duration);
  }
  return {};
}

LoadRun RunLoad(const LoadShape& shape, const Transport& transport, std::stop_token stop) {
  return Generator(shape, transport, std::move(stop)).Run();
}

std::vector<std::string> GeneratorWarnings(const LoadRun& run) {
  std::vector<std::string> warnings;
  const auto num_late = std::ranges::count_if(
      run.records, [](const RequestRecord& record) { return record.Lateness() > 0.010; });
  const double late_share =
      run.records.empty() ? 0
                          : static_cast<double>(num_late) / static_cast<double>(run.records.size());
  if (late_share > 0.05) {
    warnings.push_back(
        fmt::format("{:.0f} % of the requests were sent more than 10 ms late: this machine could "
                    "not keep the schedule, so the server had less load than was asked for",
                    late_share * 100));
  }
  const double busy = run.duration > 0 ? run.cpu_seconds / run.duration : 0;
  if (busy > 0.85) {
    warnings.push_back(fmt::format(
        "the load generator used {:.0f} % of a core: the figures may be its own limit, not the "
        "server's; spread the load over several generators",
        busy * 100));
  }
  return warnings;
}

}  // namespace moebius::load
