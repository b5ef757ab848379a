#include "rank/links.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"
#include "base/math.h"
#include "moe/exchange/all_gather_exchange.h"
#include "moe/exchange/group_exchange.h"

namespace moebius::rank {
namespace {

constexpr size_t kLine = 64;
constexpr size_t kWorldChunk = 4096;
constexpr size_t kOutputSlot = size_t{64} << 10;

std::vector<int> Values(const std::vector<RankId>& ranks) {
  std::vector<int> values;
  for (const RankId rank : ranks) values.push_back(rank.value());
  return values;
}

// The leaders of all data-parallel groups.
std::vector<RankId> Leaders(const layout::ParallelConfig& parallel) {
  std::vector<RankId> leaders;
  for (int dp = 0; dp < parallel.data_parallel_size; ++dp) {
    leaders.emplace_back(dp * parallel.pipeline_parallel_size * parallel.tensor_parallel_size);
  }
  return leaders;
}

// All ranks of a data-parallel group, the leader first.
std::vector<RankId> PlanGroup(const layout::ParallelConfig& parallel, int dp) {
  const int size = parallel.pipeline_parallel_size * parallel.tensor_parallel_size;
  std::vector<RankId> ranks;
  for (int i = 0; i < size; ++i) ranks.emplace_back(dp * size + i);
  return ranks;
}

// A leader is as many steps ahead of the last stage as there are stages.
int RingSlots(const DeploymentShape& shape) {
  return std::max(StepRingShape().num_slots, 2 * shape.parallel.pipeline_parallel_size);
}

StepRingShape RingOf(const DeploymentShape& shape) {
  return {.num_followers = static_cast<int>(PlanGroup(shape.parallel, 0).size()) - 1,
          .slot_bytes = shape.plan_bytes,
          .num_slots = RingSlots(shape)};
}

StepRingShape OutputRingOf(const DeploymentShape& shape) {
  return {.num_followers = 1, .slot_bytes = kOutputSlot, .num_slots = RingSlots(shape)};
}

// Letters between two stages: a stage puts down a step's rows while the next one still computes the
// step before, and has not yet taken the rows that wait for it.
int StageLetters(const DeploymentShape& shape) {
  const size_t a_step = (shape.stage_bytes + shape.chunk_bytes - 1) / shape.chunk_bytes;
  return 2 * std::max(static_cast<int>(a_step), 1);
}

BalanceShape BoardShapeOf(const DeploymentShape& shape) {
  return {.num_ranks = shape.num_ranks(),
          .num_layers = shape.num_moe_layers,
          .num_places = static_cast<int>(shape.exchange.num_slots),
          .max_updates = shape.online.layer_updates_per_iter};
}

moe::ExchangeShape ExchangeOf(const DeploymentShape& shape) {
  moe::ExchangeShape exchange = shape.exchange;
  exchange.num_ranks = shape.parallel.expert_group();
  return exchange;
}

}  // namespace

// Where this rank's groups have their memory.
struct Links::Places {
  std::span<std::byte> control;
  std::span<std::byte> expert_counts;
  std::span<std::byte> balance;
  std::span<std::byte> awaited;
  std::span<std::byte> world;
  std::span<std::byte> lockstep;
  std::span<std::byte> ring;
  std::span<std::byte> outputs;
  std::span<std::byte> tp;
  std::span<std::byte> experts;
  std::span<std::byte> exchange;
  std::span<std::byte> pipeline;
  size_t num_bytes = 0;  // of all groups of all ranks
};

// Takes the memory of every group in one order; `memory` may be empty: then nothing but the size
// comes out.
Links::Places Links::Carve(const DeploymentShape& shape, RankId rank, std::span<std::byte> memory) {
  const layout::ParallelConfig& parallel = shape.parallel;
  const layout::RankPlace place = layout::PlaceOf(parallel, rank);
  const int tp_size = parallel.tensor_parallel_size;
  const int pp_size = parallel.pipeline_parallel_size;
  const int dp_size = parallel.data_parallel_size;
  Places places;
  size_t next = 0;
  const auto take = [&](size_t bytes, bool is_mine, std::span<std::byte>* out) {
    if (is_mine && !memory.empty()) *out = memory.subspan(next, bytes);
    next += RoundUp(bytes, kLine);
  };
  const auto group = [&](int size) {
    return comm::SharedCommunicator::NumBytes(size, shape.chunk_bytes);
  };
  take(Control::NumBytes(shape.num_ranks()), true, &places.control);
  take(ExpertCounts::NumBytes(shape.num_ranks(), shape.num_moe_layers, shape.num_experts), true,
       &places.expert_counts);
  if (shape.moves_experts()) {
    take(BalanceBoard::NumBytes(BoardShapeOf(shape)), true, &places.balance);
  }
  take(static_cast<size_t>(shape.num_ranks()) * sizeof(comm::Awaited), true, &places.awaited);
  take(comm::SharedCommunicator::NumBytes(shape.num_ranks(), kWorldChunk), true, &places.world);
  if (shape.steps_together()) take(Lockstep::NumBytes(dp_size), true, &places.lockstep);
  for (int dp = 0; dp < dp_size; ++dp) {
    const bool mine = dp == place.dp;
    if (tp_size * pp_size > 1) take(StepRing::NumBytes(RingOf(shape)), mine, &places.ring);
    if (pp_size > 1) take(StepRing::NumBytes(OutputRingOf(shape)), mine, &places.outputs);
    for (int pp = 0; tp_size > 1 && pp < pp_size; ++pp) {
      take(group(tp_size), mine && pp == place.pp, &places.tp);
    }
    for (int tp = 0; pp_size > 1 && tp < tp_size; ++tp) {
      take(comm::SharedCommunicator::NumBytes(pp_size, shape.chunk_bytes, StageLetters(shape)),
           mine && tp == place.tp, &places.pipeline);
    }
  }
  for (int pp = 0; pp < pp_size; ++pp) {
    const bool mine = pp == place.pp;
    if (shape.cuts_experts() || shape.gathers_tokens()) {
      take(group(parallel.expert_group()), mine, &places.experts);
    }
    if (shape.exchanges() && !shape.gathers_tokens()) {
      take(moe::GroupExchange::NumBytes(ExchangeOf(shape)), mine, &places.exchange);
    }
  }
  places.num_bytes = next;
  return places;
}

size_t Links::NumBytes(const DeploymentShape& shape) {
  return Carve(shape, RankId(0), {}).num_bytes;
}

size_t Links::ControlBytes(const DeploymentShape& shape) {
  return Control::NumBytes(shape.num_ranks());
}

ExpertCounts Links::ExpertCountsIn(const DeploymentShape& shape, std::span<std::byte> memory) {
  return {Carve(shape, RankId(0), memory).expert_counts, shape.num_ranks(), shape.num_moe_layers,
          shape.num_experts};
}

std::optional<BalanceBoard> Links::BoardIn(const DeploymentShape& shape,
                                           std::span<std::byte> memory) {
  if (!shape.moves_experts()) return std::nullopt;
  return BalanceBoard(BoardShapeOf(shape), Carve(shape, RankId(0), memory).balance);
}

uint64_t Links::HashOf(const DeploymentShape& shape) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a over numbers
  const auto add = [&hash](uint64_t number) { hash = (hash ^ number) * 0x100000001b3; };
  const layout::ParallelConfig& parallel = shape.parallel;
  for (const int64_t number : {int64_t{parallel.tensor_parallel_size},
                               int64_t{parallel.data_parallel_size},
                               int64_t{parallel.pipeline_parallel_size},
                               int64_t{parallel.enable_expert_parallel},
                               int64_t{shape.gathers_tokens()},
                               shape.num_layers,
                               int64_t{shape.has_experts},
                               int64_t{shape.num_moe_layers},
                               int64_t{shape.num_experts},
                               static_cast<int64_t>(shape.chunk_bytes),
                               static_cast<int64_t>(shape.plan_bytes),
                               static_cast<int64_t>(shape.stage_bytes),
                               shape.exchange.num_slots,
                               shape.exchange.max_tokens,
                               shape.exchange.top_k,
                               shape.exchange.hidden,
                               int64_t{static_cast<uint8_t>(shape.exchange.act)},
                               int64_t{shape.exchange.deterministic},
                               int64_t{shape.online.layer_updates_per_iter},
                               int64_t{shape.sums}}) {
    add(static_cast<uint64_t>(number));
  }
  for (const std::vector<int32_t>& layer : shape.slots.layers) {
    for (const int32_t expert : layer) add(static_cast<uint64_t>(expert));
  }
  return hash;
}

