#include "rank/rank_start.h"

#include <pthread.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/log.h"
#include "engine/rank_memory.h"
#include "engine/step_inputs.h"
#include "platform/binding.h"
#include "rank/balance_start.h"
#include "rank/leader_sync.h"
#include "rank/placement_watch.h"
#include "rank/rank_cpus.h"

namespace moebius::rank {
namespace {

// From a rank's own end of loading to the last one's; whoever dies meanwhile sets the abort word.
constexpr auto kStartTimeout = std::chrono::minutes(30);
constexpr size_t kMinChunkBytes = size_t{256} << 10;

// What ranks bring to the start; they all take the least.
struct StartRecord {
  int64_t num_blocks = 0;
  int64_t max_model_len = 0;
  int64_t failed = 0;
  ExpertSize expert = {};
};

// The rank's pool where it was planned, and this thread, with all that it starts from now on, out
// of its way; the device thread goes to its place when it begins. Memory comes from the pool's
// nodes.
Result<std::unique_ptr<platform::ThreadPool>> BindRank(int rank, int num_ranks, int num_threads) {
  const std::string who = fmt::format("rank {}", rank);
  MOEBIUS_ASSIGN(const RankCpus cpus, PlanRankCpus(rank, num_ranks, num_threads));
  MOEBIUS_ASSIGN(const bool is_bound, platform::BindMemory(cpus.numa_nodes, who));
  auto pool = platform::ThreadPool::CreatePlanned(cpus.compute);
  MOEBIUS_TRY(platform::BindThread(pthread_self(), cpus.control, who));
  LogInfo("{}: {}{}", who, cpus.Describe(), is_bound ? "" : " (not bound)");
  return pool;
}

StepBoundOptions BoundOf(const RankOptions& options) {
  const int num_threads = options.parallel.num_gpus() * options.threads_per_rank;
  const auto num_cpus = static_cast<int>(platform::AllowedCpus().size());
  return {.least = LeastStepBound(num_threads, num_cpus), .most = options.step_timeout};
}

// Whoever hears of steps hears whose they are.
engine::EngineOptions OptionsOfRank(const Links& links, const RankOptions& options) {
  engine::EngineOptions engine = options.engine;
  engine.num_micro_batches = links.num_stages();
  engine.trace.rank = links.rank().value();
  if (!options.load.backend->on_host) engine.deterministic = options.deterministic;
  if (!engine.on_step) return engine;
  const int expert_ranks = links.shape().exchanges() ? options.parallel.expert_group() : 0;
  engine.on_step = [observer = engine.on_step, dp = links.place().dp, expert_ranks,
                    placement = std::make_shared<PlacementWatch>(
                        links.shape().slots, links.board())](engine::StepRecord record) {
    record.dp_rank = dp;
    record.num_expert_ranks = expert_ranks;
    record.placement = placement->Of(record.epoch);
    observer(record);
  };
  return engine;
}

// Whether all ranks have come so far without an error; what `status` says of this one.
Status AllReached(comm::Communicator& world, const Status& status) {
  const int64_t failed = status ? 0 : 1;
  std::vector<int64_t> all(static_cast<size_t>(world.size()));
  world.BeginStep(0, comm::Clock::now() + kStartTimeout);  // loading took its time
  world.AllGather(std::as_bytes(std::span(&failed, 1)), std::as_writable_bytes(std::span(all)));
  MOEBIUS_TRY(status);
  MOEBIUS_TRY(world.status());
  const auto first = std::ranges::find(all, 1);
  if (first == all.end()) return {};
  return MakeError(ErrorCode::kUnavailable, "rank {} could not start", first - all.begin());
}

Result<StartedRank> TryStart(Links& links, const RankOptions& options) {
  const int rank = links.rank().value();
  const engine::EngineOptions engine_options = OptionsOfRank(links, options);
  const StepBoundOptions bound = BoundOf(options);  // before this thread has cpus of its own
  comm::Communicator& world = links.world();
  links.control().SetState(rank, RankState::kLoading);

  StartRecord mine;
  Status status;
  std::unique_ptr<model::Model> model;
  std::unique_ptr<platform::ThreadPool> pool;
  engine::KvMemoryPlan plan;
  const kernels::Backend* backend = options.load.backend;
  int num_sharers = links.shape().num_ranks();
  const auto load = [&]() -> Status {
    MOEBIUS_ASSIGN(pool, BindRank(rank, links.shape().num_ranks(), options.threads_per_rank));
    if (!backend->on_host) {
      MOEBIUS_ASSIGN(auto device, OpenRankDevice(links, options.step_timeout, *pool));
      num_sharers = device->num_sharers();
      links.Attach(std::move(device));
    }
    model::LoadOptions part = options.load;
    part.shard = links.Shard();
    if (!links.shape().exchanges()) part.shard.max_moe_rows = options.max_num_tokens;
    part.show_progress = rank == 0;
    MOEBIUS_ASSIGN(model, model::LoadModel(part, *pool));
    return MakeHostPool(links, *model);
  };
  status = load();
  // What is left of a GPU is known when all its ranks have their weights.
  if (!backend->on_host) status = AllReached(world, status);
  if (status) {
    // What ranks share becomes memory as it is written, most of it in steps to come.
    const uint64_t shared = backend->on_host ? Links::NumBytes(links.shape()) : 0;
    auto planned =
        engine::PlanRankMemory(*model, engine_options, pool->num_threads(), num_sharers, shared);
    if (planned) {
      plan = *planned;
    } else {
      status = tl::unexpected(planned.error());
    }
  }
  mine = {
      .num_blocks = plan.num_blocks, .max_model_len = plan.max_model_len, .failed = status ? 0 : 1};
  if (status) mine.expert = ExpertSizeOf(links, *model);
  std::vector<StartRecord> all(static_cast<size_t>(links.shape().num_ranks()));
  world.BeginStep(0, comm::Clock::now() + kStartTimeout);
  world.AllGather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  MOEBIUS_TRY(status);
  MOEBIUS_TRY(world.status());
  for (size_t r = 0; r < all.size(); ++r) {
    if (all[r].failed != 0) {
      return MakeError(ErrorCode::kUnavailable, "rank {} could not start", r);
    }
    plan.num_blocks = std::min(plan.num_blocks, all[r].num_blocks);
    plan.max_model_len = std::min(plan.max_model_len, all[r].max_model_len);
    if (all[r].expert.bytes > mine.expert.bytes) mine.expert = all[r].expert;
  }

  const uint64_t block_bytes = engine::KvBlockBytes(model->KvLayers(), options.engine.block_size);
  links.control().SetMemory(rank,
                            {.weight_bytes = static_cast<int64_t>(model->weight_bytes()),
                             .workspace_bytes = static_cast<int64_t>(plan.workspace_bytes),
                             .kv_bytes = plan.num_blocks * static_cast<int64_t>(block_bytes)});
  StartedRank started;
  started.limits = {.max_rows = options.engine.max_num_batched_tokens,
                    .max_seqs = options.engine.max_num_seqs,
                    .max_blocks = plan.max_model_len / options.engine.block_size + 1,
                    .block_size = options.engine.block_size,
                    .vocab_size = model->config().vocab_size,
                    .num_kv_blocks = plan.num_blocks};
  std::unique_ptr<BalanceAgent> balance = MakeBalanceAgent(links, *model, mine.expert);
  BalanceAgent* const agent = balance.get();
  engine::DeviceRank device;
  if (links.device() != nullptr) device = links.device()->OfRunner();
  // Padding is for graphs, which need it.
  const bool pads_decodes = !device.pads && device.graphs && engine_options.device_graphs;
  if (links.is_leader()) {
    LogInfo("rank {}: {}", rank, plan.Describe(options.engine.block_size));
    MOEBIUS_ASSIGN(started.engine,
                   engine::InprocEngineClient::Create(
                       std::move(model), backend, std::move(pool), engine_options, plan,
                       std::make_unique<LeaderSync>(&links, bound, options.engine.prefill_interval,
                                                    pads_decodes, std::move(balance)),
                       device));
  } else {
    const engine::ModelRunnerOptions runner = engine::RunnerOptionsOf(*model, engine_options, plan);
    if (links.device() != nullptr) {
      device.ended = [&links](const engine::StepPlan& done, engine::StepOutput* output) {
        return PassOutput(links, done, output);
      };
      MOEBIUS_ASSIGN(started.device_follower,
                     engine::MakeDeviceFollower(std::move(model), std::move(pool), runner, device));
    } else {
      MOEBIUS_ASSIGN(started.executor, engine::StepExecutor::Create(std::move(model), backend,
                                                                    std::move(pool), runner));
      // Whoever calls this will follow.
      MOEBIUS_TRY(started.executor->BindThread(fmt::format("rank {}", rank)));
    }
    started.balance = std::move(balance);
  }
  if (agent != nullptr) agent->Start();
  links.control().SetState(rank, RankState::kReady);
  return started;
}

}  // namespace

Result<DeploymentShape> ShapeOf(const RankOptions& options) {
  MOEBIUS_TRY(engine::Validate(options.engine));
  MOEBIUS_ASSIGN(const model::ModelConfig config, model::LoadConfig(options.load));
  DeploymentShape shape;
  shape.parallel = options.parallel;
  shape.num_layers = config.num_layers;
  shape.has_experts = config.moe.num_experts > 0;
  if (shape.has_experts) {
    const int64_t mtp_layers = options.load.mtp ? config.num_mtp_layers : 0;
    shape.num_moe_layers = static_cast<int>(config.num_moe_layers() + mtp_layers);
    shape.num_experts = static_cast<int>(config.moe.num_experts);
  }
  shape.exchange_mode = options.exchange_mode;
  shape.chunk_bytes = std::max(model::WidestRowBytes(config), kMinChunkBytes);
  engine::PlanLimits limits;
  limits.max_rows = options.engine.max_num_batched_tokens;
  limits.max_seqs = options.engine.max_num_seqs;
  limits.max_blocks = 64;
  limits.vocab_size = config.vocab_size;
  shape.plan_bytes = engine::MaxPlanBytes(limits);
  const bool on_device = !options.load.backend->on_host;
  shape.sums = on_device && !options.deterministic;
  const int64_t stage_rows =
      on_device ? engine::MaxStepRows(limits.max_rows, limits.max_seqs) : limits.max_rows;
  shape.stage_bytes = static_cast<size_t>(stage_rows * config.hidden_size) * sizeof(float);
  if (!shape.exchanges()) return shape;
  if (on_device && config.moe.router == model::RouterKind::kSigmoidInput && config.moe.top_k > 1) {
    return MakeError(ErrorCode::kUnsupported,
                     "expert parallelism of a {} model with {} experts a token on GPUs: they scale "
                     "what they read, and the router's weights do not travel; expected 1 expert a "
                     "token, one rank or cut experts",
                     config.model_type, config.moe.top_k);
  }
  model::Shard shard;
  shard.tp.size = options.parallel.tensor_parallel_size;
  shard.experts.size = options.parallel.expert_group();
  shard.max_moe_rows = options.max_num_tokens;
  shard.slots = options.slots;
  shape.slots = options.slots;
  shape.online = options.online;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (config.layers[static_cast<size_t>(layer)].moe) shape.moe_layers.push_back(layer);
  }
  shape.exchange =
      model::ShapeOfExchange(config, model::ActivationsOf(options.load.dtype, config), shard,
                             options.engine.max_num_batched_tokens, options.deterministic);
  return shape;
}

Result<StartedRank> StartRank(Links& links, const RankOptions& options) {
  Result<StartedRank> started = TryStart(links, options);
  if (!started) {
    const int rank = links.rank().value();
    links.control().SetError(rank, started.error().message());
    links.control().SetState(rank, RankState::kFailed);
    links.control().abort().Set(rank, rank);
  }
  return started;
}

}  // namespace moebius::rank
