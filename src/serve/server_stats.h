// What a server can say about itself and its model: what /metrics, /moebius/stats and the page are
// made from. Plain values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/histogram.h"
#include "engine/engine_client.h"
#include "engine/engine_stats.h"
#include "moe/expert_stats.h"
#include "moe/placement.h"
#include "net/http_server.h"

namespace moebius::serve {

// What the program knows of the model and its engine; the server adds nothing to it.
struct ModelFacts {
  std::string dtype;  // of activations
  std::string kv_cache_dtype;
  std::string architecture;
  uint64_t weight_bytes = 0;  // packed
  int64_t num_layers = 0;
  int64_t num_moe_layers = 0;
  int64_t num_experts = 0;  // routed, a layer
  int64_t experts_per_token = 0;
  std::vector<int64_t> moe_layers;  // the layers that have them, among all
  bool expert_statistics = true;    // tokens are counted by expert
  int64_t block_size = 0;           // tokens a KV block
  double gpu_memory_utilization = 0;
  bool enable_prefix_caching = true;
};

// Requests of one endpoint.
struct EndpointStats {
  std::string method;
  std::string path;                      // as a pattern: "/v1/models/{id}"; "none": unknown paths
  std::map<int, int64_t> num_by_status;  // answers; 499: the client left before it had one
  Histogram seconds;                     // from the request's head and body to the last byte made
};

// Counters since the start unless they are called gauges.
struct ServerStats {
  std::vector<EndpointStats> endpoints;  // those that were asked for at least once

  // Gauges.
  int64_t num_calls = 0;         // completions under way: queued for text, waiting, running
  int64_t num_text_queued = 0;   // jobs that wait for a text thread
  int64_t num_unread_bytes = 0;  // of streams: what waits for readers
  bool is_draining = false;

  int64_t num_queue_full = 0;    // 429: the text queue or the engine's was full
  int64_t num_unauthorized = 0;  // 401
  int64_t num_clients_gone = 0;  // calls whose client left before the end
  int64_t num_timeouts = 0;      // calls that passed request_timeout
  int64_t num_slow_readers = 0;  // streams that were ended because too much waited for the reader
  int64_t num_streamed_tokens = 0;
  int64_t num_stream_pieces = 0;  // writes that carried them: tokens / pieces is how many merge
  int64_t num_stream_bytes = 0;

  Histogram params_n;  // choices a prompt, by call
  net::HttpServer::Stats http;
};

// Everything at one moment.
struct Snapshot {
  std::string model_name;
  ModelFacts model;
  engine::EngineLimits limits;
  engine::EngineStats engine;
  moe::ExpertStats experts;
  std::vector<engine::RankLoad> ranks;
  moe::PlacementState placement;
  ServerStats server;
  bool is_healthy = true;
  std::string health;  // the reason if it is not
  double uptime_seconds = 0;
};

}  // namespace moebius::serve
