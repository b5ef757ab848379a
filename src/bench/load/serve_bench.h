// One benchmark of an OpenAI-compatible server from begin to end: wait until it listens, find the
// model, make the data set, wait until a request succeeds, warm up, load it, measure. Called by one
// thread.
#pragma once

#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/load/client.h"
#include "bench/load/dataset.h"
#include "bench/load/figures.h"
#include "bench/load/generator.h"
#include "bench/load/request_body.h"
#include "bench/load/server_metrics.h"
#include "bench/load/window.h"

namespace moebius::load {

struct ServeBenchOptions {
  std::string backend = "openai";  // openai, vllm: completions; openai-chat: chat completions
  ClientOptions client;
  std::string model;              // name at the server, or a tokenizer folder; empty: its first
  std::string served_model_name;  // the name at the server, where --model is a folder
  std::string tokenizer;          // folder; empty: --model, the server's root or the server
  std::optional<int64_t> random_vocab_size;
  std::string prompt_format = "auto";  // ids, text; auto: ids for completions
  BodyOptions body;                    // its model and chat are set by the run
  DatasetOptions dataset;
  LoadShape shape;         // its num_requests and times come from the data set
  bool self_timed = true;  // a trace's own times
  int num_warmups = 0;
  // How long to wait for the server, then for a request to succeed before the load; 0: none is
  // sent; without a value, one is sent and must succeed at once (or be told to come later: 429).
  std::optional<double> ready_check_timeout_sec;
  double probe_request_rate = 0;  // of single-token requests beside the load; 0: none
  Limits limits;
};

// Latencies of requests for one token that went beside the load.
struct ProbeFigures {
  int64_t completed = 0;
  int64_t failed = 0;
  Distribution e2el;  // seconds
};

struct ServeBench {
  std::string model;        // the name that was sent
  std::string tokenizer;    // what made the prompts: a folder, "server", "ids", "words", ""
  int64_t num_prompts = 0;  // of the data set
  LoadRun run;
  Figures figures;
  SteadyFigures steady;
  std::optional<ProbeFigures> probe;
  ServerView server;
  std::vector<std::string> warnings;
};
// Errors before the load; once it runs, failures are counted, not returned. kCancelled: stopped
// before the load.
Result<ServeBench> RunServeBench(ServeBenchOptions options, std::stop_token stop);

}  // namespace moebius::load