Result<std::unique_ptr<Links>> Links::Open(const DeploymentShape& shape, RankId rank,
                                           std::span<std::byte> memory) {
  if (memory.size() < NumBytes(shape)) {
    return MakeError(ErrorCode::kCorrupt, "the ranks' memory has {} bytes, expected {}",
                     memory.size(), NumBytes(shape));
  }
  const Places places = Carve(shape, rank, memory);
  MOEBIUS_ASSIGN(const Control control,
                 Control::Open(places.control, shape.num_ranks(), HashOf(shape)));
  return std::unique_ptr<Links>(new Links(shape, rank, places, control));
}

Links::Links(const DeploymentShape& shape, RankId rank, const Places& places, Control control)
    : shape_(shape),
      rank_(rank),
      place_(layout::PlaceOf(shape.parallel, rank)),
      control_(control),
      expert_counts_(places.expert_counts, shape.num_ranks(), shape.num_moe_layers,
                     shape.num_experts),
      board_(shape.moves_experts()
                 ? std::optional<BalanceBoard>(std::in_place, BoardShapeOf(shape), places.balance)
                 : std::nullopt),
      awaited_(reinterpret_cast<comm::Awaited*>(places.awaited.data()),
               static_cast<size_t>(shape.num_ranks())) {
  const layout::ParallelConfig& parallel = shape_.parallel;
  const auto info = [&](std::string name, const std::vector<RankId>& ranks) {
    comm::GroupInfo group{.name = std::move(name),
                          .world_ranks = Values(ranks),
                          .abort = &control_.abort(),
                          .num_spins = shape_.num_spins,
                          .waited_ns = &waited_ns_,
                          .awaited = awaited_};
    const auto mine = std::find(ranks.begin(), ranks.end(), rank_);
    MOEBIUS_CHECK(mine != ranks.end());
    group.rank = static_cast<int>(mine - ranks.begin());
    return group;
  };
  const auto communicator = [&](std::string name, const std::vector<RankId>& ranks,
                                std::span<std::byte> memory, size_t chunk,
                                int letters = comm::SharedCommunicator::kNumLetters) {
    return std::make_unique<comm::SharedCommunicator>(info(std::move(name), ranks), memory, chunk,
                                                      comm::RaiseHook(), letters);
  };
  std::vector<RankId> all;
  for (int r = 0; r < shape_.num_ranks(); ++r) all.emplace_back(r);
  world_ = communicator("the ranks' start", all, places.world, kWorldChunk);
  if (!places.tp.empty()) {
    tp_ = communicator("tensor parallelism", layout::TpGroup(parallel, rank_), places.tp,
                       shape_.chunk_bytes);
  }
  if (!places.pipeline.empty()) {
    pipeline_ = communicator("the pipeline", layout::PpGroup(parallel, rank_), places.pipeline,
                             shape_.chunk_bytes, StageLetters(shape_));
  }
  const std::vector<RankId> experts = layout::ExpertGroup(parallel, rank_);
  if (!places.experts.empty()) {
    experts_ = communicator("the experts' ranks", experts, places.experts, shape_.chunk_bytes);
  }
  if (shape_.gathers_tokens()) {
    exchange_ = std::make_unique<moe::AllGatherExchange>(ExchangeOf(shape_), *experts_);
  } else if (!places.exchange.empty()) {
    exchange_ = std::make_unique<moe::GroupExchange>(
        ExchangeOf(shape_), info("the experts' exchange", experts), places.exchange,
        moe::GroupExchangeOptions{.mode = shape_.exchange_mode, .hook = {}});
  }
  if (!places.lockstep.empty() && is_leader()) {
    lockstep_ = std::make_unique<Lockstep>(info("lockstep", Leaders(parallel)), places.lockstep);
  }
  if (!places.outputs.empty()) OpenOutputs(places.outputs);
  if (places.ring.empty()) return;
  comm::GroupInfo planners = info("the step ring", PlanGroup(parallel, place_.dp));
  planners.waited_ns = nullptr;
  if (is_leader()) {
    sender_ = std::make_unique<StepSender>(planners, RingOf(shape_), places.ring);
  } else {
    receiver_ = std::make_unique<StepReceiver>(planners, RingOf(shape_), places.ring);
  }
}

