#include "app/interrupt.h"

#include <pthread.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <optional>

namespace moebius::app {
namespace {

constexpr std::chrono::milliseconds kSameSignal{500};

// SIGUSR1 is how the destructor wakes the waiting thread.
sigset_t Signals(bool terminate_too) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  if (terminate_too) sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

Interrupt::Interrupt(bool terminate_too) : terminate_too_(terminate_too) {
  const sigset_t signals = Signals(terminate_too);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  thread_ = std::thread([this] { Wait(); });
}

Interrupt::~Interrupt() {
  pthread_kill(thread_.native_handle(), SIGUSR1);
  thread_.join();
}

std::stop_token Interrupt::Begin() {
  const std::lock_guard lock(mutex_);
  current_ = std::stop_source();
  return current_.get_token();
}

void Interrupt::End() {
  const std::lock_guard lock(mutex_);
  current_ = std::stop_source(std::nostopstate);
}

void Interrupt::Wait() {
  using SteadyClock = std::chrono::steady_clock;
  const sigset_t signals = Signals(terminate_too_);
  std::optional<SteadyClock::time_point> asked;
  while (true) {
    int signal = 0;
    if (sigwait(&signals, &signal) != 0 || signal == SIGUSR1) return;
    const std::stop_source source = [this] {
      const std::lock_guard lock(mutex_);
      return current_;
    }();
    const auto now = SteadyClock::now();
    // False when nothing is in progress, or it was asked before.
    if (source.request_stop()) {
      asked = now;
    } else if (signal != SIGINT || !asked || now - *asked >= kSameSignal) {
      _exit(128 + signal);
    }
  }
}

}  // namespace moebius::app
