#include "app/parallel_flags.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string_view>

#include "app/eplb_config.h"
#include "app/flag_kinds.h"
#include "app/plan_input.h"
#include "kernels/backend.h"
#include "layout/parallel_layout.h"

namespace moebius::app {
namespace {

constexpr int64_t kMostRanks = layout::kMaxGpus;

// What a name of --all2all-backend is here, where that is not its own meaning.
struct BackendName {
  std::string_view name;
  moe::ExchangeMode mode;
  const char* meaning;
};
constexpr const char* kGathers =
    "every rank gathers all tokens, and what its experts made is summed by a reduce-scatter";
constexpr const char* kOwnExchange = "all2all, Moebius's own exchange";
constexpr const char* kOnGpus = "all2all, which is how tokens travel between GPUs";
constexpr BackendName kBackends[] = {
    {"shm", moe::ExchangeMode::kAuto,
     "all2all between processes of one machine, as is the default"},
    {"inproc", moe::ExchangeMode::kAuto, "all2all, and ranks are threads of one process"},
    {"allgather_reducescatter", moe::ExchangeMode::kAuto, kGathers},
    {"naive", moe::ExchangeMode::kAuto,
     "allgather_reducescatter, which vLLM has in its place, too"},
    {"pplx", moe::ExchangeMode::kAuto, "allgather_reducescatter, which vLLM has in its place, too"},
    {"deepep_low_latency", moe::ExchangeMode::kLatency, "all2all with --exchange-mode latency"},
    {"deepep_high_throughput", moe::ExchangeMode::kThroughput,
     "all2all with --exchange-mode throughput"},
    {"mori_low_latency", moe::ExchangeMode::kLatency, "all2all with --exchange-mode latency"},
    {"mori_high_throughput", moe::ExchangeMode::kThroughput,
     "all2all with --exchange-mode throughput"},
    {"deepep_v2", moe::ExchangeMode::kAuto, kOwnExchange},
    {"nixl_ep", moe::ExchangeMode::kAuto, kOwnExchange},
    {"flashinfer_nvlink_one_sided", moe::ExchangeMode::kAuto, kOwnExchange},
    {"flashinfer_nvlink_two_sided", moe::ExchangeMode::kAuto, kOwnExchange},
    {"flashinfer_all2allv", moe::ExchangeMode::kAuto, kOwnExchange},
};

moe::ExchangeMode ModeOf(const std::string& name) {
  for (const moe::ExchangeMode mode :
       {moe::ExchangeMode::kLatency, moe::ExchangeMode::kThroughput}) {
    if (name == moe::ExchangeModeName(mode)) return mode;
  }
  return moe::ExchangeMode::kAuto;
}

// What asks for more than one machine, or for what only a plan has.
Status CheckOneMachine(const ParallelOptions& options, const layout::ParallelConfig& parallel) {
  constexpr const char* kOneMachine = "all ranks are of one machine, several are not supported";
  if (options.num_nodes != 1) {
    return MakeError(ErrorCode::kInvalidArgument, "--nnodes is {}, expected 1: {}",
                     options.num_nodes, kOneMachine);
  }
  if (options.headless) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--headless is a node that computes for another one's server, expected none: "
                     "{}",
                     kOneMachine);
  }
  const int64_t local = options.data_parallel_size_local.value_or(parallel.data_parallel_size);
  if (local != parallel.data_parallel_size) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--data-parallel-size-local is {}, expected {}, what --data-parallel-size is: "
                     "{}",
                     local, parallel.data_parallel_size, kOneMachine);
  }
  if (options.decode_context_parallel_size != 1) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--decode-context-parallel-size is {}, expected 1: KV is not cut by token",
                     options.decode_context_parallel_size);
  }
  return {};
}

void NoteExchange(const ParallelOptions& options, bool exchanges, frontend::OpenOptions& open,
                  std::vector<std::string>& notes) {
  const auto ignored = [&](bool given, const char* flag, const std::string& value) {
    if (!given) return;
    notes.push_back(
        fmt::format("{} {} is ignored: tokens travel between ranks that hold whole experts, which "
                    "takes --enable-expert-parallel and more than one rank",
                    flag, value));
  };
  open.exchange_mode = ModeOf(options.exchange_mode);
  const std::string& name = options.all2all_backend;
  const bool on_gpus = open.device != "cpu";
  open.ranks_are_threads = name == "inproc" && open.parallel.num_gpus() > 1;
  if (!exchanges) {
    ignored(name != "auto" && !open.ranks_are_threads, "--all2all-backend", name);
    ignored(options.exchange_mode != "auto", "--exchange-mode", options.exchange_mode);
    return;
  }
  const auto found = std::find_if(std::begin(kBackends), std::end(kBackends),
                                  [&](const BackendName& known) { return known.name == name; });
  if (found != std::end(kBackends)) {
    if (options.exchange_mode == "auto") open.exchange_mode = found->mode;
    const bool is_of_cpus = name == "shm" || open.parallel.all2all_backend ==
                                                 layout::ExchangeBackend::kAllGatherReduceScatter;
    notes.push_back(fmt::format("--all2all-backend {}: {}", name,
                                on_gpus && is_of_cpus ? kOnGpus : found->meaning));
  }
  if (on_gpus) open.parallel.all2all_backend = layout::ExchangeBackend::kAllToAll;
  if (open.parallel.all2all_backend == layout::ExchangeBackend::kAllGatherReduceScatter &&
      options.exchange_mode != "auto") {
    notes.push_back(fmt::format("--exchange-mode {} is ignored: {} has one way to send",
                                options.exchange_mode, name));
  }
}

