// moebius serve --dry-run: what a command line means, before anything is loaded or listened to: the
// layout, what the fullest rank holds, what it sends, and whether the device has room for it.
#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <filesystem>

#include "app/commands.h"
#include "app/doctor_gpu.h"
#include "app/model_folder.h"
#include "app/plan_input.h"
#include "app/this_cpu.h"
#include "frontend/open.h"
#include "frontend/open_ranks.h"
#include "moe/migrate/host_pool.h"
#include "plan/report.h"
#include "platform/shared_memory_room.h"
#include "serve/step_log.h"

namespace moebius::app {
namespace {

// The built-in device that a GPU's name speaks of, the longest match first ("GB200" is no "B200").
std::string DeviceOf(std::string gpu) {
  std::transform(gpu.begin(), gpu.end(), gpu.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  std::string best;
  for (const std::string& name : plan::KnownDevices()) {
    if (name.size() > best.size() && gpu.find(name) != std::string::npos) best = name;
  }
  return best;
}

// What --device names, or what this machine has: its first GPU, or its memory.
Result<plan::Device> FindDevice(const ServeOptions& options, int num_ranks) {
  const std::string name = options.device.value_or("auto");
  if (name == "cpu") return ThisCpu(num_ranks);
  if (name != "auto" && name != "gpu" && name != "cuda") return plan::LoadDevice(name);
  const std::vector<std::string> gpus = GpuNames();
  if (gpus.empty() && name == "auto") return ThisCpu(num_ranks);
  if (gpus.empty()) {
    return MakeError(
        ErrorCode::kNotFound,
        "--device is '{}', but no GPU's driver is loaded here: expected cpu, or a name "
        "of moebius plan --list-devices",
        name);
  }
  const std::string known = DeviceOf(gpus.front());
  if (known.empty()) {
    return MakeError(ErrorCode::kNotFound,
                     "this machine's GPU is '{}', which is not known: give a name of moebius plan "
                     "--list-devices or a YAML file with --device",
                     gpus.front());
  }
  return plan::LoadDevice(known);
}

// The plan's options that serve's own flags say.
PlanOptions PlanOf(const ServeOptions& options) {
  PlanOptions plan;
  static_cast<LayoutOptions&>(plan) = options.parallel;
  plan.kv_cache_dtype = options.open.kv_cache_dtype;
  plan.model = options.open.model;
  plan.hf_overrides = options.open.hf_overrides;
  plan.max_num_batched_tokens = options.open.engine.max_num_batched_tokens;
  plan.gpu_memory_utilization = options.open.engine.memory_fraction;
  return plan;
}

// The slots that a start gives the experts, in the layout's words.
void SetSlots(const moe::BalanceOptions& balance, plan::PlanInput& input) {
  layout::ParallelConfig& parallel = input.parallel;
  if (!balance.is_on && !parallel.own_ranks) return;  // other stacks' own words
  const int64_t num_experts = input.model.numbers.num_experts;
  parallel.enable_eplb = balance.is_on && num_experts > 0;
  parallel.own_slots = true;  // on any device
  parallel.num_redundant_experts =
      parallel.enable_eplb ? static_cast<int>(moe::NumSlotsOf(balance, num_experts) - num_experts)
                           : 0;
}

plan::Estimate EstimateMemory(const plan::PlanInput& input, const layout::ParallelConfig& config,
                              const ServeOptions& options, int64_t tokens) {
  const bool is_cpu = config.own_ranks;
  plan::Estimate estimate;
  estimate.requests_per_rank = options.open.engine.max_num_seqs;
  estimate.concurrency = estimate.requests_per_rank * config.data_parallel_size;
  // What is left to cost needs a device's speed.
  estimate.layout = is_cpu ? layout::MakeLayout(config, input.model.numbers)
                           : plan::SettleLayout(input, config, estimate.concurrency);
  plan::MemoryInput memory;
  memory.hbm_bytes = input.device.hbm_bytes;
  memory.utilization = input.gpu_memory_utilization;
  memory.kv_element_bytes = input.kv_element_bytes;
  memory.max_batched_tokens = input.max_batched_tokens;
  memory.max_decode_tokens = estimate.requests_per_rank;
  memory.context = tokens;
  const frontend::OpenOptions& open = options.open;
  memory.deterministic = open.deterministic;
  if (open.dtype == "float32") memory.activation_bytes = 4;
  memory.num_threads = frontend::ThreadsOfRank(open).value_or(1);
  if (open.balance.is_on && open.balance.online.is_on()) {
    memory.num_staging_slots = open.balance.online.num_staging;
  }
  if (open.max_moe_tokens > 0) {
    memory.max_moe_rows = std::max<int64_t>(1, open.max_moe_tokens / config.expert_group());
  }
  estimate.memory = plan::PlanMemory(input.model, estimate.layout, memory);
  estimate.traffic = plan::PlanTraffic(input.model, estimate.layout, estimate.requests_per_rank,
                                       input.model.weight_bytes);
  return estimate;
}

std::string Gb(double bytes) {
  return fmt::format("{:.{}f} GB", bytes / 1e9, std::abs(bytes) < 1e9 ? 3 : 1);
}

struct Verdict {
  bool holds = false;
  std::vector<std::string> lines;
};

// Of one rank that holds everything: the checkpoint.
double CheckpointBytes(const plan::ModelShape& model) {
  return plan::PlanMemory(model, layout::MakeLayout({}, model.numbers), {}).weights();
}

// `tokens`: of the longest request; 0: whatever there is room for.
Verdict Judge(const plan::PlanReport& report, int64_t tokens) {
  const plan::MemoryUse& memory = report.decision.ranked.front().memory;
  const plan::Device& device = report.input.device;
  const double usable = device.hbm_bytes * report.input.gpu_memory_utilization;
  Verdict verdict;
  verdict.lines.push_back(fmt::format(
      "The checkpoint's weights are {} in all, {} on the fullest rank, {} with workspace and "
      "buffers; {} of {} may be used.",
      Gb(CheckpointBytes(report.input.model)), Gb(memory.weights()), Gb(memory.total_without_kv()),
      Gb(usable), Gb(device.hbm_bytes)));
  verdict.holds = memory.fits() && memory.kv_tokens_per_rank >= tokens;
  const std::string room = fmt::format("{}", memory.kv_tokens_per_rank);
  if (verdict.holds) {
    verdict.lines.push_back(fmt::format(
        "It holds: {} are left for KV, room for {} tokens on a rank{}.", Gb(memory.kv_budget), room,
        tokens > 0
            ? fmt::format(" or {} requests of {}", memory.kv_tokens_per_rank / tokens, tokens)
            : ""));
  } else if (!memory.fits()) {
    verdict.lines.push_back(
        fmt::format("It does not hold: {} more are needed on a rank before any KV cache.",
                    Gb(memory.total_without_kv() - usable)));
  } else {
    verdict.lines.push_back(
        fmt::format("It does not hold a request of {} tokens: there is room for {} "
                    "(--max-model-len).",
                    tokens, room));
  }
  return verdict;
}

// Whether --device names this machine's, or leaves it to what there is.
bool IsThisMachine(const ServeOptions& options) {
  const std::string name = options.device.value_or("auto");
  return name == "auto" || name == "cpu" || name == "gpu" || name == "cuda";
}

// One copy of every expert a node; of another machine only how large it is.
void JudgeHostPool(const ServeOptions& options, const plan::PlanInput& input,
                   const layout::ParallelConfig& config, Verdict& verdict) {
  const moe::OnlineBalance& online = options.open.balance.online;
  if (!config.enable_eplb || !online.is_on() || !online.host_pool) return;
  moe::HostPoolOptions pool;
  pool.num_experts = static_cast<int>(input.model.numbers.num_experts);
  pool.num_local_ranks = config.expert_group();
  pool.expert_bytes.assign(static_cast<size_t>(input.model.num_moe_layers),
                           static_cast<size_t>(static_cast<double>(input.model.ExpertParams()) *
                                               input.model.expert_weight_bytes));
  const uint64_t bytes = moe::HostPool::TotalBytes(pool);
  const std::string what = "the host pool (all experts of the node)";
  if (!IsThisMachine(options)) {
    verdict.lines.push_back(fmt::format("It takes {} of {}, and of the machine's memory, for {}.",
                                        Gb(static_cast<double>(bytes)),
                                        platform::kSharedMemoryFolder, what));
    return;
  }
  const auto room = platform::ReadSharedMemoryRoom();
  const Status fits =
      room ? platform::CheckRoom(*room, what, bytes) : Status(tl::unexpected(room.error()));
  verdict.holds &= fits.has_value();
  verdict.lines.push_back(fits ? fmt::format("It takes {} of {} for {}, where {} are free.",
                                             Gb(static_cast<double>(bytes)), room->folder, what,
                                             Gb(static_cast<double>(room->free)))
                               : fmt::format("It does not hold: {}.", fits.error().message()));
}

// Whether the file can be written to, without leaving one that was not there.
Status CheckStepLog(const std::string& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (std::filesystem::is_fifo(status)) return {};  // would wait for its reader
  MOEBIUS_TRY(serve::StepLog::Open(path));
  if (!std::filesystem::exists(status)) std::filesystem::remove(path, error);
  return {};
}

std::string NotServed(const Error& error) {
  return fmt::format("This engine can plan the model but not serve it: {}.", error.message());
}

// Refuses what a start would refuse before it reads weights, the slots of experts and the
// routing by the layout `named`, too. A model that can be planned but not served is none of that: a
// line of `lines` says so.
Status CheckStart(const ServeOptions& options, const layout::ParallelConfig& named,
                  std::vector<std::string>& lines) {
  frontend::OpenOptions open = options.open;
  std::error_code ignored;
  const std::filesystem::path path(open.model);
  if (std::filesystem::is_regular_file(path, ignored)) {
    open.model = path.has_parent_path() ? path.parent_path().string() : ".";
  }
  open.load_format = "dummy";  // a known name will do
  MOEBIUS_ASSIGN(const ModelFolder folder, ModelFolder::Find(open));
  if (!options.step_log.empty()) MOEBIUS_TRY(CheckStepLog(options.step_log));
  const auto threads = frontend::ThreadsOfRank(open);
  // Without --device it is about this machine.
  if (!options.device && !threads) return tl::unexpected(threads.error());
  open.load_format = options.open.load_format;
  const auto prepared = folder.Named(frontend::Prepare(open));
  if (prepared) {
    open.parallel = named;
    MOEBIUS_TRY(frontend::AssignSlots(open, prepared->config));
    MOEBIUS_TRY(frontend::CheckRouting(open, prepared->config));
    const std::string balance = frontend::DescribeBalance(open, prepared->config);
    if (!balance.empty()) lines.push_back(balance);
    open.device = options.device.value_or("auto");
    if (open.device == "auto" || open.device == "cpu") return {};
    const Status fits = frontend::CheckDeviceModel(open, prepared->config);
    if (!fits) lines.push_back(NotServed(fits.error()));
    return {};
  }
  if (prepared.error().code() != ErrorCode::kUnsupported) return tl::unexpected(prepared.error());
  lines.push_back(NotServed(prepared.error()));
  return {};
}

}  // namespace

Result<int> DryRun(const ServeOptions& options) {
  const PlanOptions plan_options = PlanOf(options);
  plan::PlanReport report;
  report.one_layout = true;
  MOEBIUS_ASSIGN(report.named, NamedLayout(plan_options, {}));
  const int num_ranks = report.named.num_gpus();
  MOEBIUS_ASSIGN(plan::Device device, FindDevice(options, num_ranks));
  const int64_t num_nodes = options.parallel.num_nodes;
  if (num_nodes > 1) {
    device.gpus_per_node = static_cast<int>((num_ranks + num_nodes - 1) / num_nodes);
  }
  MOEBIUS_ASSIGN(report.input, MakePlanInput(plan_options, std::move(device)));
  SetSlots(options.open.balance, report.input);
  MOEBIUS_ASSIGN(report.named, NamedLayout(plan_options, report.input.parallel));
  report.question.gpu_counts = {num_ranks};
  std::vector<std::string> lines;
  MOEBIUS_TRY(CheckStart(options, report.named, lines));
  const layout::ModelNumbers& numbers = report.input.model.numbers;
  report.findings = CheckRules(report.named, numbers);
  if (!layout::IsLegal(report.findings)) {
    report.nearest = NearestLegal(report.named, numbers);
    fmt::print("{}", plan::LayoutReport(report, {}));
    for (const layout::Finding& finding : report.findings) {
      if (finding.severity == layout::Severity::kError) {
        fmt::print(stderr, "moebius: error: {}\n", finding.message);
      }
    }
    return kExitUsage;
  }
  const int64_t tokens = options.open.engine.max_model_len;
  report.decision.ranked.push_back(EstimateMemory(report.input, report.named, options, tokens));
  Verdict verdict = Judge(report, tokens);
  JudgeHostPool(options, report.input, report.named, verdict);
  lines.insert(lines.begin(), verdict.lines.begin(), verdict.lines.end());
  if (num_ranks > 1 && (report.input.device.name != "cpu" || num_nodes > 1)) {
    lines.emplace_back(plan::kWhatRuns);
  }
  // First, since all that follows is about this machine.
  if (!options.device && report.input.device.name == "cpu" && num_ranks > 1) {
    lines.insert(
        lines.begin(),
        "This machine has no GPU; --device asks about another (moebius plan --list-devices).");
  }
  fmt::print("{}", plan::LayoutReport(report, lines));
  // A machine on which something is planned is seldom the one that serves: only a device that was
  // named is a question whose answer can be no.
  return verdict.holds || !options.device ? kExitOk : kExitFailure;
}

}  // namespace moebius::app
