// The exchange over memory that all ranks of a group map: heap for threads of a process (inproc),
// an inherited descriptor for processes (shm); it knows no difference. A sender writes its rows
// into the receiver's region and raises one flag; nothing is negotiated. exchange/protocol.h says
// where things lie and why regions may be used again.
//
// One call may be under way at a time; calls that overlap (micro-batches) need an exchange and a
// memory each.
#pragma once

#include <functional>
#include <vector>

#include "comm/group_watch.h"
#include "moe/exchange/exchange.h"
#include "moe/exchange/protocol.h"

namespace moebius::moe {

enum class ExchangeHalf : uint8_t { kDispatch, kCombine };

// For tests of what goes wrong: called before each flag. False: the flag is lost. It may sleep (a
// slow member), and is called from threads of the pool.
using FlagHook = std::function<bool(ExchangeHalf half, int to, uint32_t call_number)>;

struct GroupExchangeOptions {
  ExchangeMode mode = ExchangeMode::kAuto;
  FlagHook hook = {};
};

class GroupExchange final : public Exchange {
 public:
  // Of a group's memory, which begins as zeros. Pages are touched as they are used.
  static size_t NumBytes(const ExchangeShape& shape);

  // memory: NumBytes(shape) bytes at a multiple of 64, the same ones for every member; outlives
  // this. info.world_ranks has shape.num_ranks members.
  GroupExchange(const ExchangeShape& shape, comm::GroupInfo info, std::span<std::byte> memory,
                GroupExchangeOptions options = {});

  void BeginStep(int64_t step, std::chrono::steady_clock::time_point deadline) override;
  // kDeadline names the member that was late, the half and the step; kUnavailable: another rank saw
  // a failure first. After it Dispatch yields no work and Combine leaves `out` as it is.
  Status status() const override { return watch_.status(); }
  ExchangeMode mode() const override { return mode_; }
  ExchangeBytes bytes() const override { return bytes_; }
  int64_t num_expert_rows() const override { return num_expert_rows_; }
  int64_t num_home_rows() const override { return num_home_rows_; }

  // args.rows: at most shape.max_tokens of shape.act; args.k and num_slots as in the shape. The
  // rows that the result names are the region itself: they stay until Combine.
  DispatchedRows Dispatch(kernels::ExecContext& ctx, const DispatchArgs& args,
                          Arena& arena) override;
  size_t ArenaBytes(int64_t max_rows, int64_t k, int64_t num_slots) const override;
  int64_t MaxPlaces(int64_t max_rows, int64_t k) const override;
  void Combine(kernels::ExecContext& ctx, const CombineArgs& args) override;

 private:
  int rank() const { return watch_.info().rank; }
  int size() const { return shape_.num_ranks; }
  // The i-th member after this one; `size()`-th: itself. Ranks begin with different peers.
  int After(int64_t i) const { return static_cast<int>((rank() + i) % size()); }
  template <typename T>
  T* At(int member, size_t offset) const {
    return reinterpret_cast<T*>(memory_.data() + static_cast<size_t>(member) * layout_.bytes +
                                offset);
  }
  comm::Signal& FlagOf(ExchangeHalf half, int at, int from) const;
  std::byte* ResultRow(int home, int64_t row) const;

  void Send(kernels::ExecContext& ctx, const DispatchArgs& args);
  void WriteRow(const DispatchArgs& args, int64_t token, int to, int64_t position) const;
  void Flag(ExchangeHalf half, int to);
  bool WaitForAll(ExchangeHalf half);
  int FurthestBehind(ExchangeHalf half, int member) const;
  DispatchedRows Group(kernels::ExecContext& ctx, Arena& arena);
  void SendResults(kernels::ExecContext& ctx, const CombineArgs& args);
  void WriteResults(const kernels::ExecContext& ctx, const CombineArgs& args, int home,
                    int64_t begin, int64_t end) const;
  // body(source, begin, end) for the received rows [begin, end) of all sources in a row.
  template <typename Body>
  void ForSources(int64_t begin, int64_t end, const Body& body) const;

  const ExchangeShape shape_;
  const ExchangeLayout layout_;
  const std::span<std::byte> memory_;
  const GroupExchangeOptions options_;
  comm::GroupWatch watch_;
  uint32_t call_ = 0;         // of the step, the next one
  uint32_t number_ = 0;       // of the call under way
  uint32_t last_number_ = 0;  // of the one before
  ExchangeMode mode_ = ExchangeMode::kAuto;
  ExchangeBytes bytes_;
  int64_t num_expert_rows_ = 0;
  int64_t num_home_rows_ = 0;

  // Of the call under way. What is a span lies in the arena.
  std::vector<int32_t> counts_;      // pairs sent, by slot
  std::vector<int32_t> rows_to_;     // tokens sent, by receiver
  std::vector<int64_t> first_from_;  // rows received before those of a source; size() + 1
  std::span<int32_t> routes_;        // exchange/protocol.h: Routes::rows
  std::span<int32_t> ordinals_;
  std::span<const int32_t> home_rows_;  // [T * top_k]: where results come home, as they are added
  std::span<const float> home_weights_;
  std::span<int32_t> places_;  // [rows received * top_k]; negative: not of this rank
};

}  // namespace moebius::moe
