#include "base/progress.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

namespace moebius {
namespace {

double SteadySeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ProgressOptions WithClock(ProgressOptions options) {
  if (!options.clock) options.clock = SteadySeconds;
  return options;
}

std::string Bytes(double bytes) {
  if (bytes >= 1e9) return fmt::format("{:.2f} GB", bytes / 1e9);
  if (bytes >= 1e6) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.0f} kB", bytes / 1e3);
}

std::string Bar(double share) {
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(share * kWidth);
  return "[" + std::string(static_cast<size_t>(filled), '#') +
         std::string(static_cast<size_t>(kWidth - filled), '.') + "]";
}

std::string Duration(double seconds) {
  if (seconds < 10) return fmt::format("{:.1f} s", seconds);
  if (seconds < 120) return fmt::format("{:.0f} s", seconds);
  return fmt::format("{:.0f} min", seconds / 60);
}

}  // namespace

ProgressOptions DefaultProgressOptions(ProgressUnit unit) {
  ProgressOptions options;
  options.unit = unit;
  options.is_terminal = isatty(fileno(stderr)) != 0;
  return options;
}

Progress::Progress(std::string label, int64_t total, ProgressOptions options)
    : label_(std::move(label)),
      total_(total),
      options_(WithClock(std::move(options))),
      start_(options_.clock()),
      next_draw_(start_ + options_.quiet_seconds) {}

Progress::~Progress() {
  const std::lock_guard<std::mutex> lock(drawing_);
  if (!shown_) return;
  const std::string line = fmt::format("{}: {} in {}", label_, Amounts(done_.load()),
                                       Duration(options_.clock() - start_));
  fmt::print(options_.out, "{}{:<{}}\n", options_.is_terminal ? "\r" : "", line, last_width_);
  std::fflush(options_.out);
}

void Progress::Advance(int64_t amount) {
  done_.fetch_add(amount, std::memory_order_relaxed);
  const double now = options_.clock();
  if (now < next_draw_.load(std::memory_order_relaxed)) return;
  // Whoever comes while another thread draws has nothing newer to say.
  const std::unique_lock<std::mutex> lock(drawing_, std::try_to_lock);
  if (!lock.owns_lock() || now < next_draw_.load(std::memory_order_relaxed)) return;
  next_draw_.store(
      now + (options_.is_terminal ? options_.terminal_interval : options_.line_interval),
      std::memory_order_relaxed);
  Draw(now);
}

void Progress::Draw(double now) {
  const int64_t done = done_.load(std::memory_order_relaxed);
  std::string line = label_ + ": ";
  if (total_ > 0) {
    const double share =
        std::clamp(static_cast<double>(done) / static_cast<double>(total_), 0.0, 1.0);
    if (options_.is_terminal) line += Bar(share) + " ";
    line += fmt::format("{:.0f} %, {} of {}", share * 100, Amounts(done), Amounts(total_));
    if (share > 0) line += ", " + Duration((now - start_) * (1 - share) / share) + " left";
  } else {
    line += Amounts(done);
  }
  if (options_.is_terminal) {
    fmt::print(options_.out, "\r{:<{}}", line, last_width_);
    last_width_ = line.size();
  } else {
    fmt::print(options_.out, "{}\n", line);
  }
  std::fflush(options_.out);
  shown_ = true;
}

std::string Progress::Amounts(int64_t done) const {
  return options_.unit == ProgressUnit::kBytes ? Bytes(static_cast<double>(done))
                                               : fmt::format("{}", done);
}

}  // namespace moebius