// Only two of the ranks use the ring.
void Links::OpenOutputs(std::span<std::byte> memory) {
  if (!draws() && !is_leader()) return;
  const std::vector<RankId> group = layout::PpGroup(shape_.parallel, rank_);
  comm::GroupInfo info{.name = "the pipeline's outputs",
                       .rank = draws() ? 0 : 1,
                       .world_ranks = {group.back().value(), group.front().value()},
                       .abort = &control_.abort(),
                       .num_spins = shape_.num_spins,
                       .waited_ns = nullptr,
                       .awaited = awaited_};
  if (draws()) {
    output_sender_ = std::make_unique<StepSender>(std::move(info), OutputRingOf(shape_), memory);
  } else {
    output_receiver_ =
        std::make_unique<StepReceiver>(std::move(info), OutputRingOf(shape_), memory);
  }
}

model::Shard Links::ShardOf(const DeploymentShape& shape, RankId rank) {
  const layout::ParallelConfig& parallel = shape.parallel;
  const layout::RankPlace place = layout::PlaceOf(parallel, rank);
  model::Shard shard;
  shard.tp = {.rank = place.tp, .size = parallel.tensor_parallel_size};
  if (shape.has_experts) {
    shard.experts = {.rank = place.flattened, .size = parallel.expert_group()};
    shard.cut_experts = shape.cuts_experts();
    if (shape.exchanges()) {
      shard.max_moe_rows = shape.exchange.max_tokens;
      shard.slots = shape.slots;
      if (shape.moves_experts()) shard.num_staging = shape.online.num_staging;
    }
  }
  shard.pipeline = {.rank = place.pp, .size = parallel.pipeline_parallel_size};
  const layout::StageLayers layers =
      layout::LayersOfStage(shape.num_layers, parallel.pipeline_parallel_size, place.pp);
  shard.first_layer = layers.begin;
  shard.end_layer = layers.end;
  shard.sums = shape.sums;
  return shard;
}

