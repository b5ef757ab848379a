#include "rank/control.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/check.h"
#include "rank/shared_text.h"

namespace moebius::rank {
namespace {

using comm::Clock;

constexpr uint64_t kMagic = 0x3130'4c54'434d'424d;  // "MBMCTL01"
static_assert(kMaxErrorBytes == SharedText::kMaxBytes);

int64_t Nanoseconds(Clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
}

}  // namespace

struct Control::Head {
  std::atomic<uint64_t> magic;
  uint64_t layout_hash;
  uint64_t num_ranks;
  uint64_t cell_bytes;
  int64_t created_ns;
  comm::AbortWord abort;
};

struct alignas(64) Control::Cell {
  std::atomic<int64_t> heartbeat_ns;
  std::atomic<int64_t> num_steps;  // the last one's number + 1: memory begins as zeros
  std::atomic<uint32_t> state;
  std::atomic<int32_t> pid;
  std::atomic<int64_t> weight_bytes;
  std::atomic<int64_t> workspace_bytes;
  std::atomic<int64_t> kv_bytes;
  alignas(64) engine::RankCounters counters;
  SharedText error;
};

const char* RankStateName(RankState state) {
  switch (state) {
    case RankState::kStarting:
      return "starting";
    case RankState::kLoading:
      return "loading";
    case RankState::kReady:
      return "ready";
    case RankState::kServing:
      return "serving";
    case RankState::kStopped:
      return "stopped";
    case RankState::kFailed:
      return "failed";
  }
  return "unknown";
}

size_t Control::NumBytes(int num_ranks) {
  return sizeof(Head) + static_cast<size_t>(num_ranks) * sizeof(Cell);
}

Control::Head& Control::head() const { return *reinterpret_cast<Head*>(memory_); }

Control::Cell& Control::CellOf(int rank) const {
  MOEBIUS_CHECK(rank >= 0 && rank < num_ranks_);
  return reinterpret_cast<Cell*>(memory_ + sizeof(Head))[rank];
}

Control Control::Create(std::span<std::byte> memory, int num_ranks, uint64_t layout_hash) {
  MOEBIUS_CHECK_GE(memory.size(), NumBytes(num_ranks));
  MOEBIUS_CHECK_EQ(reinterpret_cast<uintptr_t>(memory.data()) % alignof(Head), uintptr_t{0});
  const Control control(memory.data(), num_ranks);
  Head& head = control.head();
  head.layout_hash = layout_hash;
  head.num_ranks = static_cast<uint64_t>(num_ranks);
  head.cell_bytes = sizeof(Cell);
  head.created_ns = Nanoseconds(Clock::now());
  head.magic.store(kMagic, std::memory_order_release);
  return control;
}

Result<Control> Control::Open(std::span<std::byte> memory, int num_ranks, uint64_t layout_hash) {
  const auto wrong = [](const char* what, uint64_t found, uint64_t expected) {
    return MakeError(ErrorCode::kCorrupt, "shared memory: {} is {:#x}, expected {:#x}", what, found,
                     expected);
  };
  if (memory.size() < NumBytes(num_ranks)) {
    return MakeError(ErrorCode::kCorrupt, "shared memory: {} bytes, expected {} for {} ranks",
                     memory.size(), NumBytes(num_ranks), num_ranks);
  }
  const Control control(memory.data(), num_ranks);
  const Head& head = control.head();
  const uint64_t magic = head.magic.load(std::memory_order_acquire);
  if (magic != kMagic) return wrong("magic", magic, kMagic);
  if (head.layout_hash != layout_hash) return wrong("layout hash", head.layout_hash, layout_hash);
  if (head.num_ranks != static_cast<uint64_t>(num_ranks)) {
    return wrong("number of ranks", head.num_ranks, static_cast<uint64_t>(num_ranks));
  }
  if (head.cell_bytes != sizeof(Cell)) {
    return wrong("size of a rank's cell", head.cell_bytes, sizeof(Cell));
  }
  return control;
}

comm::AbortWord& Control::abort() const { return head().abort; }

Clock::time_point Control::created() const {
  return Clock::time_point(std::chrono::nanoseconds(head().created_ns));
}

void Control::Enter(int rank, int32_t pid) const {
  CellOf(rank).pid.store(pid, std::memory_order_release);
  Beat(rank);
}

void Control::SetState(int rank, RankState state) const {
  CellOf(rank).state.store(static_cast<uint32_t>(state), std::memory_order_release);
}

void Control::SetStep(int rank, int64_t step) const {
  CellOf(rank).num_steps.store(step + 1, std::memory_order_release);
}

void Control::Beat(int rank) const {
  CellOf(rank).heartbeat_ns.store(Nanoseconds(Clock::now()), std::memory_order_release);
}

void Control::SetError(int rank, std::string_view text) const { CellOf(rank).error.Set(text); }

engine::RankCounters& Control::Counters(int rank) const { return CellOf(rank).counters; }

void Control::SetMemory(int rank, const engine::RankMemory& memory) const {
  Cell& cell = CellOf(rank);
  cell.weight_bytes.store(memory.weight_bytes, std::memory_order_relaxed);
  cell.workspace_bytes.store(memory.workspace_bytes, std::memory_order_relaxed);
  cell.kv_bytes.store(memory.kv_bytes, std::memory_order_relaxed);
}

engine::RankMemory Control::Memory(int rank) const {
  const Cell& cell = CellOf(rank);
  return {.weight_bytes = cell.weight_bytes.load(std::memory_order_relaxed),
          .workspace_bytes = cell.workspace_bytes.load(std::memory_order_relaxed),
          .kv_bytes = cell.kv_bytes.load(std::memory_order_relaxed)};
}

RankReport Control::Read(int rank) const {
  const Cell& cell = CellOf(rank);
  // The state first: who sees a rank failed sees why.
  const auto state = static_cast<RankState>(cell.state.load(std::memory_order_acquire));
  return {.state = state,
          .pid = cell.pid.load(std::memory_order_acquire),
          .step = cell.num_steps.load(std::memory_order_acquire) - 1,
          .heartbeat_ns = cell.heartbeat_ns.load(std::memory_order_acquire),
          .error = cell.error.Get()};
}

std::vector<RankReport> Control::ReadAll() const {
  std::vector<RankReport> reports;
  for (int rank = 0; rank < num_ranks_; ++rank) reports.push_back(Read(rank));
  return reports;
}

std::vector<SilentRank> FindSilent(std::span<const RankReport> reports, Clock::time_point created,
                                   Clock::time_point awake, Clock::time_point now,
                                   const SilenceBounds& bounds) {
  std::vector<SilentRank> silent;
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    const RankReport& report = reports[rank];
    if (report.state == RankState::kStopped || report.state == RankState::kFailed) continue;
    const bool has_beaten = report.heartbeat_ns != 0;
    const int64_t since = has_beaten ? report.heartbeat_ns : Nanoseconds(created);
    const std::chrono::nanoseconds silence(Nanoseconds(now) - std::max(since, Nanoseconds(awake)));
    if (silence > (has_beaten ? bounds.silence : bounds.start)) {
      silent.push_back({static_cast<int>(rank), silence});
    }
  }
  std::ranges::sort(silent, std::ranges::greater(), &SilentRank::silence);
  return silent;
}

}  // namespace moebius::rank
