// What the command line asks for, one struct a subcommand. Plain values: parse.cc fills them, the
// subcommands read them.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "app/bench_micro.h"
#include "app/bench_serve.h"
#include "app/bench_sweep.h"
#include "app/eplb_config.h"
#include "app/trtllm_blocks.h"
#include "base/ids.h"
#include "base/log.h"
#include "frontend/open.h"
#include "frontend/sampling_fields.h"

namespace moebius::app {

// How a model is spread over ranks, as it was written. Names are those of vLLM's flags.
struct LayoutOptions {
  std::optional<int64_t> tensor_parallel_size;
  std::optional<int64_t> data_parallel_size;
  std::optional<int64_t> pipeline_parallel_size;
  int64_t decode_context_parallel_size = 1;
  std::optional<bool> enable_expert_parallel;
  std::string all2all_backend = "auto";
  std::optional<bool> enable_eplb;
  int64_t num_redundant_experts = 0;
  std::optional<bool> enable_dbo;
  std::string dense_ffn = "auto";
  std::string lm_head = "auto";
};

// Ranks that run. parallel_flags.h gives all of it its meaning.
struct ParallelOptions : LayoutOptions {
  std::string exchange_mode = "auto";
  bool deterministic = false;
  int64_t num_nodes = 1;
  std::optional<int64_t> data_parallel_size_local;  // none: data_parallel_size
  bool headless = false;
  bool print_load = false;  // at the end, what ranks and experts have done
  // TensorRT-LLM's words.
  bool enable_attention_dp = false;
  std::optional<int64_t> moe_expert_parallel_size;
  std::optional<int64_t> moe_tensor_parallel_size;
  std::optional<MoeConfig> moe_config;
  std::optional<int64_t> redundant_flag;  // --num-redundant-experts itself
  EplbConfig eplb;
};

// A server of OpenAI's API that answers instead of a model in this process.
struct RemoteOptions {
  std::string url;      // http://host:port; empty: none
  std::string api_key;  // empty: none
};

struct GenerateOptions {
  frontend::OpenOptions open;  // with a server, model is the name that requests carry; empty: its
                               // first
  ParallelOptions parallel;
  RemoteOptions remote;
  frontend::SamplingFields sampling;  // what the flags set
  std::string generation_config =
      "auto";          // auto: the folder's generation_config.json; vllm: neutral defaults
  std::string system;  // the system message; empty: none
};

// Exactly one of the prompts is set.
struct RunOptions : GenerateOptions {
  std::optional<std::string> prompt;
  std::optional<std::vector<TokenId>> prompt_ids;
  std::string prompts_file;
  std::string input_file;
  std::string output_file;   // of input_file; empty: standard output
  std::optional<bool> chat;  // none: with the chat template if the folder has one
  bool print_ids = false;
};

struct ChatOptions : GenerateOptions {};

struct InspectOptions {
  frontend::OpenOptions open;  // model, dtype, load_format and hf_overrides count
  bool json = false;
};

struct BenchOptions {
  frontend::OpenOptions open;
  ParallelOptions parallel;
  bool throughput = false;  // else latency
  int input_len = 32;
  int output_len = 128;
  int batch_size = 8;        // latency: requests of one iteration
  int num_iters_warmup = 2;  // latency
  int num_iters = 5;
  int num_prompts = 64;  // throughput
  uint64_t seed = 0;     // of the random prompts
  std::string output_json;
};

// Names and numbers as they were written; app/plan.cc gives them their meaning.
// Without sizes of the layout all are compared; without enable_eplb or enable_dbo cost decides.
struct PlanOptions : LayoutOptions {
  std::string model;
  std::string hf_overrides;
  std::string device = "h200";
  std::string gpus;  // "8", "8-64", "8,16"; empty: the sizes say
  std::optional<int64_t> nodes;
  std::string objective = "latency";
  std::optional<double> ttft_ms;
  std::optional<double> tpot_ms;
  std::optional<int64_t> concurrency;
  int64_t isl = 2000;
  int64_t osl = 1000;
  int64_t max_num_batched_tokens = 8192;
  double gpu_hour_price = 0;
  double gpu_memory_utilization = 0.9;
  std::string kv_cache_dtype = "auto";
  std::optional<double> zipf;  // none: the model's
  std::string expert_counts;   // file
  std::string rules = "model";
  std::string format = "table";
  std::string output;  // file; empty: standard output
  bool list_models = false;
  bool list_devices = false;
  bool published = false;
};

// Where no default stands, the server's own counts.
struct ServeOptions {
  frontend::OpenOptions open;
  ParallelOptions parallel;
  std::string generation_config = "auto";
  frontend::SamplingFields sampling;  // --override-generation-config

  std::string host = "0.0.0.0";
  int port = 8000;  // 0: any free one
  std::vector<std::string> api_keys;
  std::vector<std::string> served_model_names;  // none: the model as it was written
  std::vector<std::string> allowed_origins;
  std::optional<int64_t> max_body_bytes;
  std::optional<int> http_threads;
  std::optional<int> text_threads;

  std::string reasoning_parser = "auto";
  std::optional<int> max_logprobs;
  std::optional<int64_t> max_queued_requests;
  std::optional<double> request_timeout;  // seconds
  std::optional<double> drain_timeout;
  std::optional<double> stall_seconds;
  std::string step_log;  // file; empty: none
  bool log_requests = false;
  bool page = true;

  std::optional<std::string> device;  // of dry_run; none: what this machine has
  bool dry_run = false;
};

class EplbVerb;  // app/eplb.h: with its flags' values

struct DoctorCommand {};

struct Help {
  std::string text;
};

struct CommandLine {
  std::variant<Help, RunOptions, ChatOptions, InspectOptions, BenchOptions, PlanOptions,
               ServeOptions, BenchServeOptions, BenchSweepOptions, BenchKernelsOptions,
               BenchExchangeOptions, std::shared_ptr<EplbVerb>, DoctorCommand>
      command;
  LogLevel log_level = LogLevel::kWarning;
  // One line for each flag and variable that was accepted and means nothing here, or less.
  std::vector<std::string> notes;
  std::vector<std::string> debug_notes;
};

}  // namespace moebius::app
