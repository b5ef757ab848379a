#include "frontend/open_ranks.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "base/log.h"
#include "kernels/tuning/device_limits.h"
#include "layout/rules.h"
#include "moe/balance/policy.h"
#include "moe/forced_routing.h"
#include "plan/launch.h"
#include "plan/model_shape.h"
#include "platform/thread_pool.h"
#include "rank/deployment_memory.h"
#include "rank/process_ranks.h"
#include "rank/rank_cpus.h"
#include "rank/rank_device.h"
#include "rank/thread_ranks.h"

namespace moebius::frontend {
namespace {

using layout::ParallelConfig;

// Of a machine; the waits between ranks are tested to this many.
constexpr int kMostRanks = 64;
// The ranks' own bounds, which name who is late, come before that of their engines.
constexpr auto kEngineGrace = std::chrono::seconds(10);

// "--tensor-parallel-size 3 is not possible with this model: ...".
Error Illegal(const ParallelConfig& config, const std::vector<layout::Finding>& findings,
              const layout::ModelNumbers& numbers) {
  std::string reasons;
  for (const layout::Finding& finding : findings) {
    if (finding.severity != layout::Severity::kError) continue;
    reasons += fmt::format("{}{}", reasons.empty() ? "" : "; ", finding.message);
  }
  std::string message =
      fmt::format("{} is not possible with this model: {}", plan::LayoutFlags(config), reasons);
  if (const std::optional<ParallelConfig> nearest = NearestLegal(config, numbers)) {
    const std::string flags = plan::LayoutFlags(*nearest);
    message += fmt::format("; the nearest layout that is: {}", flags.empty() ? "one rank" : flags);
  }
  return {ErrorCode::kInvalidArgument, message};
}

// Of the layer that has most of them: copies of an expert on one rank beyond the first there.
int MostSameRankCopies(const moe::SlotAssignment& slots, int64_t num_experts, int num_ranks) {
  const moe::SlotShape shape = {.num_experts = static_cast<int>(num_experts),
                                .num_slots = static_cast<int>(slots.num_slots),
                                .num_ranks = num_ranks};
  int most = 0;
  const size_t num_lists = std::max<size_t>(1, slots.layers.size());
  for (size_t layer = 0; layer < num_lists; ++layer) {
    const moe::SlotList list = slots.Of(static_cast<int>(layer), num_experts, num_ranks);
    most = std::max(most, moe::NumSameRankCopies(shape, list));
  }
  return most;
}

}  // namespace

Result<moe::SlotAssignment> AssignSlots(const OpenOptions& options,
                                        const model::ModelConfig& config) {
  if (!options.balance.is_on || config.moe.num_experts == 0 ||
      !options.parallel.expert_parallel_active()) {
    return moe::SlotAssignment();
  }
  std::vector<int64_t> moe_layers;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (config.layers[static_cast<size_t>(layer)].moe) moe_layers.push_back(layer);
  }
  Result<moe::SlotAssignment> slots = moe::SlotsOf(options.balance, config.moe.num_experts,
                                                   moe_layers, options.parallel.expert_group());
  if (!slots) {
    // By who asked for it; what stands in the block itself says so.
    const std::string& source = options.balance.source;
    const std::string asked = source.empty() ? "--enable-eplb" : "moe_config.load_balancer";
    if (source != asked) return tl::unexpected(slots.error().WithContext(asked));
  }
  return slots;
}

Status CheckRouting(const OpenOptions& options, const model::ModelConfig& config) {
  if (options.routing.empty()) return {};
  MOEBIUS_ASSIGN(const moe::RoutingSpec spec, moe::ParseRouting(options.routing));
  const ParallelConfig& parallel = options.parallel;
  return moe::CheckRouting(
      spec, {.num_layers = static_cast<int>(config.num_moe_layers()),
             .num_experts = static_cast<int>(config.moe.num_experts),
             .top_k = static_cast<int>(config.moe.top_k),
             .num_ranks = parallel.expert_parallel_active() ? parallel.expert_group() : 1});
}

