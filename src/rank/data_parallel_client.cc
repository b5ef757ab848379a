#include "rank/data_parallel_client.h"

#include <algorithm>
#include <limits>
#include <thread>
#include <utility>

namespace moebius::rank {
namespace {

using engine::EngineClient;
using engine::EngineLimits;
using engine::RequestId;
using engine::RequestInput;
using engine::TokenEvent;

int64_t SaturatingSum(int64_t a, int64_t b) {
  return a > std::numeric_limits<int64_t>::max() - b ? std::numeric_limits<int64_t>::max() : a + b;
}

Result<EngineLimits> JointLimits(const std::vector<std::unique_ptr<EngineClient>>& engines) {
  if (engines.empty()) {
    return MakeError(ErrorCode::kInvalidArgument,
                     "there are 0 data-parallel ranks, expected at least 1");
  }
  EngineLimits joint = engines[0]->limits();
  for (size_t rank = 1; rank < engines.size(); ++rank) {
    const EngineLimits& limits = engines[rank]->limits();
    if (limits.vocab_size != joint.vocab_size || limits.eos_token_ids != joint.eos_token_ids) {
      return MakeError(ErrorCode::kInvalidArgument,
                       "data-parallel rank {} has a vocabulary of {} and {} end tokens, expected "
                       "those of rank 0, which has {} and {}: they serve different models",
                       rank, limits.vocab_size, limits.eos_token_ids.size(), joint.vocab_size,
                       joint.eos_token_ids.size());
    }
    joint.max_model_len = std::min(joint.max_model_len, limits.max_model_len);
    joint.max_num_seqs = SaturatingSum(joint.max_num_seqs, limits.max_num_seqs);
    joint.max_num_waiting = SaturatingSum(joint.max_num_waiting, limits.max_num_waiting);
  }
  joint.data_parallel_size = static_cast<int64_t>(engines.size());
  return joint;
}

}  // namespace

// A request under way. Submit writes `rank` and `load` before an engine has it; then both are read,
// and `load` written, by that engine's thread.
struct DataParallelClient::Live {
  Live(RoutedRequest routed_request, engine::TokenSink users_sink)
      : routed(std::move(routed_request)),
        output(routed.chain.Continuation()),
        sink(std::move(users_sink)) {}

  const RoutedRequest routed;
  int rank = 0;
  RankBacklog load;  // that still counts

