#include "net/event_loop.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include <exception>

#include "base/check.h"
#include "base/log.h"

namespace moebius::net {

EventLoop::EventLoop(std::string thread_name) : name_(std::move(thread_name)) {
  work_.emplace(io_.get_executor());
}

EventLoop::~EventLoop() {
  if (thread_.joinable()) Stop({});
}

void EventLoop::Run() {
  thread_ = std::thread([this] {
    pthread_setname_np(pthread_self(), name_.c_str());
    // A signal for the process is its main thread's; a broken pipe is an error code here.
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, nullptr);
    for (;;) {
      try {
        io_.run();
        return;
      } catch (const std::exception& e) {
        LogError("{}: an exception reached the event loop: {}", name_, e.what());
      }
    }
  });
}

void EventLoop::Notify(const std::shared_ptr<LoopTask>& task) {
  if (task->is_queued_.exchange(true, std::memory_order_acq_rel)) return;
  bool is_first = false;
  {
    const std::lock_guard lock(mutex_);
    if (is_closed_) return;
    is_first = mail_.empty();
    mail_.push_back(task);
  }
  if (is_first) asio::post(io_, [this] { OpenMail(); });
}

void EventLoop::OpenMail() {
  {
    const std::lock_guard lock(mutex_);
    open_mail_.swap(mail_);
  }
  for (const std::shared_ptr<LoopTask>& task : open_mail_) {
    // First the flag, then the look: what is told later is queued again.
    task->is_queued_.exchange(false, std::memory_order_acq_rel);
    task->OnNews();
  }
  open_mail_.clear();
}

void EventLoop::Stop(std::function<void()> close) {
  MOEBIUS_CHECK(!OnThread());
  asio::post(io_, [this, close = std::move(close)] {
    if (close) close();
    work_.reset();
  });
  if (thread_.joinable()) thread_.join();
  std::vector<std::shared_ptr<LoopTask>> unread;
  {
    const std::lock_guard lock(mutex_);
    is_closed_ = true;
    unread.swap(mail_);
  }
}

void RaiseFileLimit() {
  static const bool once = [] {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
      limit.rlim_cur = limit.rlim_max;
      if (setrlimit(RLIMIT_NOFILE, &limit) != 0) LogWarning("the limit of open files stays low");
    }
    return true;
  }();
  (void)once;
}

}  // namespace moebius::net