// The line that says what a kernel library's name runs here.
void NoteMoeConfig(const MoeConfig& config, const frontend::OpenOptions& open, bool exchanges,
                   std::vector<std::string>& notes) {
  if (!config.backend.empty()) {
    const auto kernels = open.device == "cuda" ? kernels::CudaBackend() : kernels::ChooseBackend();
    notes.push_back(
        fmt::format("moe_config.backend {}: experts run as Moebius's grouped products for {}{}",
                    config.backend, kernels ? std::string((*kernels)->name) : open.device,
                    exchanges ? ", and tokens travel by its exchange" : ""));
  }
  for (const std::string& key : config.ignored) {
    notes.push_back(
        fmt::format("moe_config.{} is ignored: results travel as they are computed, in "
                    "the dtype of activations",
                    key));
  }
}

// One number, wherever it stands.
Status SettleRedundant(ParallelOptions& options) {
  const std::optional<int64_t>& flag = options.redundant_flag;
  const std::optional<int64_t>& key = options.eplb.num_redundant_experts;
  if (flag && key && *flag != *key) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--num-redundant-experts is {} and num_redundant_experts of --eplb-config is "
                     "{}, expected one of them, or the same",
                     *flag, *key);
  }
  options.num_redundant_experts = key ? *key : flag.value_or(0);
  return {};
}

}  // namespace

void AddParallelFlags(CLI::App* app, ParallelOptions& options, bool plans) {
  const std::string planned = plans ? kRanksGroup : "";
  const auto number = [&](const char* name, auto& target, const char* help) {
    return AddNumber(app, name, target, help, int64_t{1}, kMostRanks);
  };
  number("--tensor-parallel-size", options.tensor_parallel_size,
         "Ranks (-tp) that share every matrix and each request")
      ->group(kRanksGroup);
  number("--data-parallel-size", options.data_parallel_size,
         "Groups (-dp) with requests of their own")
      ->group(kRanksGroup);
  number("--pipeline-parallel-size", options.pipeline_parallel_size, "Stages (-pp) of layers")
      ->group(kRanksGroup);
  AddSwitch(app, "enable-expert-parallel", "Whole experts on ranks (-ep), which tokens visit", "",
            kRanksGroup, [&options](bool on) { options.enable_expert_parallel = on; });
  AddText(app, "--all2all-backend", options.all2all_backend,
          "How they do: auto, all2all, allgather_reducescatter or a name of vLLM's")
      ->option_text("NAME=auto")
      ->group(kRanksGroup);
  AddChoice(app, "--exchange-mode", options.exchange_mode, {"auto", "latency", "throughput"},
            "Of all2all; the same bits. auto: by a step's tokens")
      ->group(kRanksGroup);
  AddFlag(app, "--deterministic", "The bits of one rank, on any number of them", [&](bool on) {
    options.deterministic = on;
  })->group(kRanksGroup);
  AddFlag(app, "--print-load", "At the end a table of the tokens that ranks and experts had",
          [&](bool on) { options.print_load = on; })
      ->group(kRanksGroup);
  number("--decode-context-parallel-size", options.decode_context_parallel_size,
         "Of --dry-run: parts of a request's KV, by token")
      ->group(planned);
  number("--nnodes", options.num_nodes, "Of --dry-run: machines that hold the ranks")
      ->group(planned);
  number("--data-parallel-size-local", options.data_parallel_size_local, "")->group("");
  AddFlag(app, "--headless", "", [&](bool on) { options.headless = on; })->group("");
  AddSwitch(app, "enable-eplb", "Experts move to where the load is even, while serving", "",
            kRanksGroup, [&options](bool on) { options.enable_eplb = on; });
  AddNumber(app, "--num-redundant-experts", options.redundant_flag,
            "With EPLB: slots of a layer beyond one an expert", int64_t{0},
            int64_t{layout::kMaxRedundantExperts})
      ->default_str("0")
      ->group(kRanksGroup);
  AddValue(
      app, "--eplb-config", "How they move, as JSON: step_interval, layer_updates_per_iter ...",
      [&options](const std::string& text) -> Status {
        MOEBIUS_ASSIGN(options.eplb, ParseEplbConfig(text, options.eplb));
        return {};
      },
      "JSON")
      ->group(kRanksGroup);
  AddSwitch(app, "enable-dbo", "Of --dry-run: overlap two halves of a batch", "", planned,
            [&options](bool on) { options.enable_dbo = on; });
  AddText(app, "--dense-ffn", options.dense_ffn, "Of --dry-run, under DP: auto, tp or dp")
      ->group(planned);
  AddText(app, "--lm-head", options.lm_head, "Of --dry-run, under DP: auto, tp or dp")
      ->group(planned);
}

