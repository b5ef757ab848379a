#include "rank/thread_ranks.h"

#include <pthread.h>
#include <unistd.h>

#include <future>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/log.h"
#include "comm/lost_time.h"
#include "platform/memory.h"
#include "rank/data_parallel_client.h"
#include "rank/follower.h"
#include "rank/placement_watch.h"
#include "rank/rank_loads.h"
#include "rank/rank_start.h"

namespace moebius::rank {
namespace {

// One rank: its links, and where it follows, its thread.
struct ThreadRank {
  std::unique_ptr<Links> links;
  std::thread follower;
};

class ThreadRanks final : public engine::EngineClient {
 public:
  ThreadRanks(platform::Region memory, std::vector<ThreadRank> ranks,
              std::unique_ptr<DataParallelClient> engines)
      : memory_(std::move(memory)), ranks_(std::move(ranks)), engines_(std::move(engines)) {}

  ~ThreadRanks() override {
    engines_.reset();  // tells the followers of the end, too
    for (ThreadRank& rank : ranks_) {
      if (rank.follower.joinable()) rank.follower.join();
    }
  }

  const engine::EngineLimits& limits() const override { return engines_->limits(); }
  Result<engine::RequestId> Submit(engine::RequestInput input, engine::TokenSink sink) override {
    return engines_->Submit(std::move(input), std::move(sink));
  }
  void Cancel(engine::RequestId request, engine::FinishReason reason) override {
    engines_->Cancel(request, reason);
  }
  engine::EngineStats Stats() const override { return engines_->Stats(); }
  // Of followers, too: each rank counts what it routes.
  moe::ExpertStats ExpertLoad() const override {
    return ranks_.front().links->expert_counts().Sum();
  }
  std::vector<moe::ExpertStats> ExpertLoadByRank() const override {
    return ranks_.front().links->expert_counts().OfEach();
  }
  std::vector<engine::RankLoad> RankLoads() const override {
    const Links& links = *ranks_.front().links;
    return ReadLoads(links.control(), links.shape());
  }
  moe::PlacementState Placement() const override {
    const Links& links = *ranks_.front().links;
    return PlacementWatch(links.shape().slots, links.board()).Read();
  }
  // Engines that are idle have not met what a follower has.
  Status Health() const override {
    MOEBIUS_TRY(engines_->Health());
    const comm::AbortWord& abort = ranks_.front().links->control().abort();
    if (!abort.is_set()) return {};
    return MakeError(ErrorCode::kUnavailable, "rank {} saw a failure of rank {}", abort.seen_by(),
                     abort.culprit());
  }

 private:
  const comm::Pulse pulse_;
  platform::Region memory_;
  std::vector<ThreadRank> ranks_;
  std::unique_ptr<DataParallelClient> engines_;
};

// A follower's life; a leader only starts, and its engine has threads of its own.
void RunRank(Links& links, const RankOptions& options, std::promise<Result<StartedRank>> started) {
  pthread_setname_np(pthread_self(), fmt::format("rank {}", links.rank().value()).c_str());
  links.control().Enter(links.rank().value(), getpid());
  Result<StartedRank> rank = StartRank(links, options);
  if (!rank || (rank->executor == nullptr && rank->device_follower == nullptr)) {
    started.set_value(std::move(rank));
    return;
  }
  const std::unique_ptr<engine::StepExecutor> executor = std::move(rank->executor);
  const std::unique_ptr<engine::DeviceFollower> follower = std::move(rank->device_follower);
  const std::unique_ptr<BalanceAgent> balance = std::move(rank->balance);
  const engine::PlanLimits limits = rank->limits;
  started.set_value(std::move(rank));
  const Status status = follower != nullptr ? Follow(links, *follower, limits, balance.get())
                                            : Follow(links, *executor, limits, balance.get());
  if (!status) LogError("rank {}: {}", links.rank().value(), status.error().message());
}

}  // namespace

Result<std::unique_ptr<engine::EngineClient>> StartThreadRanks(const RankOptions& wishes) {
  RankOptions options = wishes;
  if (wishes.engine.on_step) {
    options.engine.on_step = [observer = wishes.engine.on_step,
                              mutex = std::make_shared<std::mutex>()](const auto& record) {
      const std::lock_guard lock(*mutex);
      observer(record);
    };
  }
  MOEBIUS_ASSIGN(const DeploymentShape shape, ShapeOf(options));
  platform::RegionOptions small_pages;
  small_pages.huge_pages = false;
  MOEBIUS_ASSIGN(platform::Region memory,
                 platform::Region::Allocate(Links::NumBytes(shape), small_pages));
  const std::span<std::byte> bytes(memory.data(), memory.size());
  Control::Create(bytes, shape.num_ranks(), Links::HashOf(shape));

  std::vector<ThreadRank> ranks(static_cast<size_t>(shape.num_ranks()));
  std::vector<std::future<Result<StartedRank>>> starts;
  for (int r = 0; r < shape.num_ranks(); ++r) {
    ThreadRank& rank = ranks[static_cast<size_t>(r)];
    MOEBIUS_ASSIGN(rank.links, Links::Open(shape, RankId(r), bytes));
  }
  for (ThreadRank& rank : ranks) {
    std::promise<Result<StartedRank>> started;
    starts.push_back(started.get_future());
    rank.follower =
        std::thread([links = rank.links.get(), options, promise = std::move(started)]() mutable {
          RunRank(*links, options, std::move(promise));
        });
  }
  Status status;
  std::vector<std::unique_ptr<engine::EngineClient>> engines;
  for (size_t r = 0; r < starts.size(); ++r) {
    Result<StartedRank> rank = starts[r].get();
    if (!rank) {
      // The first one; but those that only heard of another's failure do not say what it was.
      if (status || (status.error().code() == ErrorCode::kUnavailable &&
                     rank.error().code() != ErrorCode::kUnavailable)) {
        status = tl::unexpected(rank.error().WithContext(fmt::format("rank {}", r)));
      }
    } else if (rank->engine != nullptr) {
      engines.push_back(std::move(rank->engine));
    }
  }
  std::unique_ptr<DataParallelClient> client;
  if (status) {
    auto made = DataParallelClient::Create(
        std::move(engines), {.block_size = options.engine.block_size,
                             .enable_prefix_caching = options.engine.enable_prefix_caching});
    if (made) {
      client = std::move(*made);
    } else {
      status = tl::unexpected(made.error());
    }
  }
  if (!status) {
    Control::Open(bytes, shape.num_ranks(), Links::HashOf(shape))->abort().Set(-1, -1);
    engines.clear();
    for (ThreadRank& rank : ranks) rank.follower.join();
    return tl::unexpected(status.error());
  }
  return std::make_unique<ThreadRanks>(std::move(memory), std::move(ranks), std::move(client));
}

}  // namespace moebius::rank
