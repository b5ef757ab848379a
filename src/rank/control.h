// The head of a deployment's shared memory: who everybody is, the word that ends all waits, and a
// cell for each rank, in which it says how it is. Whoever starts the ranks makes it and watches;
// each rank opens it and writes its own cell.
//
// A Control is a view of memory that it does not own: copy it freely. Writers of one cell are the
// threads of its rank: SetError one at a time, the rest any; readers may be any thread of any
// process.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "comm/lost_time.h"
#include "comm/signal.h"
#include "engine/rank_load.h"

namespace moebius::rank {

enum class RankState : uint32_t { kStarting, kLoading, kReady, kServing, kStopped, kFailed };
const char* RankStateName(RankState state);  // "starting", "loading", ...

constexpr size_t kMaxErrorBytes = 504;  // of a rank's text; more is cut off

// A cell, as it was a moment ago.
struct RankReport {
  RankState state = RankState::kStarting;
  int32_t pid = 0;           // 0: it has not come up yet
  int64_t step = -1;         // the last one that it finished
  int64_t heartbeat_ns = 0;  // comm::Clock, which all processes of a machine share; 0: none yet
  std::string error;         // the last one; empty: none
};

class Control {
 public:
  static size_t NumBytes(int num_ranks);

  // memory: NumBytes(num_ranks) bytes of zeros at a multiple of 64. layout_hash: of all that the
  // ranks must have in common for their memory to mean the same.
  static Control Create(std::span<std::byte> memory, int num_ranks, uint64_t layout_hash);

  // What Create made, seen by a rank. kCorrupt names what is not as expected: no head, another
  // layout, other sizes.
  static Result<Control> Open(std::span<std::byte> memory, int num_ranks, uint64_t layout_hash);

  int num_ranks() const { return num_ranks_; }
  comm::AbortWord& abort() const;
  comm::Clock::time_point created() const;

  // A rank's own cell.
  void Enter(int rank, int32_t pid) const;  // it has come up; a first beat
  void SetState(int rank, RankState state) const;
  void SetStep(int rank, int64_t step) const;
  void Beat(int rank) const;
  void SetError(int rank, std::string_view text) const;
  void SetMemory(int rank, const engine::RankMemory& memory) const;
  // What it has done: its device thread adds, anybody reads.
  engine::RankCounters& Counters(int rank) const;

  RankReport Read(int rank) const;
  engine::RankMemory Memory(int rank) const;
  std::vector<RankReport> ReadAll() const;

 private:
  struct Head;
  struct Cell;

  Control(std::byte* memory, int num_ranks) : memory_(memory), num_ranks_(num_ranks) {}
  Head& head() const;
  Cell& CellOf(int rank) const;

  std::byte* memory_;
  int num_ranks_;
};

// Ranks beat and the watcher looks every kHeartbeatPeriod; so a rank that stops is named within two
// seconds.
constexpr auto kHeartbeatPeriod = comm::kPulsePeriod;
struct SilenceBounds {
  std::chrono::nanoseconds silence = std::chrono::milliseconds(1700);  // since the last beat
  std::chrono::nanoseconds start = std::chrono::seconds(60);           // until the first one
  std::chrono::nanoseconds stop = std::chrono::milliseconds(1500);     // of a stop by a signal
};

struct SilentRank {
  int rank = 0;
  std::chrono::nanoseconds silence{};
  bool operator==(const SilentRank&) const = default;
};

// The ranks that should beat and have not for longer than the bounds, the longest silent first.
// Those that stopped or failed need not. created: of the deployment. awake: since when the watcher
// has looked without a gap; silence before that counts for nobody, as everybody may have been held
// up with it.
std::vector<SilentRank> FindSilent(std::span<const RankReport> reports,
                                   comm::Clock::time_point created, comm::Clock::time_point awake,
                                   comm::Clock::time_point now, const SilenceBounds& bounds = {});

}  // namespace moebius::rank
