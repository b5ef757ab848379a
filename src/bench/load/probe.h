// Single-token requests beside the load, one at a time: how long somebody else waits meanwhile. Its
// own thread; made and stopped by the one that runs the load.
#pragma once

#include <thread>

#include "bench/load/client.h"
#include "bench/load/request_body.h"
#include "bench/load/serve_bench.h"

namespace moebius::load {

class Probe {
 public:
  // A pause of 1 / `rate` seconds after each answer.
  Probe(LoadClient& client, const BodyOptions& body, double rate);
  ProbeFigures Stop();

 private:
  void Run(const std::stop_token& stop, double pause);

  LoadClient& client_;
  std::string request_;
  ProbeFigures figures_;
  std::vector<double> seconds_;
  std::jthread thread_;  // last: it uses the rest
};

}  // namespace moebius::load
