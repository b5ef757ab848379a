// Dispatch and combine between GPUs that map each other's memory, each in two halves; sums over
// ranks, an all-gather and messages. The protocol is docs' exchange: every rank flags every
// rank in both halves of every call, also with no rows, and no call starts before the last one's
// combine has come home; that alone makes the regions safe to reuse. Calls that overlap
// (micro-batches) need a set of allocations each. Rows have a flag each, so a half that receives
// works on what has come while the rest is on its way.
//
// A launch allocates nothing, waits for nothing on the host and may be captured in a graph: the
// step and the number of tokens are read on the device, grids do not depend on them. Called from
// the thread that owns the stream; all halves of a call go to one stream, in the order dispatch
// send, dispatch receive, combine send, combine receive. Each returns null, or a text that lives
// forever and says what was wrong.
//
// Memory: one allocation a rank of MakeLayout(shape).bytes, zeroed before any peer's first call,
// which every rank of the group can address and which no rank frees while another lives. How it is
// shared (peer access in a process, windows or descriptors between processes) is the caller's.
//
// Waiting kernels hold their blocks until their peers have answered: all blocks of a kernel must
// fit the card at once, and nothing that a peer waits for may queue behind them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/exchange/protocol.h"

struct CUstream_st;

namespace moebius::cuda::exchange {

// One rank's view of the group. Kernels take it by value.
struct Group {
  Shape shape;
  int rank = 0;
  std::byte* bases[kMaxRanks] = {};        // each rank's allocation, as this device addresses it
  uint32_t* host_abort = nullptr;          // mapped host memory that gets a copy of the abort word
  uint64_t wait_nanoseconds = 1000000000;  // that a wait may last
  uint32_t test_delay = 0;  // not 0: blocks pause for up to 16 us at random (tests of the protocol)
};

// Which call this is: *step * calls_per_step + call + 1, modulo 2^32, the same on all ranks. The
// host sets *step (device memory) before the step's first launch. Consecutive calls have
// consecutive numbers.
struct Sequence {
  const uint32_t* step = nullptr;
  uint32_t calls_per_step = 1;
  uint32_t call = 0;
};

// latency: a block a token. throughput: a warp a token, few blocks of 1024 threads.
enum class Mode : uint8_t { kLatency, kThroughput };
struct Grid {
  Mode mode = Mode::kLatency;
  int num_blocks = 0;  // at most; 0: DefaultBlocks(mode)
  // Start while the kernel before it ends. A half that receives runs beside that kernel, which may
  // neither use what this half writes nor write what it reads, but for combine's `shared`.
  bool early_launch = false;
  int most_tokens = 0;  // that any rank sends in this call, where known; else 0
};
// latency: two blocks a multiprocessor; throughput: 24.
int DefaultBlocks(Mode mode);

struct DispatchSend {
  const void* rows = nullptr;      // bf16 (kF32: float32) [max_tokens, hidden], 16-byte aligned
  const int32_t* slots = nullptr;  // [max_tokens, k]: slot of all ranks' (rank * slots_per_rank
                                   // + slot there); negative: none; a token's are distinct
  const float* weights = nullptr;  // [max_tokens, k]
  const int32_t* num_tokens = nullptr;  // device: at most max_tokens and capacity
  int capacity = -1;  // tokens that may be read, whatever num_tokens says; negative: max_tokens
};
const char* LaunchDispatchSend(const Group& group, const Sequence& sequence, const Grid& grid,
                               const DispatchSend& args, CUstream_st* stream);

// Rows grouped by this rank's slots: within a slot by source rank, then by token. After an abort
// the offsets are all zero, or rows are missing (where their source fell silent half-way).
struct DispatchReceive {
  void* rows = nullptr;        // as the format says [capacity, hidden], 16-byte aligned
  float* scales = nullptr;     // fp8: block b of row r at b * scale_stride + r
  int64_t scale_stride = 0;    // at least capacity
  int64_t capacity = 0;        // at least WorstRows(shape), with the grid's most_tokens
  int32_t* offsets = nullptr;  // out [slots_per_rank + 1]
};
const char* LaunchDispatchReceive(const Group& group, const Sequence& sequence, const Grid& grid,
                                  const DispatchReceive& args, CUstream_st* stream);

// Sends each received token's expert rows home: summed with their weights in float32 and rounded
// once, or (deterministic) each as it is.
struct CombineSend {
  const void* expert_rows = nullptr;  // [capacity, hidden] by the places dispatch gave
};
const char* LaunchCombineSend(const Group& group, const Sequence& sequence, const Grid& grid,
                              const CombineSend& args, CUstream_st* stream);

// out[t] = what came home for token t, in float32 in rank order (deterministic: in top-k order with
// the weights), + shared[t] last, rounded once. After an abort `out` is left as it was.
struct CombineReceive {
  const int32_t* slots = nullptr;  // as given to dispatch
  const float* weights = nullptr;
  const int32_t* num_tokens = nullptr;
  const void* shared = nullptr;  // [max_tokens, hidden], or null
  void* out = nullptr;           // [max_tokens, hidden]
};
const char* LaunchCombineReceive(const Group& group, const Sequence& sequence, const Grid& grid,
                                 const CombineReceive& args, CUstream_st* stream);

// Sums over ranks: every rank stages its data in its own memory chunk by chunk, raises flags, and
// reads its peers' chunks. Added in float32 in rank order and rounded once: the same bits on every
// rank. Any size goes through the same memory. Blocks count their chunks on the device, so any
// number of calls may be in a graph.
struct ReduceGroup {
  int num_ranks = 1;
  int rank = 0;
  std::byte* bases[kMaxRanks] = {};  // of each rank's allocation, zeroed as for Group
  int64_t abort_offset = 0;          // there: the abort word
  int64_t channels_offset = 0;       // there: ReduceBytes, at a multiple of 1024
  uint32_t* host_abort = nullptr;
  uint64_t wait_nanoseconds = 1000000000;
  uint32_t test_delay = 0;  // as for Group
};
size_t ReduceBytes();
struct Reduction {
  const void* in = nullptr;  // bf16, or float32
  void* out = nullptr;
  bool is_float32 = false;
  int num_blocks = 0;        // at most, the same on all ranks; 0: as many as serve, up to 256
  bool lets_next_in = true;  // as for AllGather
};
// out[elements], which may be `in`. After an abort part of it is left as it was.
const char* LaunchAllReduce(const ReduceGroup& group, const Reduction& args, int64_t elements,
                            CUstream_st* stream);
// out = elements [begin[rank], begin[rank + 1]) of the sum: apart from `in`, or where they are in
// it. begin: num_ranks + 1 entries.
const char* LaunchReduceScatter(const ReduceGroup& group, const Reduction& args,
                                const int64_t* begin, CUstream_st* stream);

// All-gather: every rank stages its piece in its own memory, raises flags block by block, and reads
// its peers' pieces. Calls count themselves on the device, so any number of them may be in a graph.
struct GatherGroup {
  int num_ranks = 1;
  int rank = 0;
  std::byte* bases[kMaxRanks] = {};  // allocations of GatherBytes, as for Group
  uint32_t* host_abort = nullptr;
  uint64_t wait_nanoseconds = 1000000000;
  int64_t staging_bytes = 0;  // of a piece at most; the same on all ranks
};
size_t GatherBytes(int64_t staging_bytes);
// Where the abort word lies in such an allocation.
size_t GatherAbortOffset();
struct AllGather {
  struct Piece {
    int64_t offset = 0;  // of its first row in `out`, bytes
    int32_t rows = 0;
    int32_t row_bytes = 0;  // even
  };
  const void* mine = nullptr;  // this rank's piece; may lie where it goes
  int64_t mine_stride = 0;     // bytes between rows
  void* out = nullptr;
  int64_t out_stride = 0;
  Piece pieces[kMaxRanks];  // the same on all ranks, but for offsets
  int num_blocks = 0;       // at most, the same on all ranks; 0: as many as serve, up to 128
  // It comes up while the kernel before it ends, and what is launched early behind it while it
  // waits. Not where peers use the same GPU: that would hold the place of what is waited for.
  bool lets_next_in = true;
};
// After an abort the peers' pieces are all ones.
const char* LaunchAllGather(const GatherGroup& group, const AllGather& args, CUstream_st* stream);

// Messages from a rank to the next one of its group: what a pipeline's stages pass on. The sender
// writes into the receiver's memory, two messages ahead of the reader at most. Both count on the
// device, so any number of messages may be in a graph.
struct PassGroup {
  int num_ranks = 1;
  int rank = 0;
  std::byte* bases[kMaxRanks] = {};  // of each rank's allocation, zeroed as for Group
  int64_t abort_offset = 0;          // there: the abort word
  int64_t letters_offset = 0;        // there: LettersBytes, at a multiple of 1024
  int64_t letter_bytes = 0;          // of a message at most; the same on all ranks
  uint32_t* host_abort = nullptr;
  uint64_t wait_nanoseconds = 1000000000;
};
size_t LettersBytes(int64_t letter_bytes);
struct Message {
  void* data = nullptr;  // 16-byte aligned
  int64_t bytes = 0;     // the same on both sides
  int num_blocks = 0;    // as for AllGather
  bool lets_next_in = true;
};
const char* LaunchSend(const PassGroup& group, const Message& message, CUstream_st* stream);
// From the rank before. After an abort the data is left as it was.
const char* LaunchReceive(const PassGroup& group, const Message& message, CUstream_st* stream);

// *step += 1, on the stream: for graphs that hold whole steps.
const char* LaunchAdvanceStep(uint32_t* step, CUstream_st* stream);

}  // namespace moebius::cuda::exchange
