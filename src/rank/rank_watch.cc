#include "rank/rank_watch.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/log.h"
#include "rank/rank_process.h"

namespace moebius::rank {
namespace {

// One rank's failure makes others fail: how long the first of the signs may take to show up.
constexpr auto kForBetterSigns = std::chrono::milliseconds(200);

}  // namespace

// A rank that seems to have failed. Certain ones are causes; the others may only have heard of one.
struct RankWatch::Sign {
  int rank = 0;
  Error error;
  int weight = 0;  // the heaviest one is believed
  static constexpr int kHearsay = 0;
  static constexpr int kOwnError = 1;
  static constexpr int kCertain = 2;
};

RankWatch::RankWatch(WatchOptions options, Control control, std::vector<int> sockets, int memory)
    : options_(std::move(options)),
      control_(control),
      last_look_(comm::Clock::now()),
      awake_(last_look_),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  thread_ = std::thread([this, sockets = std::move(sockets), memory]() mutable {
    pthread_setname_np(pthread_self(), "rank watch");
    Run(std::move(sockets), memory);
  });
}

RankWatch::~RankWatch() {
  Stop();
  thread_.join();
  if (wake_ >= 0) close(wake_);
}

void RankWatch::Stop() {
  {
    const std::lock_guard lock(mutex_);
    is_stopping_ = true;
  }
  eventfd_write(wake_, 1);
}

void RankWatch::Run(const std::vector<int>& sockets, int memory) {
  const Status started = StartAll(sockets, memory);
  for (const int socket : sockets) close(socket);
  if (!started) Fail(-1, started.error());
  while (true) {
    const TimePoint now = comm::Clock::now();
    const bool has_children =
        std::ranges::any_of(children_, [](ChildProcess& child) { return !child.TryEnd(); });
    {
      const std::lock_guard lock(mutex_);
      may_end_ = is_stopping_;
    }
    if (!has_failed_) LookForFailure(now);
    if (!has_children && (has_failed_ || may_end_)) return;
    if (may_end_ && !kill_at_) kill_at_ = now + options_.stop_timeout;
    if (kill_at_ && now >= *kill_at_) {
      for (ChildProcess& child : children_) child.Kill();
    }
    Wait();
  }
}

Status RankWatch::StartAll(const std::vector<int>& sockets, int memory) {
  for (size_t rank = 0; rank < sockets.size(); ++rank) {
    start_begin_ = comm::Clock::now();
    starting_thread_ = gettid();
    Result<ChildProcess> started = ChildProcess::Start(options_.program, static_cast<int>(rank),
                                                       sockets[rank], memory, options_.trace);
    starting_thread_ = 0;
    MOEBIUS_ASSIGN(ChildProcess child, std::move(started));
    LogDebug("rank {} is process {}", rank, child.pid());
    children_.push_back(std::move(child));
  }
  return {};
}

void RankWatch::EndStuckStart() const {
  const pid_t thread = starting_thread_;
  if (thread == 0 || comm::Clock::now() - start_begin_.load() < options_.silence.stop) return;
  ChildProcess::KillIfStoppedInStart(thread);
}

// Until a process ends, somebody calls Stop, or it is time to look again.
void RankWatch::Wait() {
  std::vector<pollfd> events = {{wake_, POLLIN, 0}};
  for (ChildProcess& child : children_) {
    if (!child.TryEnd()) events.push_back({child.end_descriptor(), POLLIN, 0});
  }
  const bool is_near = kill_at_ || first_sign_;
  const auto period = is_near ? std::chrono::milliseconds(10) : kHeartbeatPeriod;
  poll(events.data(), events.size(), static_cast<int>(period.count()));
  eventfd_t value = 0;
  eventfd_read(wake_, &value);
}

void RankWatch::LookForFailure(TimePoint now) {
  if (now - last_look_ > options_.silence.silence / 2) awake_ = now;
  last_look_ = now;
  const std::optional<Sign> sign = FindSign(now);
  if (!sign) {
    options_.on_look();
    return;
  }
  if (!first_sign_) first_sign_ = now;
  if (sign->weight < Sign::kCertain && now - *first_sign_ < kForBetterSigns) return;
  Fail(sign->rank, sign->error);
}

