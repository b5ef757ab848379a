// The exchange's arithmetic: flag words, pair codes, routes, the abort word, and where each region
// lies in a rank's allocation. Plain functions, the same on host and device; no state.
//
// A call is one dispatch and one combine of one layer. Its sequence number comes from the agreed
// step, and is compared for equality. (The flag of a token that was there exactly
// 2^32 calls ago and in no call since would be taken for new.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace moebius::cuda::exchange {

constexpr int kMaxRanks = 64;
constexpr int kMaxTopK = 16;
constexpr int kMaxSlots = 1024;      // of all ranks together
constexpr int kMaxHidden = 16384;    // columns of a row
constexpr int kMaxTokens = 1 << 20;  // a rank may send in one call
constexpr int kScaleBlock = 128;     // columns that share an fp8 scale

enum class RowFormat : uint8_t {
  kFp8,   // e4m3 with a float scale for each 128 columns, quantised by the sender
  kBf16,  // as they are
  kF32,   // likewise
};

// What a wait was for.
enum class Phase : uint8_t {
  kNone,
  kDispatch,
  kCombine,
  kAllReduce,
  kReduceScatter,
  kAllGather,
  kSend,
  kReceive
};

// Words that peers write carry their call. A flag is raised by one release store when what it
// stands for has been written: a token's row (with the row's position), a result, a combine begun.
constexpr uint64_t FlagWord(uint32_t sequence, uint32_t value) {
  return uint64_t{sequence} << 32 | value;
}
constexpr uint32_t FlagSequence(uint64_t flag) { return static_cast<uint32_t>(flag >> 32); }
constexpr uint32_t FlagValue(uint64_t flag) { return static_cast<uint32_t>(flag); }
constexpr uint32_t kNoRow = 0xffffffffu;  // value of a token's flag: none of its slots are there

// The slot (of the receiving rank) that a pair goes to, and how many pairs of the same source and
// slot came before it.
constexpr uint32_t kNoPair = 0xffffffffu;
constexpr uint32_t PairCode(uint32_t slot, uint32_t ordinal) { return slot << 21 | ordinal; }
constexpr int PairSlot(uint32_t code) { return static_cast<int>(code >> 21); }
constexpr int PairOrdinal(uint32_t code) { return static_cast<int>(code & 0x1fffff); }

// Where a token goes: a rank, and the row of the region that this rank keeps for the source.
constexpr int32_t kNoRoute = -1;
constexpr int32_t Route(int rank, int position) { return rank << 20 | position; }
constexpr int RouteRank(int32_t route) { return route >> 20; }
constexpr int RoutePosition(int32_t route) { return route & 0xfffff; }

// The first wait that expires sets the abort word; 0: none did.
struct Abort {
  Phase phase;   // what the reporter waited for; kNone: the host said stop
  int silent;    // the rank that did not answer
  int reporter;  // the rank that noticed
};
constexpr uint32_t AbortWord(Phase phase, int silent, int reporter) {
  return 1u << 31 | static_cast<uint32_t>(phase) << 16 | static_cast<uint32_t>(silent) << 8 |
         static_cast<uint32_t>(reporter);
}
constexpr Abort DecodeAbort(uint32_t word) {
  return {static_cast<Phase>(word >> 16 & 0xff), static_cast<int>(word >> 8 & 0xff),
          static_cast<int>(word & 0xff)};
}

// Words at the start of every rank's allocation. Peers write flags and the abort word; the rest is
// the rank's own. All zero before the first call.
struct Signals {
  uint64_t combine[kMaxRanks];  // by rank: it has read all that came by dispatch
  uint32_t abort;
  uint32_t unused[31];
  uint32_t tokens[kMaxRanks];  // of each source in this call
  uint32_t taken;              // rows that teams have taken to copy; back at zero after the call
};

// What all ranks of a group agree on. Of what is agreed for good the format alone may change from
// call to call, between fp8 and bf16: the layout's regions are the same.
struct Shape {
  int num_ranks = 1;
  int slots_per_rank = 1;
  int max_tokens = 1;  // a rank may send in one call
  int top_k = 1;
  int hidden = 128;  // fp8: a multiple of 128; else whole 16 bytes
  RowFormat format = RowFormat::kFp8;
  bool deterministic = false;  // rows come home un-summed and are added in top-k order

  constexpr int num_slots() const { return num_ranks * slots_per_rank; }
  // Of a row before dispatch and of an expert's result: bf16 but for kF32.
  constexpr int64_t row_bytes() const {
    return int64_t{format == RowFormat::kF32 ? 4 : 2} * hidden;
  }
};

// Byte offsets in a rank's allocation. Regions of a source or an owner: index * max_tokens rows.
struct Layout {
  int64_t counts = 0;         // words [source]: tokens, then pairs by slot of this rank
  int64_t flags = 0;          // words [source][token]
  int64_t meta = 0;           // [source][position]: codes [k], weights [k]
  int64_t meta_stride = 0;    // bytes
  int64_t rows = 0;           // [source][position]: the row, then its scales; room for bf16
  int64_t row_stride = 0;     // bytes
  int64_t results = 0;        // rows [owner][position], deterministic: [token][choice]
  int64_t result_stride = 0;  // bytes
  int64_t result_flags = 0;   // words [owner][position]
  int64_t routes = 0;         // own: int32 [token][k], by rank, then kNoRoute
  int64_t arrivals = 0;  // own: [source][token]: places [k] (negative: none), weights [k], position
  int64_t arrival_stride = 0;  // bytes
  int64_t bytes = 0;           // of the allocation
};

constexpr int64_t AlignUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

constexpr Layout MakeLayout(const Shape& s) {
  Layout l;
  const int64_t ranks = s.num_ranks;
  const int64_t tokens = s.max_tokens;
  l.meta_stride = AlignUp(8 * s.top_k, 32);
  l.arrival_stride = AlignUp(8 * s.top_k + 4, 32);
  l.row_stride = s.format == RowFormat::kFp8
                     ? AlignUp(s.hidden + s.hidden / kScaleBlock * int64_t{4}, 16)
                     : s.row_bytes();
  l.result_stride = s.row_bytes();
  const int64_t results = s.deterministic ? tokens * s.top_k : ranks * tokens;
  int64_t at = AlignUp(sizeof(Signals), 1024);
  const auto take = [&at](int64_t bytes) {
    const int64_t begin = at;
    at = AlignUp(at + bytes, 1024);
    return begin;
  };
  l.counts = take(ranks * (1 + s.slots_per_rank) * 8);
  l.flags = take(ranks * tokens * 8);
  l.meta = take(ranks * tokens * l.meta_stride);
  l.rows = take(ranks * tokens * s.row_bytes());
  l.results = take(results * l.result_stride);
  l.result_flags = take(ranks * tokens * 8);
  l.routes = take(tokens * s.top_k * 4);
  l.arrivals = take(ranks * tokens * l.arrival_stride);
  l.bytes = at;
  return l;
}

// Rows that one rank may have to hold grouped by slot.
constexpr int64_t WorstRows(const Shape& s) {
  const int each = s.top_k < s.slots_per_rank ? s.top_k : s.slots_per_rank;
  return int64_t{s.num_ranks} * s.max_tokens * each;
}

}  // namespace moebius::cuda::exchange
