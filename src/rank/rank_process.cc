#include "rank/rank_process.h"

#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <csignal>
#include <memory>
#include <span>
#include <utility>
#include <variant>

#include "base/log.h"
#include "comm/lost_time.h"
#include "platform/shared_memory.h"
#include "rank/engine_messages.h"
#include "rank/engine_server.h"
#include "rank/follower.h"
#include "rank/frame_socket.h"
#include "rank/rank_start.h"

namespace moebius::rank {
namespace {

constexpr int kUsage = 2;
constexpr int kFirstErrorStatus = 16;

std::optional<int> NumberOf(const std::string& text) {
  int number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Until the deployment ends.
Status Work(FrameSocket& socket, Links& links, StartedRank rank) {
  if (rank.engine != nullptr) return ServeEngine(socket, std::move(rank.engine));
  if (rank.device_follower != nullptr) {
    return Follow(links, *rank.device_follower, rank.limits, rank.balance.get());
  }
  return Follow(links, *rank.executor, rank.limits, rank.balance.get());
}

Status Run(FrameSocket& socket, std::span<std::byte> memory, StartMessage& start) {
  RankOptions& options = start.options;
  if (start.observes_steps) {
    options.engine.on_step = [&socket](const engine::StepRecord& record) {
      socket.Send(EncodeStep(record));
    };
  }
  MOEBIUS_ASSIGN(const DeploymentShape shape, ShapeOf(options));
  MOEBIUS_ASSIGN(std::unique_ptr<Links> links, Links::Open(shape, RankId(start.rank), memory));
  MOEBIUS_ASSIGN(StartedRank rank, StartRank(*links, options));
  Status status = Work(socket, *links, std::move(rank));
  if (status) return {};
  // Peers hear of it at once. What this rank's GPU still runs may wait for them: it goes, with all
  // its memory, with the process.
  links->control().abort().Set(start.rank, start.rank);
  [[maybe_unused]] static const Links* const kept = links.release();
  return status;
}

Status RunRank(int rank) {
  MOEBIUS_ASSIGN(const platform::SharedMemory memory, platform::SharedMemory::Open(kRankMemory));
  FrameSocket socket(kRankSocket);
  MOEBIUS_ASSIGN(const std::string frame, socket.Receive());
  MOEBIUS_ASSIGN(ToRank message, DecodeToRank(frame));
  auto* start = std::get_if<StartMessage>(&message);
  if (start == nullptr || start->rank != rank) {
    return MakeError(ErrorCode::kCorrupt, "the first message is not the start of rank {}", rank);
  }
  SetLogLevel(start->log_level);
  MOEBIUS_ASSIGN(
      const Control control,
      Control::Open(memory.bytes(), start->options.parallel.num_gpus(), start->layout_hash));
  control.Enter(rank, getpid());
  const comm::Pulse heartbeat([&] { control.Beat(rank); });  // as long as it is not stopped
  const Status status = Run(socket, memory.bytes(), *start);
  if (status) {
    control.SetState(rank, RankState::kStopped);
  } else {
    control.SetError(rank, status.error().message());
    control.SetState(rank, RankState::kFailed);
    control.abort().Set(rank, rank);
  }
  return status;
}

}  // namespace

int ExitStatusOf(ErrorCode code) { return kFirstErrorStatus + static_cast<int>(code); }

std::optional<ErrorCode> CodeOfExitStatus(int status) {
  const int code = status - kFirstErrorStatus;
  if (code < 0 || code > static_cast<int>(ErrorCode::kInternal)) return std::nullopt;
  return static_cast<ErrorCode>(code);
}

int RankProcessMain(const std::vector<std::string>& args) {
  const std::optional<int> rank = args.size() == 3 ? NumberOf(args[1]) : std::nullopt;
  const std::optional<int> parent = args.size() == 3 ? NumberOf(args[2]) : std::nullopt;
  if (!rank || !parent) {
    LogError("{} is what a deployment starts for each rank; it is not for users",
             kRankProcessCommand);
    return kUsage;
  }
  // A parent that died before this was set is not there any more.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != *parent) {
    LogError("rank {}: process {} is not the parent", *rank, *parent);
    return kUsage;
  }
  const Status status = RunRank(*rank);
  if (status) return 0;
  LogDebug("rank {}: {}", *rank, status.error().message());
  return ExitStatusOf(status.error().code());
}

}  // namespace moebius::rank
