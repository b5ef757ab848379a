#include "rank/deployment_memory.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "model/inspect.h"
#include "moe/exchange/group_exchange.h"
#include "platform/memory_space.h"
#include "rank/links.h"
#include "rank/rank_start.h"

namespace moebius::rank {
namespace {

std::string InMebibytes(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1024 ? fmt::format("{:.1f} MiB", mib) : fmt::format("{:.1f} GiB", mib / 1024);
}

}  // namespace

uint64_t DeploymentMemory::total_weights() const {
  return std::accumulate(weight_bytes.begin(), weight_bytes.end(), uint64_t{0});
}

std::string DeploymentMemory::Describe() const {
  const std::string exchange =
      exchange_bytes > 0 ? fmt::format(" ({} the exchange)", InMebibytes(exchange_bytes)) : "";
  return fmt::format(
      "memory of {} ranks: weights {} ({} on the fullest), shared between them {}{}; {} are "
      "available, what is left is for workspace and KV",
      weight_bytes.size(), InMebibytes(total_weights()),
      InMebibytes(weight_bytes.empty() ? 0 : std::ranges::max(weight_bytes)),
      InMebibytes(shared_bytes), exchange, InMebibytes(available_bytes));
}

Result<DeploymentMemory> PlanDeployment(const RankOptions& options) {
  MOEBIUS_ASSIGN(const DeploymentShape shape, ShapeOf(options));
  DeploymentMemory memory;
  memory.shared_bytes = Links::NumBytes(shape);
  if (shape.exchanges() && !shape.gathers_tokens()) {
    moe::ExchangeShape exchange = shape.exchange;
    exchange.num_ranks = shape.parallel.expert_group();
    memory.exchange_bytes = static_cast<uint64_t>(shape.parallel.pipeline_parallel_size) *
                            moe::GroupExchange::NumBytes(exchange);
  }
  MOEBIUS_ASSIGN(memory.available_bytes, platform::HostMemory().AvailableBytes());
  memory.weight_bytes.assign(static_cast<size_t>(shape.num_ranks()), 0);
  if (!options.load.backend->on_host) return memory;
  for (int rank = 0; rank < shape.num_ranks(); ++rank) {
    model::LoadOptions part = options.load;
    part.shard = Links::ShardOf(shape, RankId(rank));
    MOEBIUS_ASSIGN(const model::Inspection inspection, model::InspectModel(part));
    memory.weight_bytes[static_cast<size_t>(rank)] = inspection.packed_bytes;
  }
  return memory;
}

Status CheckFits(const DeploymentMemory& memory, const RankOptions& options) {
  if (memory.total() <= memory.available_bytes) return {};
  return MakeError(
      ErrorCode::kOutOfMemory,
      "{} ranks need {} before any KV: {} of weights and {} that they share, expected at most the "
      "{} that are available: {}",
      memory.weight_bytes.size(), InMebibytes(memory.total()), InMebibytes(memory.total_weights()),
      InMebibytes(memory.shared_bytes), InMebibytes(memory.available_bytes),
      memory.total_weights() > memory.available_bytes
          ? "fewer data-parallel ranks hold fewer copies"
          : fmt::format("lower --max-num-batched-tokens ({}) or moe_config.max_num_tokens",
                        options.engine.max_num_batched_tokens));
}

}  // namespace moebius::rank