Status CheckDeviceModel(const OpenOptions& options, const model::ModelConfig& config) {
  const auto refuse = [&](std::string_view field, int64_t value, int64_t most) -> Status {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} is {}, expected at most {} for a {} model with --device {}", field, value,
                     most, config.model_type, options.device);
  };
  if (config.vocab_size > kernels::kMaxSampleVocab) {
    return refuse("vocab_size", config.vocab_size, kernels::kMaxSampleVocab);
  }
  const model::MoeConfig& moe = config.moe;
  if (moe.num_experts > kernels::kMaxRouterExperts) {
    return refuse("the number of experts", moe.num_experts, kernels::kMaxRouterExperts);
  }
  if (moe.top_k > kernels::kMaxRouterChoices) {
    return refuse(options.moe_mode == "dense"
                      ? "the number of experts a token (--moe-mode dense: all)"
                      : "num_experts_per_tok",
                  moe.top_k, kernels::kMaxRouterChoices);
  }
  // Where all groups may be chosen, they are one.
  const int64_t groups = moe.num_top_groups < moe.num_groups ? moe.num_groups : 1;
  if (groups > kernels::kMaxRouterGroups) {
    return refuse("n_group", groups, kernels::kMaxRouterGroups);
  }
  if (const int64_t most = kernels::MaxGroupExperts(groups); moe.num_experts / groups > most) {
    return refuse(fmt::format("the number of experts in one of {} groups (n_group)", groups),
                  moe.num_experts / groups, most);
  }
  return {};
}

Status CheckDeviceRanks(const OpenOptions& options, const model::ModelConfig& config,
                        int num_devices) {
  const ParallelConfig& parallel = options.parallel;
  if (config.moe.num_experts > 0 && parallel.expert_parallel_active() &&
      config.moe.router == model::RouterKind::kSigmoidInput && config.moe.top_k > 1) {
    return MakeError(
        ErrorCode::kInvalidArgument,
        "--enable-expert-parallel is on, expected --no-enable-expert-parallel for a "
        "{} model of {} experts a token with --device {}: they scale what they read, and the "
        "router's weights do not travel between GPUs",
        config.model_type, config.moe.top_k, options.device);
  }
  if (parallel.num_gpus() > num_devices) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} is {} ranks, expected at most {} with --device {}, a GPU for each",
                     plan::LayoutFlags(parallel), parallel.num_gpus(), num_devices, options.device);
  }
  return {};
}

Status CheckRanks(const OpenOptions& options, const model::ModelConfig& config) {
  ParallelConfig parallel = options.parallel;
  parallel.own_ranks = true;
  if (parallel.wide_num_gpus() <= 1) return {};
  if (parallel.num_gpus() > kMostRanks) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "{} is {} ranks, expected at most {} on one machine",
                     plan::LayoutFlags(parallel), parallel.num_gpus(), kMostRanks);
  }
  MOEBIUS_ASSIGN(const plan::ModelShape shape,
                 plan::LoadModelShape(options.model, options.hf_overrides));
  const std::vector<layout::Finding> findings = CheckRules(parallel, shape.numbers);
  if (!layout::IsLegal(findings)) {
    return tl::unexpected(Illegal(parallel, findings, shape.numbers));
  }
  MOEBIUS_TRY(AssignSlots(options, config));
  MOEBIUS_TRY(CheckRouting(options, config));
  if (options.device == "cpu") return {};
  // What is wrong whatever the machine comes first.
  MOEBIUS_TRY(CheckDeviceRanks(options, config, kMostRanks));
  MOEBIUS_ASSIGN(const int num_devices, rank::NumRankDevices());
  return CheckDeviceRanks(options, config, num_devices);
}

Result<int> ThreadsOfRank(const OpenOptions& options) {
  const int num_cpus = static_cast<int>(platform::AllowedCpus().size());
  if (options.threads < 0 || options.threads > num_cpus) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "--threads is {}, expected 1 to {} of a rank (the cpus of this process), or 0 "
                     "for a fair share",
                     options.threads, num_cpus);
  }
  if (options.threads > 0) return options.threads;
  return std::max(1, num_cpus / options.parallel.num_gpus());
}

std::string DescribeRanks(const OpenOptions& options, const model::ModelConfig& config) {
  const ParallelConfig& parallel = options.parallel;
  const int threads = ThreadsOfRank(options).value_or(1);
  const bool on_gpus = options.device != "cpu";
  std::string text =
      fmt::format("{} ranks ({}), each a {} with {}{} thread{}", parallel.num_gpus(),
                  ConfigName(parallel), options.ranks_are_threads ? "part" : "process",
                  on_gpus ? "a GPU and " : "", threads, threads == 1 ? "" : "s");
  if (config.moe.num_experts == 0 || !parallel.expert_parallel_active()) return text;
  if (parallel.all2all_backend == layout::ExchangeBackend::kAllGatherReduceScatter) {
    return text + "; tokens travel by allgather_reducescatter";
  }
  text +=
      fmt::format("; tokens travel by all2all, mode {}", ExchangeModeName(options.exchange_mode));
  if (options.exchange_mode != moe::ExchangeMode::kAuto) return text;
  model::LoadOptions load;
  load.dtype = model::ParseDTypeChoice(options.dtype).value_or(load.dtype);
  const auto act = static_cast<int64_t>(SizeOf(model::ActivationsOf(load.dtype, config)));
  return text + fmt::format(": latency below {} tokens a rank, throughput from there on",
                            on_gpus ? moe::kDeviceThroughputTokens
                                    : moe::ThroughputTokens(config.hidden_size * act));
}

