#include "app/last_patience.h"

#include <fmt/core.h>
#include <pthread.h>
#include <unistd.h>

#include "app/commands.h"

namespace moebius::app {

LastPatience::~LastPatience() {
  if (!thread_.joinable()) return;
  thread_.request_stop();
  thread_.join();
}

void LastPatience::Begin(std::chrono::milliseconds time, const char* what) {
  thread_ = std::jthread([this, time, what](const std::stop_token& stop) {
    pthread_setname_np(pthread_self(), "last-patience");
    std::unique_lock lock(mutex_);
    over_.wait_for(lock, stop, time, [] { return false; });
    if (stop.stop_requested()) return;
    fmt::print(stderr, "moebius: {} does not end within {} ms; the process ends without it\n", what,
               time.count());
    std::fflush(nullptr);
    _exit(kExitFailure);
  });
}

}  // namespace moebius::app
