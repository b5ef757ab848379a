// The part of a model that one rank holds, and the peers it runs with. Plain values, made once
// before loading; what they point to outlives the model. The default is one rank with everything.
//
// Tensor parallelism cuts every matrix by outputs and gathers columns: no sum is cut, so a row's
// bits are those of one rank, and two gathers move what one all-reduce does. Where bits need not be
// the same (`sums`), that all-reduce takes their place: of two matrices one after the other the
// second is cut by inputs, and every rank has a part of each sum.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "comm/communicator.h"
#include "model/model_config.h"
#include "moe/exchange/exchange.h"
#include "moe/exchange/protocol.h"
#include "moe/migrate/expert_copies.h"
#include "moe/placement.h"
#include "tensor/view.h"

namespace moebius::model {

// Where a rank stands in a group. `comm` may be null where a model only describes itself.
struct GroupPlace {
  int rank = 0;
  int size = 1;
  comm::Communicator* comm = nullptr;
};

struct Shard {
  // Heads and the outputs of dense matrices are cut over this group; all its ranks see the same
  // rows.
  GroupPlace tp;

  // Routed experts are spread over the flattened group: rank f = dp * tp.size + tp.rank. Either
  // whole ones, reached through the exchange (null: LocalExchange, where the group is one rank), or
  // all of them, each cut: then rows are gathered through experts.comm.
  GroupPlace experts;
  bool cut_experts = false;
  moe::Exchange* exchange = nullptr;
  // Of whole experts. The same on every rank.
  moe::SlotAssignment slots;
  // Slots beside those of the layers, for experts that move while the model runs. 0: none does.
  int num_staging = 0;
  // Where steps run behind the host: what moves them. Outlives the model.
  moe::ExpertCopies* copies = nullptr;
  // Rows that a rank brings into one chunk of a MoE layer at most; what the exchange was made for.
  // 0: as many as keep a chunk of all ranks as large as one of a rank alone.
  int64_t max_moe_rows = 0;

  // Results may differ from one rank's in rounding: partial sums of inputs that are cut are added
  // by one all-reduce, where CanSum. For GPUs, where a call costs more than its bytes at decode.
  // The same on every rank.
  bool sums = false;

  // Pipeline stages in order; this one runs layers [first_layer, end_layer). Negative: to the last.
  GroupPlace pipeline;
  int64_t first_layer = 0;
  int64_t end_layer = -1;

  bool alone() const { return tp.size == 1 && experts.size == 1 && pipeline.size == 1; }
  bool is_first_stage() const { return pipeline.rank == 0; }
  bool is_last_stage() const { return pipeline.rank + 1 == pipeline.size; }
  int data_parallel_size() const { return experts.size / tp.size; }
};

// With end_layer filled in. kInvalidArgument or kUnsupported where the model cannot be cut so.
Result<Shard> CheckShard(const ModelConfig& config, Shard shard);
// Whether all peers that a pass needs can be reached.
Status CheckPeers(const ModelConfig& config, const Shard& shard);

// What a communicator's chunk_bytes must be at least: the widest row that a collective carries.
size_t WidestRowBytes(const ModelConfig& config);

// Rows that a rank brings into one chunk of a MoE layer at most.
int64_t MostMoeRows(const MoeConfig& moe, const Shard& shard);

// What all members of the shard's expert group agree on in an exchange of whole experts, for steps
// of at most `max_rows` rows a data-parallel rank.
moe::ExchangeShape ShapeOfExchange(const ModelConfig& config, DType act, const Shard& shard,
                                   int64_t max_rows, bool deterministic);

// The columns of a matrix of activations, and the outputs of the weight that gives them, over a
// group: member r has [begin[r], begin[r + 1]), maybe none.
struct Split {
  GroupPlace group;
  std::vector<int64_t> begin = {0, 0};
  // Not null: its members have all columns each, as parts of a sum. (`group` is this rank alone.)
  comm::Communicator* adds = nullptr;

  int64_t columns() const { return begin.back(); }
  int64_t first() const { return begin[static_cast<size_t>(group.rank)]; }
  int64_t count() const { return begin[static_cast<size_t>(group.rank) + 1] - first(); }
  // This rank's columns of a matrix that has room for all.
  Mat Mine(Mat all) const { return group.size == 1 ? all : all.Cols(first(), count()); }
  // Fills in the others', or adds them. Collective.
  void Complete(Mat all) const { Complete(Mine(all), all); }
  // The same with this rank's columns from `mine`.
  void Complete(Mat mine, Mat all) const {
    if (adds != nullptr) adds->AllReduce(all);
    if (group.size > 1) group.comm->AllGatherColumns(mine, all, begin);
  }
};
// In multiples of `unit`, as even as that allows.
Split SplitOver(const GroupPlace& group, int64_t columns, int64_t unit);

// Two matrices one after the other: attention's heads and the product that ends it, or both halves
// of an MLP.
struct SplitPair {
  Split cut;          // the columns between them whose weights each rank has
  bool sums = false;  // the second is cut by these columns, its inputs; else by its outputs
  Split inner;        // the columns between them that the second reads: this rank's, or all
  Split outer;        // what the second gives: parts of sums, or columns
};
// Whether the second may be cut by inputs: each member has some, in whole units.
bool CanSum(const Split& cut, int64_t unit);
// outer: of the second's outputs, for the case that it is cut by them.
SplitPair PairOf(const Split& cut, const Split& outer, bool sums);

// Rows [begin, begin + count) of `rows`: piece `part` of `parts`, as comm::SplitEvenly has it.
struct RowRange {
  int64_t begin = 0;
  int64_t count = 0;
};
constexpr RowRange PieceOf(int64_t rows, int64_t parts, int64_t part) {
  const int64_t more = rows % parts;  // pieces that have one more
  return {rows / parts * part + (part < more ? part : more), rows / parts + (part < more ? 1 : 0)};
}

}  // namespace moebius::model