void AddTrtllmFlags(CLI::App* app, ParallelOptions& options, frontend::OpenOptions& open,
                    std::vector<std::string>& notes) {
  engine::EngineOptions& engine = open.engine;
  AddNumber(app, "--max-batch-size", engine.max_num_seqs, "")->group("");
  AddSize(app, "--max-num-tokens", engine.max_num_batched_tokens, "")->group("");
  AddSize(app, "--max-seq-len", engine.max_model_len, "")->group("");
  AddFlag(app, "--disable-overlap-scheduler", "", [&engine](bool on) {
    engine.async_scheduling = !on;
  })->group("");
  AddFlag(app, "--enable-attention-dp", "", [&options](bool on) {
    options.enable_attention_dp = on;
  })->group("");
  for (const auto& [name, size] :
       {std::pair("--moe-expert-parallel-size", &options.moe_expert_parallel_size),
        std::pair("--moe-tensor-parallel-size", &options.moe_tensor_parallel_size)}) {
    AddNumber(app, name, *size, "", int64_t{1}, kMostRanks)->group("");
  }
  AddValue(app, "--moe-config", "", [&options](const std::string& text) -> Status {
    MOEBIUS_ASSIGN(options.moe_config, ParseMoeConfig(text));
    return {};
  })->group("");
  AddValue(app, "--kv-cache-config", "",
           [&engine, &open, &notes](const std::string& text) -> Status {
             MOEBIUS_ASSIGN(const KvCacheConfig config, ParseKvCacheConfig(text));
             engine.memory_fraction =
                 config.free_gpu_memory_fraction.value_or(engine.memory_fraction);
             engine.enable_prefix_caching =
                 config.enable_block_reuse.value_or(engine.enable_prefix_caching);
             engine.block_size = config.tokens_per_block.value_or(engine.block_size);
             open.kv_cache_dtype = config.dtype.value_or(open.kv_cache_dtype);
             for (const std::string& key : config.ignored) {
               notes.push_back(
                   fmt::format("kv_cache_config.{} is ignored: the KV cache lies in memory "
                               "(--num-kv-blocks, --kv-cache-memory-bytes)",
                               key));
             }
             return {};
           })
      ->group("");
}

Status SettleSizes(ParallelOptions& options) {
  MOEBIUS_TRY(SettleRedundant(options));
  int64_t tensor = options.tensor_parallel_size.value_or(1);
  const int64_t data = options.data_parallel_size.value_or(1);
  if (options.enable_attention_dp && tensor > 1) {
    if (data > 1) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "--enable-attention-dp makes data-parallel ranks of the {} of "
                       "--tensor-parallel-size, expected no --data-parallel-size ({}) beside it",
                       tensor, data);
    }
    options.data_parallel_size = tensor;
    options.tensor_parallel_size = tensor = 1;
  }
  const int64_t group = tensor * options.data_parallel_size.value_or(1);
  // How many ranks share out whole experts, and into how many parts each of them is cut.
  const std::optional<int64_t> whole = options.moe_expert_parallel_size;
  const std::optional<int64_t> parts = options.moe_tensor_parallel_size;
  for (const auto& [flag, size, other] : {std::tuple("--moe-expert-parallel-size", whole, parts),
                                          std::tuple("--moe-tensor-parallel-size", parts, whole)}) {
    if (!size || ((*size == group || *size == 1) && *size * other.value_or(group / *size) == group))
      continue;
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} is {}, expected {} or 1: ranks hold whole experts "
                     "(--moe-expert-parallel-size {}) or a part of each "
                     "(--moe-tensor-parallel-size {}), no mixture",
                     flag, *size, group, group, group);
  }
  if (whole || parts) {
    options.enable_expert_parallel = group > 1 && (whole ? *whole : group / *parts) == group;
  }
  const bool is_wide = options.moe_config && options.moe_config->backend == "WIDEEP";
  if (is_wide && group > 1 && !options.enable_expert_parallel) {
    options.enable_expert_parallel = true;
  }
  return {};
}