  // The engine thread's own.
  BlockChain output;
  bool has_tokens = false;
  const engine::TokenSink sink;
};

Result<std::unique_ptr<DataParallelClient>> DataParallelClient::Create(
    std::vector<std::unique_ptr<EngineClient>> engines, const DataParallelOptions& options) {
  if (options.block_size < 1) {
    return MakeError(ErrorCode::kInvalidArgument, "block_size is {}, expected at least 1 token",
                     options.block_size);
  }
  MOEBIUS_ASSIGN(EngineLimits limits, JointLimits(engines));
  RankChoiceOptions choice;
  choice.num_ranks = static_cast<int>(engines.size());
  choice.block_size = options.block_size;
  int64_t max_blocks = 0;
  for (const auto& engine : engines) {
    max_blocks = std::max(max_blocks, engine->Stats().num_kv_blocks);
  }
  // An engine that does not say has as many as any.
  if (max_blocks > 0) choice.max_blocks = max_blocks;
  if (!options.enable_prefix_caching) choice.max_blocks = 0;
  return std::unique_ptr<DataParallelClient>(
      new DataParallelClient(std::move(engines), std::move(limits), choice));
}

DataParallelClient::DataParallelClient(std::vector<std::unique_ptr<EngineClient>> engines,
                                       EngineLimits limits, const RankChoiceOptions& options)
    : limits_(std::move(limits)),
      block_size_(options.block_size),
      choice_(options),
      engines_(std::move(engines)) {}

DataParallelClient::~DataParallelClient() {
  {
    const std::unique_lock lock(stopping_mutex_);
    is_stopping_ = true;
  }
  // At once: ranks that share steps end together or not at all.
  std::vector<std::thread> ends;
  for (auto& engine : engines_) ends.emplace_back([&engine] { engine.reset(); });
  for (std::thread& end : ends) end.join();
}

Result<RequestId> DataParallelClient::Submit(RequestInput input, engine::TokenSink sink) {
  MOEBIUS_TRY(engine::Validate(input, limits_));
  const std::shared_lock not_stopping(stopping_mutex_);
  if (is_stopping_) return MakeError(ErrorCode::kUnavailable, "the engines are shutting down");
  const std::optional<int> wish = std::exchange(input.data_parallel_rank, std::nullopt);
  const auto live = std::make_shared<Live>(RoutedRequest(input, block_size_), std::move(sink));
  std::vector<int> ranks;
  std::optional<Error> refusal;
  for (size_t i = 0; i == 0 || i < ranks.size(); ++i) {
    {
      // One step, so that requests that come together see each other.
      const std::lock_guard lock(mutex_);
      if (i == 0) ranks = wish ? std::vector<int>{*wish} : choice_.Order(live->routed);
      live->rank = ranks[i];
      live->load = choice_.Assign(live->rank, live->routed);
    }
    auto id = SubmitTo(ranks[i], input, live);
    if (id || id.error().code() != ErrorCode::kUnavailable) return id;
    if (!refusal) refusal = id.error().WithContext(fmt::format("data-parallel rank {}", ranks[i]));
  }
  if (ranks.size() == 1) return tl::unexpected(*refusal);
  return tl::unexpected(refusal->WithContext(
      fmt::format("none of the {} data-parallel ranks is available", ranks.size())));
}

// The request counts on `rank` already; refused, no longer.
Result<RequestId> DataParallelClient::SubmitTo(int rank, const RequestInput& input,
                                               const std::shared_ptr<Live>& live) {
  const auto id = engines_[static_cast<size_t>(rank)]->Submit(
      input, [this, live](const TokenEvent& event) { OnEvent(*live, event); });
  const std::lock_guard lock(mutex_);
  if (!id) {
    choice_.Remove(rank, live->load);
    return tl::unexpected(id.error());
  }
  choice_.Remember(rank, live->routed.chain.blocks());
  return IdOf(rank, *id);
}

void DataParallelClient::OnEvent(Live& live, const TokenEvent& event) {
  live.output.Append(event.tokens);
  const bool is_first = !event.tokens.empty() && !std::exchange(live.has_tokens, true);
  // Before the user hears of it: what they submit next is chosen with that known.
  if (is_first || event.finish) Count(live, event.finish.has_value());
  TokenEvent own = event;
  own.request = IdOf(live.rank, event.request);
  live.sink(own);
}

// The first tokens: the prompt is computed. The end: nothing is left to do, and what was drawn is
// cached behind the prompt for the conversation's next turn.
void DataParallelClient::Count(Live& live, bool has_ended) {
  const std::lock_guard lock(mutex_);
  if (!has_ended) {
    choice_.Remove(live.rank, {0, std::exchange(live.load.num_prompt_tokens, 0), 0});
    return;
  }
  choice_.Remove(live.rank, std::exchange(live.load, {}));
  if (!live.has_tokens) return;
  // In this order: what comes later in a chain is forgotten first.
  choice_.Remember(live.rank, live.output.blocks());
  choice_.Remember(live.rank, live.routed.chain.blocks());
}

void DataParallelClient::Cancel(RequestId request, engine::FinishReason reason) {
  if (!request.valid()) return;
  const std::shared_lock not_stopping(stopping_mutex_);
  if (is_stopping_) return;
  const int64_t num_ranks = limits_.data_parallel_size;
  engines_[static_cast<size_t>(request.value() % num_ranks)]->Cancel(
      RequestId(request.value() / num_ranks), reason);
}

RequestId DataParallelClient::IdOf(int rank, RequestId id) const {
  return RequestId(id.value() * limits_.data_parallel_size + rank);
}

std::vector<engine::EngineStats> DataParallelClient::RankStats() const {
  std::vector<engine::EngineStats> stats;
  stats.reserve(engines_.size());
  for (const auto& engine : engines_) stats.push_back(engine->Stats());
  return stats;
}

std::vector<RankBacklog> DataParallelClient::Backlogs() const {
  const std::lock_guard lock(mutex_);
  return choice_.loads();
}

engine::EngineStats DataParallelClient::Stats() const {
  engine::EngineStats total = engines_[0]->Stats();
  for (size_t rank = 1; rank < engines_.size(); ++rank) {
    engine::Add(engines_[rank]->Stats(), &total);
  }
  return total;
}

moe::ExpertStats DataParallelClient::ExpertLoad() const {
  moe::ExpertStats total = engines_[0]->ExpertLoad();
  for (size_t rank = 1; rank < engines_.size(); ++rank) total.Add(engines_[rank]->ExpertLoad());
  return total;
}

std::vector<moe::ExpertStats> DataParallelClient::ExpertLoadByRank() const {
  std::vector<moe::ExpertStats> all;
  for (const auto& engine : engines_) {
    for (moe::ExpertStats& stats : engine->ExpertLoadByRank()) all.push_back(std::move(stats));
  }
  return all;
}

std::vector<engine::RankLoad> DataParallelClient::RankLoads() const {
  std::vector<engine::RankLoad> all;
  for (size_t dp = 0; dp < engines_.size(); ++dp) {
    for (engine::RankLoad load : engines_[dp]->RankLoads()) {
      load.rank = static_cast<int>(all.size());
      load.dp = static_cast<int>(dp);
      load.expert_rank = -1;  // each engine has all experts
      all.push_back(load);
    }
  }
  return all;
}

Status DataParallelClient::Health() const {
  for (size_t rank = 0; rank < engines_.size(); ++rank) {
    if (const Status health = engines_[rank]->Health(); !health) {
      return tl::unexpected(health.error().WithContext(fmt::format("data-parallel rank {}", rank)));
    }
  }
  return {};
}

}  // namespace moebius::rank
