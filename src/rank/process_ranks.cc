#include "rank/process_ranks.h"

#include <unistd.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

#include "base/log.h"
#include "platform/shared_memory.h"
#include "rank/data_parallel_client.h"
#include "rank/engine_messages.h"
#include "rank/frame_socket.h"
#include "rank/placement_watch.h"
#include "rank/rank_loads.h"
#include "rank/rank_start.h"
#include "rank/rank_watch.h"
#include "rank/remote_engine.h"

namespace moebius::rank {
namespace {

// How long a request whose leader is gone waits to be told why.
constexpr auto kPatience = std::chrono::seconds(1);

LogLevel CurrentLogLevel() {
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarning}) {
    if (LogEnabled(level)) return level;
  }
  return LogEnabled(LogLevel::kError) ? LogLevel::kError : LogLevel::kOff;
}

}  // namespace

class ProcessRanks::Impl {
 public:
  Impl(const RankOptions& options, const ProcessOptions& process, const DeploymentShape& shape,
       platform::SharedMemory memory, Control control)
      : options_(options),
        process_(process),
        shape_(shape),
        memory_(std::move(memory)),
        placement_(shape_.slots, Links::BoardIn(shape_, memory_.bytes())),
        control_(control),
        engines_(static_cast<size_t>(shape.num_ranks()), nullptr),
        slow_ranks_(shape.steps_together(), process.slow) {}

  ~Impl() {
    if (watch_) watch_->Stop();
    {
      const std::lock_guard lock(mutex_);
      engines_.assign(engines_.size(), nullptr);
    }
    owned_.clear();
    client_.reset();
    watch_.reset();
  }

  Status Start();
  engine::EngineClient& client() { return *client_; }
  const engine::EngineClient& client() const { return *client_; }
  const Control& control() const { return control_; }
  ExpertCounts expert_counts() const { return Links::ExpertCountsIn(shape_, memory_.bytes()); }
  moe::PlacementState Placement() const { return placement_.Read(); }
  std::vector<engine::RankLoad> Loads() const { return ReadLoads(control_, shape_); }

  Status Health() const {
    {
      const std::lock_guard lock(mutex_);
      if (failure_) return tl::unexpected(*failure_);
    }
    return client_->Health();
  }

 private:
  Status Connect(std::vector<int>* sockets);
  Status WaitUntilReady();
  bool AreAllReady() const;
  StartMessage StartOf(int rank) const;
  engine::StepObserver Observer();
  Status HealthOf(int rank) const;
  void OnFailure(const Error& error);
  void NameSlowRanks();

  const RankOptions options_;
  const ProcessOptions process_;
  const DeploymentShape shape_;
  const platform::SharedMemory memory_;
  PlacementWatch placement_;
  const Control control_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Error> failure_;
  std::vector<RemoteEngine*> engines_;  // by rank; null: a follower's, or they are being destroyed

  std::mutex step_mutex_;                                     // of options_.engine.on_step
  std::vector<std::unique_ptr<engine::EngineClient>> owned_;  // until client_ takes them
  std::unique_ptr<DataParallelClient> client_;
  SlowRanks slow_ranks_;  // the watch's
  std::optional<RankWatch> watch_;
};

Status ProcessRanks::Impl::Start() {
  std::vector<int> sockets;
  Status connected = Connect(&sockets);
  if (!connected) {
    for (const int socket : sockets) close(socket);
    return connected;
  }
  watch_.emplace(WatchOptions{.program = process_.program,
                              .trace = options_.engine.trace.descriptor,
                              .silence = process_.silence,
                              .grace = process_.grace,
                              .stop_timeout = process_.stop_timeout,
                              .health = [this](int rank) { return HealthOf(rank); },
                              .on_failure = [this](const Error& error) { OnFailure(error); },
                              .on_look = [this] { NameSlowRanks(); }},
                 control_, std::move(sockets), memory_.descriptor());
  MOEBIUS_TRY(WaitUntilReady());
  MOEBIUS_ASSIGN(client_, DataParallelClient::Create(
                              std::move(owned_),
                              {.block_size = options_.engine.block_size,
                               .enable_prefix_caching = options_.engine.enable_prefix_caching}));
  LogInfo("{} ranks are ready", shape_.num_ranks());
  return {};
}

