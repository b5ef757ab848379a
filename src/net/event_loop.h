// A thread that runs an Asio io_context, and what the server and the client build on: a mailbox
// that other threads drop news into, and an event that a coroutine waits for. Only for .cc files
// of this room: Asio is heavy. Its non-template parts are compiled once, in asio.cc.
#pragma once

#include <atomic>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/wait_traits.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace moebius::net {

namespace asio = boost::asio;
using tcp = asio::ip::tcp;
using Clock = std::chrono::steady_clock;
using ErrorStatus = boost::system::error_code;

// The io_context's own executor everywhere: Asio's any_io_executor would cost at every step.
using Executor = asio::io_context::executor_type;
using Socket = asio::basic_stream_socket<tcp, Executor>;
using Acceptor = asio::basic_socket_acceptor<tcp, Executor>;
using Timer = asio::basic_waitable_timer<Clock, asio::wait_traits<Clock>, Executor>;
using UseAwaitable = asio::use_awaitable_t<Executor>;
template <typename T = void>
using Awaitable = asio::awaitable<T, Executor>;

// Something that other threads have news for. See EventLoop::Notify.
class LoopTask {
 public:
  virtual ~LoopTask() = default;
  virtual void OnNews() = 0;  // on the loop's thread

 private:
  friend class EventLoop;
  std::atomic<bool> is_queued_{false};
};

class EventLoop {
 public:
  explicit EventLoop(std::string thread_name);
  ~EventLoop();  // joins the thread, if Stop did not

  asio::io_context& io() { return io_; }
  Executor executor() { return io_.get_executor(); }
  bool OnThread() const { return std::this_thread::get_id() == thread_.get_id(); }

  void Run();  // starts the thread

  // Any thread: task->OnNews() soon, once however often this is called before it runs. Costs the
  // loop one wake-up for all tasks notified together. After Stop: no effect.
  void Notify(const std::shared_ptr<LoopTask>& task);
  // Any thread; not for what happens often.
  void Post(std::function<void()> function) { asio::post(io_, std::move(function)); }

  // Not on the loop's thread. `close` runs on it and must lead to the end of every operation; the
  // thread is joined when there is none left.
  void Stop(std::function<void()> close);

 private:
  void OpenMail();

  asio::io_context io_{1};
  std::optional<asio::executor_work_guard<Executor>> work_;
  std::string name_;
  std::thread thread_;

  std::mutex mutex_;
  std::vector<std::shared_ptr<LoopTask>> mail_;  // guarded by mutex_
  bool is_closed_ = false;                       // guarded by mutex_
  std::vector<std::shared_ptr<LoopTask>> open_mail_;
};

// What one coroutine waits for. Set before Wait is not lost. On the loop's thread only.
class Event {
 public:
  explicit Event(Executor executor) : executor_(std::move(executor)) {}

  void Set() {
    if (!waiter_) {
      is_set_ = true;
      return;
    }
    Waiter waiter = std::move(*waiter_);
    waiter_.reset();
    asio::post(executor_, std::move(waiter));
  }

  Awaitable<> Wait() {
    return asio::async_initiate<const UseAwaitable&, void()>(
        [this](Waiter waiter) {
          if (std::exchange(is_set_, false)) {
            asio::post(executor_, std::move(waiter));
          } else {
            waiter_.emplace(std::move(waiter));
          }
        },
        UseAwaitable());
  }

 private:
  using Waiter = asio::async_result<UseAwaitable, void()>::handler_type;

  Executor executor_;
  bool is_set_ = false;
  std::optional<Waiter> waiter_;
};

// Sockets are what thousands of connections need: lifts the soft limit of open files to the hard
// one. Once a process.
void RaiseFileLimit();

}  // namespace moebius::net