model::Shard Links::Shard() const {
  model::Shard shard = ShardOf(shape_, rank_);
  shard.tp.comm = tp_.get();
  shard.experts.comm = experts_.get();
  shard.exchange = exchange_.get();
  shard.pipeline.comm = pipeline_.get();
  if (device_ != nullptr) device_->Complete(&shard);
  return shard;
}

void Links::BeginStep(int64_t step, comm::Clock::time_point deadline) {
  deadline_ = deadline;
  for (comm::Communicator* comm : {tp_.get(), experts_.get(), pipeline_.get()}) {
    if (comm != nullptr) comm->BeginStep(step, deadline);
  }
  if (exchange_ != nullptr) exchange_->BeginStep(step, deadline);
  if (device_ != nullptr) device_->BeginStep(step, deadline);
}

Status Links::status() const {
  if (device_ != nullptr) return device_->status();
  for (const comm::Communicator* comm : {tp_.get(), experts_.get(), pipeline_.get()}) {
    if (comm != nullptr && !comm->status()) return comm->status();
  }
  if (exchange_ != nullptr) MOEBIUS_TRY(exchange_->status());
  const comm::AbortWord& abort = control_.abort();
  if (!abort.is_set()) return {};
  return MakeError(ErrorCode::kUnavailable, "the step was given up: rank {} saw a failure{}",
                   abort.seen_by(),
                   abort.culprit() < 0 ? "" : fmt::format(" of rank {}", abort.culprit()));
}

}  // namespace moebius::rank