// A socket pair for each rank, and on it the start.
Status ProcessRanks::Impl::Connect(std::vector<int>* sockets) {
  for (int rank = 0; rank < shape_.num_ranks(); ++rank) {
    MOEBIUS_ASSIGN(const auto ends, FrameSocket::Pair());
    sockets->push_back(ends.second);
    auto socket = std::make_unique<FrameSocket>(ends.first);
    socket->Send(Encode(StartOf(rank)));
    const layout::RankPlace place = layout::PlaceOf(options_.parallel, RankId(rank));
    if (place.tp != 0 || place.pp != 0) continue;  // a follower needs no more
    const auto on_ready = [this] {
      const std::lock_guard lock(mutex_);
      changed_.notify_all();
    };
    auto engine = std::make_unique<RemoteEngine>(
        std::move(socket), RemoteEngine::Options{Observer(), on_ready, kPatience});
    const std::lock_guard lock(mutex_);
    engines_[static_cast<size_t>(rank)] = engine.get();
    owned_.push_back(std::move(engine));
  }
  return {};
}

StartMessage ProcessRanks::Impl::StartOf(int rank) const {
  return {.rank = rank,
          .options = options_,
          .layout_hash = Links::HashOf(shape_),
          .observes_steps = static_cast<bool>(options_.engine.on_step),
          .log_level = CurrentLogLevel()};
}

engine::StepObserver ProcessRanks::Impl::Observer() {
  if (!options_.engine.on_step) return {};
  return [this](engine::StepRecord record) {
    const std::lock_guard lock(step_mutex_);
    record.placement = placement_.Of(record.epoch);
    options_.engine.on_step(record);
  };
}

Status ProcessRanks::Impl::WaitUntilReady() {
  constexpr auto kPeriod = std::chrono::milliseconds(20);  // followers say it in their cells
  std::unique_lock lock(mutex_);
  while (!failure_ && !AreAllReady()) {
    changed_.wait_for(lock, kPeriod);
    watch_->EndStuckStart();
  }
  if (failure_) return tl::unexpected(*failure_);
  return {};
}

bool ProcessRanks::Impl::AreAllReady() const {
  for (int rank = 0; rank < shape_.num_ranks(); ++rank) {
    if (control_.Read(rank).state != RankState::kReady) return false;
    const RemoteEngine* engine = engines_[static_cast<size_t>(rank)];
    if (engine != nullptr && !engine->is_ready()) return false;
  }
  return true;
}

Status ProcessRanks::Impl::HealthOf(int rank) const {
  const std::lock_guard lock(mutex_);
  const RemoteEngine* engine = engines_[static_cast<size_t>(rank)];
  return engine != nullptr ? engine->Health() : Status();
}

void ProcessRanks::Impl::OnFailure(const Error& error) {
  const std::lock_guard lock(mutex_);
  failure_ = error;
  for (RemoteEngine* engine : engines_) {
    if (engine != nullptr) engine->Fail(error);
  }
  changed_.notify_all();
}

void ProcessRanks::Impl::NameSlowRanks() {
  for (const SlowRank& slow : slow_ranks_.Look(Loads(), comm::Clock::now())) {
    LogWarning("{}", slow.Describe());
  }
}

ProcessRanks::ProcessRanks(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ProcessRanks::~ProcessRanks() = default;

Result<std::unique_ptr<ProcessRanks>> ProcessRanks::Start(const RankOptions& options,
                                                          const ProcessOptions& process) {
  MOEBIUS_ASSIGN(const DeploymentShape shape, ShapeOf(options));
  MOEBIUS_ASSIGN(platform::SharedMemory memory,
                 platform::SharedMemory::Create("moebius ranks", Links::NumBytes(shape)));
  const Control control = Control::Create(memory.bytes(), shape.num_ranks(), Links::HashOf(shape));
  auto impl = std::make_unique<Impl>(options, process, shape, std::move(memory), control);
  MOEBIUS_TRY(impl->Start());
  return std::unique_ptr<ProcessRanks>(new ProcessRanks(std::move(impl)));
}

const engine::EngineLimits& ProcessRanks::limits() const { return impl_->client().limits(); }
Result<engine::RequestId> ProcessRanks::Submit(engine::RequestInput input, engine::TokenSink sink) {
  return impl_->client().Submit(std::move(input), std::move(sink));
}
void ProcessRanks::Cancel(engine::RequestId request, engine::FinishReason reason) {
  impl_->client().Cancel(request, reason);
}
engine::EngineStats ProcessRanks::Stats() const { return impl_->client().Stats(); }
// Of followers, too: each rank counts what it routes.
moe::ExpertStats ProcessRanks::ExpertLoad() const { return impl_->expert_counts().Sum(); }
std::vector<moe::ExpertStats> ProcessRanks::ExpertLoadByRank() const {
  return impl_->expert_counts().OfEach();
}
std::vector<engine::RankLoad> ProcessRanks::RankLoads() const { return impl_->Loads(); }
moe::PlacementState ProcessRanks::Placement() const { return impl_->Placement(); }
Status ProcessRanks::Health() const { return impl_->Health(); }
std::vector<RankReport> ProcessRanks::Reports() const { return impl_->control().ReadAll(); }

}  // namespace moebius::rank
