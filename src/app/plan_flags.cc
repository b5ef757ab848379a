// The flags of `moebius plan`. Names are vLLM's where vLLM has the thing.
#include <CLI/CLI.hpp>
#include <string>

#include "app/flags.h"
#include "app/numbers.h"
#include "layout/parallel_layout.h"

namespace moebius::app {
namespace {

// Above these nothing is planned: figures would overflow long before they meant anything.
constexpr int64_t kMostConcurrent = 1'000'000;
constexpr double kMostMilliseconds = 1e9;
constexpr double kMostDollars = 1e6;
constexpr double kMostZipf = 16;

template <typename T>
Status CheckRange(const char* flag, T value, T least, T most) {
  if (value >= least && value <= most) return {};  // not so for what is no number
  return MakeError(ErrorCode::kInvalidArgument, "{} is {}, expected {} to {}", flag, value, least,
                   most);
}

template <typename T>
Status CheckRange(const char* flag, const std::optional<T>& value, T least, T most) {
  return value ? CheckRange(flag, *value, least, most) : Status();
}

class Flags {
 public:
  explicit Flags(CLI::App* app) : app_(app) {}

  void Group(const char* name) { group_ = name; }
  template <typename T>
  CLI::Option* Add(const char* name, T& target, const char* help) {
    return app_->add_option(name, target, help)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
        ->group(group_);
  }
  // --name and --no-name; the last of both counts.
  template <typename T>
  void AddSwitch(const std::string& name, T& target, const char* help) {
    app_->add_flag_callback(
            "--" + name, [&target] { target = true; }, help)
        ->trigger_on_parse()
        ->group(group_);
    app_->add_flag_callback("--no-" + name, [&target] { target = false; })
        ->trigger_on_parse()
        ->group("");
  }