std::string DescribeBalance(const OpenOptions& options, const model::ModelConfig& config) {
  const Result<moe::SlotAssignment> slots = AssignSlots(options, config);
  if (!slots || slots->num_slots == 0) return "";
  const moe::BalanceOptions& balance = options.balance;
  const auto plural = [](auto count) { return count == 1 ? "" : "s"; };
  const int num_ranks = options.parallel.expert_group();
  const int64_t least = slots->num_slots / num_ranks;
  std::string text =
      fmt::format("experts: {} slots for {} experts on {} ranks, {}{} each", slots->num_slots,
                  config.moe.num_experts, num_ranks, least,
                  slots->num_slots % num_ranks == 0 ? "" : fmt::format(" or {}", least + 1));
  const size_t num_given = balance.assignments.size();
  if (num_given == 0) {
    text += "; placement in order";
  } else {
    text += fmt::format("; placement from {}", balance.source);
    const size_t num_others = slots->layers.size() - num_given;
    if (num_others > 0)
      text += fmt::format(", {} layer{} in order", num_others, plural(num_others));
  }
  if (const int most = MostSameRankCopies(*slots, config.moe.num_experts, num_ranks); most > 0) {
    text +=
        fmt::format("; {} slot{} of a layer {} an expert that its rank has already, for nothing",
                    most, plural(most), most == 1 ? "holds" : "hold");
  }
  const moe::OnlineBalance& online = balance.online;
  if (!online.is_on()) return text + "; nothing moves";
  return text + fmt::format("; up to {} layer{} may change every {} step{}",
                            online.layer_updates_per_iter, plural(online.layer_updates_per_iter),
                            online.step_interval, plural(online.step_interval));
}

std::vector<std::string> DescribeBinding(const OpenOptions& options) {
  const int num_ranks = options.parallel.num_gpus();
  const int threads = ThreadsOfRank(options).value_or(1);
  std::vector<rank::RankCpus> ranks;
  for (int rank = 0; rank < num_ranks; ++rank) {
    auto cpus = rank::PlanRankCpus(rank, num_ranks, threads);
    if (!cpus) return {cpus.error().message()};  // the ranks will say it, too
    ranks.push_back(*std::move(cpus));
  }
  return rank::DescribeRankCpus(ranks);
}

Result<std::unique_ptr<engine::EngineClient>> StartRanks(const OpenOptions& options,
                                                         const model::LoadOptions& load) {
  rank::RankOptions ranks;
  ranks.load = load;
  ranks.engine = options.engine;
  ranks.parallel = options.parallel;
  ranks.deterministic = options.deterministic;
  ranks.exchange_mode = options.exchange_mode;
  ranks.step_timeout = options.engine.step_timeout;
  // To agree on a step, and to do it.
  ranks.engine.step_timeout = 2 * ranks.step_timeout + kEngineGrace;
  MOEBIUS_ASSIGN(ranks.threads_per_rank, ThreadsOfRank(options));
  MOEBIUS_ASSIGN(const model::ModelConfig config, model::LoadConfig(load));
  MOEBIUS_ASSIGN(ranks.slots, AssignSlots(options, config));
  if (ranks.slots.num_slots > 0) ranks.online = options.balance.online;
  if (const int64_t tokens = MoeTokensOf(options); tokens > 0) {
    ranks.max_num_tokens = std::max<int64_t>(1, tokens / options.parallel.expert_group());
  }
  if (options.device == "cpu") {
    MOEBIUS_ASSIGN(const rank::DeploymentMemory memory, rank::PlanDeployment(ranks));
    LogInfo("{}", memory.Describe());
    MOEBIUS_TRY(CheckFits(memory, ranks));
  }
  if (options.ranks_are_threads) return rank::StartThreadRanks(ranks);
  MOEBIUS_ASSIGN(std::unique_ptr<engine::EngineClient> client, rank::ProcessRanks::Start(ranks));
  return client;
}

}  // namespace moebius::frontend
