#include "bench/load/probe.h"

#include <condition_variable>
#include <mutex>

namespace moebius::load {

Probe::Probe(LoadClient& client, const BodyOptions& body, double rate) : client_(client) {
  LoadRequest request;
  request.prompt = "Hi";
  request.output_len = 1;
  request_ = RequestBody(body, request).value_or("");
  thread_ = std::jthread([this, rate](const std::stop_token& stop) { Run(stop, 1 / rate); });
}

void Probe::Run(const std::stop_token& stop, double pause) {
  std::mutex mutex;
  std::condition_variable_any waiting;
  std::unique_lock lock(mutex);
  do {
    const RequestRecord record = client_.Ask(request_);
    if (record.ok()) {
      seconds_.push_back(record.EndToEnd());
    } else if (record.failed()) {  // not: ended by an interrupt
      ++figures_.failed;
    }
    waiting.wait_for(lock, stop, std::chrono::duration<double>(pause), [] { return false; });
  } while (!stop.stop_requested());
}

ProbeFigures Probe::Stop() {
  thread_.request_stop();
  thread_.join();
  figures_.completed = static_cast<int64_t>(seconds_.size());
  figures_.e2el = Describe(seconds_);
  return figures_;
}

}  // namespace moebius::load