std::optional<RankWatch::Sign> RankWatch::FindSign(TimePoint now) {
  std::optional<Sign> best;
  const auto consider = [&](std::optional<Sign> sign) {
    if (sign && (!best || sign->weight > best->weight)) best = std::move(sign);
  };
  const int culprit = control_.abort().is_set() ? control_.abort().culprit() : -1;
  for (int rank = 0; rank < static_cast<int>(children_.size()); ++rank) {
    if (const auto end = children_[static_cast<size_t>(rank)].TryEnd()) {
      consider(SignOfEnd(rank, *end));
    } else if (auto stop = SignOfStop(rank, now)) {
      consider(std::move(stop));
    } else if (const Status health = options_.health(rank); !health) {
      const bool is_own = health.error().code() != ErrorCode::kUnavailable;
      consider(Sign{rank, health.error().WithContext(NameOf(rank)),
                    is_own ? Sign::kOwnError : Sign::kHearsay});
    }
  }
  for (const SilentRank& silent :
       FindSilent(control_.ReadAll(), control_.created(), awake_, now, options_.silence)) {
    if (children_[static_cast<size_t>(silent.rank)].TryEnd()) continue;
    const double seconds = std::chrono::duration<double>(silent.silence).count();
    consider(Sign{silent.rank,
                  Error(ErrorCode::kUnavailable,
                        fmt::format("{} has given no sign of life for {:.1f} s: it is stopped or "
                                    "stuck",
                                    NameOf(silent.rank), seconds)),
                  Sign::kCertain});
    break;  // the longest silent one
  }
  if (!best && control_.abort().is_set()) {
    const std::string who = culprit >= 0 ? NameOf(culprit) : "a rank";
    best = Sign{culprit, Error(ErrorCode::kUnavailable, who + " did not take part in a step"),
                Sign::kHearsay};
  }
  return best;
}

std::optional<RankWatch::Sign> RankWatch::SignOfEnd(int rank, const ProcessEnd& end) const {
  const RankReport report = control_.Read(rank);
  const bool is_normal = end.signal == 0 && end.status == 0;
  if (may_end_ && is_normal && report.state == RankState::kStopped) return std::nullopt;
  const std::optional<ErrorCode> code = CodeOfExitStatus(end.status);
  if (end.signal == 0 && code && !report.error.empty()) {
    const Error error(*code, fmt::format("rank {}: {}", rank, report.error));
    return Sign{rank, error, *code == ErrorCode::kUnavailable ? Sign::kHearsay : Sign::kOwnError};
  }
  return Sign{rank, Error(ErrorCode::kUnavailable, NameOf(rank) + " " + end.Describe()),
              Sign::kCertain};
}

// By a signal; whatever else keeps it from beating takes a little longer to be believed.
std::optional<RankWatch::Sign> RankWatch::SignOfStop(int rank, TimePoint now) const {
  const std::optional<TimePoint> stopped = children_[static_cast<size_t>(rank)].stopped();
  if (!stopped || now - std::max(*stopped, awake_) < options_.silence.stop) return std::nullopt;
  const double seconds = std::chrono::duration<double>(now - *stopped).count();
  return Sign{
      rank,
      Error(ErrorCode::kUnavailable,
            fmt::format("{} has been stopped by a signal for {:.1f} s", NameOf(rank), seconds)),
      Sign::kCertain};
}

std::string RankWatch::NameOf(int rank) const {
  return fmt::format("rank {} (process {})", rank, children_[static_cast<size_t>(rank)].pid());
}

void RankWatch::Fail(int rank, const Error& error) {
  has_failed_ = true;
  LogError("{}", error.message());
  control_.abort().Set(-1, rank);
  kill_at_ = comm::Clock::now() + options_.grace;
  options_.on_failure(error);
}

}  // namespace moebius::rank
