// A server of a sweep: started with its plan's words, ready when it answers, ended with its object.
// One thread.
#pragma once

#include <functional>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <tl/expected.hpp>

#include "bench/load/sweep/process.h"
#include "bench/load/sweep/runner.h"

namespace moebius::load {

// Why a cell has no figures.
struct Failure {
  CellStatus status = CellStatus::kFailed;
  std::string reason;
};

struct RunningServer {
  std::string url;
  std::string command;
  std::string log;
  std::optional<Process> process;  // none: it ran already
};

struct ServerStart {
  std::string program;  // what "moebius" stands for
  std::string log;      // file; what it held goes
  double timeout_sec = 120;
  std::function<void(const std::string&)> say;
  std::function<void(pid_t)> started;  // its process, before it is ready
};
// Starts it on a free port and waits until GET /health/ready (or, where there is none, /v1/models)
// says 200. A server that ends with exit code 2, as programs do that refuse their flags, and words
// that are IsNotYet is not there yet; whatever else ends it is a failure. The reason is its log's
// last word.
tl::expected<RunningServer, Failure> StartServer(const ServerSpec& spec, const ServerStart& start,
                                                 const std::stop_token& stop);

// Whether a refusal is of what the program cannot do yet, in its words; else somebody was mistaken.
bool IsNotYet(std::string_view words);

std::string ReadWholeFile(const std::string& path);  // empty: there is none
// The last line of a log that speaks of an error, else the last line.
std::string LastWords(const std::string& path);

}  // namespace moebius::load