 private:
  CLI::App* app_;
  std::string group_;
};

}  // namespace

void AddPlanFlags(CLI::App* app, PlanOptions& options) {
  Flags flags(app);
  flags.Group("");
  // MODEL is filled after it, so that it wins over a file's.
  flags.Add("--model", options.model, "The same");
  app->add_option("MODEL", options.model,
                  "Folder, config.json or hub name (--list-models); no weight is read");
  flags.Group("Machines");
  flags.Add("--gpus,--num-gpus", options.gpus, "How many: 8, or several: 8-64, 8,16");
  flags.Add("--nodes", options.nodes, "How many nodes, instead of --gpus");
  flags.Add("--device", options.device,
            "Name (--list-devices; cpu: this machine's, measured) or YAML file");
  flags.Add("--gpu-memory-utilization", options.gpu_memory_utilization, "Share of memory to use");
  flags.Add("--gpu-hour-price", options.gpu_hour_price, "Dollars, for the cost of tokens");
  flags.Group("Load");
  flags.Add("--concurrency", options.concurrency, "Requests in flight");
  flags.Add("--isl", options.isl, "Tokens of a prompt");
  flags.Add("--osl", options.osl, "Tokens of an answer");
  flags.Add("--max-num-batched-tokens", options.max_num_batched_tokens, "Tokens of one step");
  flags.Add("--kv-cache-dtype", options.kv_cache_dtype, "auto (bfloat16), bfloat16 or fp8");
  flags.Add("--zipf", options.zipf, "How unevenly experts are chosen: Zipf's exponent");
  flags.Add("--expert-counts", options.expert_counts,
            "JSON file of recorded counts: a list by expert, or one list a layer");
  flags.Group("Decision");
  flags.Add("--objective", options.objective, "latency, throughput or cost");
  flags.Add("--ttft-ms", options.ttft_ms, "Longest time to the first token");
  flags.Add("--tpot-ms", options.tpot_ms, "Longest time per output token");
  flags.Add("--rules", options.rules, "playbook: the published rules too, literally")
      ->check(CLI::IsMember({"model", "playbook"}));
  flags.Group("Layout (sizes: this one alone is shown)");
  flags.Add("--tensor-parallel-size", options.tensor_parallel_size, "");
  flags.Add("--data-parallel-size", options.data_parallel_size, "");
  flags.Add("--pipeline-parallel-size", options.pipeline_parallel_size, "");
  flags.Add("--decode-context-parallel-size", options.decode_context_parallel_size,
            "Copied KV of a TP group, cut by token in so many parts");
  flags.AddSwitch("enable-expert-parallel", options.enable_expert_parallel,
                  "Whole experts on ranks; without sizes: only such layouts");
  flags.Add("--all2all-backend", options.all2all_backend,
            "auto, all2all, allgather_reducescatter or a name of vLLM's");
  flags.AddSwitch("enable-eplb", options.enable_eplb, "Balance experts by their load");
  flags.Add("--num-redundant-experts", options.num_redundant_experts, "Second copies, with EPLB");
  flags.AddSwitch("enable-dbo", options.enable_dbo, "Overlap two halves of a batch");
  flags.Add("--dense-ffn", options.dense_ffn, "Under DP: auto, tp or dp");
  flags.Add("--lm-head", options.lm_head, "Under DP: auto, tp or dp");
  flags.Add("--hf-overrides", options.hf_overrides, "JSON merged into config.json");
  flags.Group("Output");
  flags.Add("--format", options.format, "table, json, csv, markdown or html")
      ->check(CLI::IsMember({"table", "json", "csv", "markdown", "html"}));
  flags.Add("--output", options.output, "File (default: standard output)");
  flags.AddSwitch("list-models", options.list_models, "Models known by name");
  flags.AddSwitch("list-devices", options.list_devices, "Devices known by name");
  flags.AddSwitch("published", options.published,
                  "Our estimates beside published and measured figures");
}

Status CheckPlanOptions(const PlanOptions& options) {
  if (options.list_models || options.list_devices || options.published) return {};
  if (options.model.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "MODEL is missing: a folder, a config.json or a name of --list-models");
  }
  constexpr int64_t kMostGpus = layout::kMaxGpus;
  MOEBIUS_TRY(CheckRange<int64_t>("--nodes", options.nodes, 1, kMostGpus));
  MOEBIUS_TRY(
      CheckRange<int64_t>("--tensor-parallel-size", options.tensor_parallel_size, 1, kMostGpus));
  MOEBIUS_TRY(
      CheckRange<int64_t>("--data-parallel-size", options.data_parallel_size, 1, kMostGpus));
  MOEBIUS_TRY(CheckRange<int64_t>("--pipeline-parallel-size", options.pipeline_parallel_size, 1,
                                  kMostGpus));
  MOEBIUS_TRY(CheckRange<int64_t>("--decode-context-parallel-size",
                                  options.decode_context_parallel_size, 1, kMostGpus));
  MOEBIUS_TRY(CheckRange<int64_t>("--num-redundant-experts", options.num_redundant_experts, 0,
                                  layout::kMaxRedundantExperts));
  MOEBIUS_TRY(CheckRange<int64_t>("--concurrency", options.concurrency, 1, kMostConcurrent));
  MOEBIUS_TRY(CheckRange<int64_t>("--isl", options.isl, 1, kMostTokens));
  MOEBIUS_TRY(CheckRange<int64_t>("--osl", options.osl, 1, kMostTokens));
  MOEBIUS_TRY(CheckRange<int64_t>("--max-num-batched-tokens", options.max_num_batched_tokens, 1,
                                  kMostTokens));
  MOEBIUS_TRY(CheckRange<double>("--gpu-hour-price", options.gpu_hour_price, 0, kMostDollars));
  MOEBIUS_TRY(CheckRange<double>("--zipf", options.zipf, 0, kMostZipf));
  MOEBIUS_TRY(CheckRange<double>("--ttft-ms", options.ttft_ms, 0, kMostMilliseconds));
  MOEBIUS_TRY(CheckRange<double>("--tpot-ms", options.tpot_ms, 0, kMostMilliseconds));
  if (!(options.gpu_memory_utilization > 0 && options.gpu_memory_utilization <= 1)) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--gpu-memory-utilization is {:g}, expected more than 0 and at most 1",
                     options.gpu_memory_utilization);
  }
  return {};
}

}  // namespace moebius::app
