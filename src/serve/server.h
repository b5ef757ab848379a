// The OpenAI-compatible server over one Frontend: routes, access, a pool for text work, calls under
// way, health, metrics and the page. Owned by the program; any thread may call it. The frontend
// outlives it.
//
// Three kinds of threads meet here and none waits for another: HTTP threads route and render what
// streams (net/http_server.h), text threads parse, apply templates, tokenise and render whole
// answers (text_pool.h), the engine's thread only announces news.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "frontend/frontend.h"
#include "frontend/sampling_fields.h"
#include "net/http_server.h"
#include "serve/server_stats.h"

namespace moebius::serve {

struct ServerOptions {
  net::HttpServerOptions http;

  std::vector<std::string> served_model_names;  // at least one; the first is echoed in answers
  std::string model_root;                       // "root" of /v1/models: where the model came from
  std::string version = "0.0.0";                // of /version

  std::vector<std::string> api_keys;                 // none: everybody may call
  std::vector<std::string> allowed_origins = {"*"};  // of web pages; "*": any; none: no CORS
  bool request_id_headers = true;                    // answers carry X-Request-Id

  std::string reasoning_parser = "auto";  // as ApiContext's
  int32_t max_logprobs = 20;
  int64_t max_choices = 1024;         // of one call: prompts * n
  frontend::SamplingFields defaults;  // of the model's folder and the flags

  int num_text_threads = 2;  // one of them, if there are several, is kept for small calls
  // Of calls that wait for a text thread; more are answered with 429.
  int64_t max_queued_requests = 1024;
  size_t max_queued_bytes = size_t{512} << 20;
  // Of one stream: what may wait for a reader that does not read. More ends it with an error.
  int64_t max_unread_bytes = int64_t{64} << 20;

  std::chrono::milliseconds request_timeout{0};    // of a call from its arrival to its end; 0: none
  std::chrono::milliseconds drain_timeout{30000};  // for running calls to end by themselves
  double stall_seconds = 30;  // work and no step done for so long: /health is 503

  bool page = true;           // the page at /
  bool log_requests = false;  // a line (info) for each answer, without what was said; not of health
                              // and metrics
  ModelFacts model;           // for metrics and the page
};

class Server {
 public:
  // Listens and serves. kInvalidArgument names an option; kUnavailable the address.
  static Result<std::unique_ptr<Server>> Start(const ServerOptions& options,
                                               frontend::Frontend* frontend);
  virtual ~Server() = default;  // cuts off what is under way

  virtual int port() const = 0;

  // Answers new calls and /health with 503 and waits for the running calls; those that are not done
  // after drain_timeout end with an error. Then it takes no more connections and closes those there
  // are. kDeadline: some calls were cut off. Once.
  virtual Status Drain() = 0;

  virtual Snapshot TakeSnapshot() const = 0;
};

}  // namespace moebius::serve