Status SettleBalance(const ParallelOptions& options, frontend::OpenOptions& open,
                     std::vector<std::string>& notes) {
  const bool is_block = options.moe_config && options.moe_config->has_load_balancer;
  const bool is_on = options.enable_eplb.value_or(false);
  if (options.redundant_flag.value_or(0) > 0 && !is_on) {
    notes.push_back("--num-redundant-experts is ignored: it takes --enable-eplb");
  }
  if (options.eplb.is_given && !is_on && !is_block) {
    notes.push_back("--eplb-config is ignored: it takes --enable-eplb");
  }
  if (!is_block && !is_on) return {};
  const char* const what = is_block ? "moe_config.load_balancer" : "--enable-eplb";
  if (!open.parallel.expert_parallel_active()) {
    notes.push_back(fmt::format(
        "{} is ignored: experts are balanced over ranks that hold whole ones, which takes "
        "--enable-expert-parallel and more than one rank",
        what));
    return {};
  }
  if (is_block && is_on)
    notes.push_back("--enable-eplb is ignored: moe_config.load_balancer is given");
  std::ranges::copy(options.eplb.ignored, std::back_inserter(notes));
  moe::BalanceOptions& balance = open.balance;
  if (is_block) {
    const MoeConfig& config = *options.moe_config;
    balance = config.balance;
    if (!config.load_balancer_file.empty()) {
      MOEBIUS_ASSIGN(const plan::PlacementFile placement,
                     plan::ReadPlacementFile(config.load_balancer_file, plan::kUnknownExperts));
      balance = BalanceOf(placement);
    }
    balance.source = config.load_balancer_file.empty() ? what : config.load_balancer_file;
  } else {
    balance.num_redundant = options.num_redundant_experts;
    balance.online.layer_updates_per_iter = 8;
  }
  // num_slots 0 is TensorRT-LLM's way to say no.
  balance.is_on = !is_block || balance.num_slots > 0;
  const int updates =
      options.eplb.layer_updates_per_iter.value_or(balance.online.layer_updates_per_iter);
  balance.online = options.eplb.online;
  balance.online.layer_updates_per_iter = updates;
  if (balance.is_on && updates > 0 && !open.engine.expert_statistics) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--no-expert-statistics is on, expected it off where experts move by what is "
                     "counted ({}; layer_updates_per_iter 0 leaves them where they are)",
                     what);
  }
  return {};
}

Status SettleParallel(const ParallelOptions& options, frontend::OpenOptions& open,
                      std::vector<std::string>& notes) {
  layout::ParallelConfig parallel;
  MOEBIUS_TRY(layout::SetBackend(options.all2all_backend, parallel));
  MOEBIUS_TRY(layout::ParsePartPlacement("--dense-ffn", options.dense_ffn));
  MOEBIUS_TRY(layout::ParsePartPlacement("--lm-head", options.lm_head));
  MOEBIUS_ASSIGN(parallel, NamedLayout(options, parallel));
  MOEBIUS_TRY(CheckOneMachine(options, parallel));
  parallel.exchange_kernel = layout::ExchangeKernel::kOwn;
  parallel.gpus_per_node = parallel.num_gpus();
  const auto ignored = [&](bool given, const char* name, const char* why) {
    if (given) notes.push_back(fmt::format("{} is ignored: {}", name, why));
  };
  constexpr const char* kOfDp = "a data-parallel rank has its own";
  ignored(parallel.enable_expert_parallel && !parallel.expert_parallel_active(),
          "--enable-expert-parallel", "one rank holds every expert");
  ignored(options.enable_dbo.value_or(false), "--enable-dbo",
          "two halves of a batch are not overlapped yet");
  ignored(options.dense_ffn == "tp", "--dense-ffn tp", kOfDp);
  ignored(options.lm_head == "tp", "--lm-head tp", kOfDp);
  open.parallel = parallel;
  open.deterministic = options.deterministic;
  NoteExchange(options, parallel.expert_parallel_active(), open, notes);
  // Seen: threads with fast kernels of bfloat16 hung until a wait's limit, processes and
  // --deterministic never. A lock of the driver, held while a kernel is loaded, would explain it.
  if (open.ranks_are_threads && open.device != "cpu" && !open.deterministic) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--all2all-backend is inproc with --device {}, expected --deterministic with "
                     "it, or another one: threads that use several GPUs can hold each other up",
                     open.device);
  }
  if (options.moe_config) {
    const MoeConfig& config = *options.moe_config;
    NoteMoeConfig(config, open, parallel.expert_parallel_active(), notes);
    open.max_moe_tokens = config.max_num_tokens.value_or(0);
  }
  return SettleBalance(options, open, notes);
}

}  // namespace moebius::app
