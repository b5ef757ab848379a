// Router: a warp a row, the best of its experts taken k times (held_experts.cuh). Of few rows one
// block has all, and groups their pairs by slot as well: in a row no slot comes twice, so a bit a
// row says which rows go to a slot, and how many of them before another.
#include <cuda_runtime.h>

#include <algorithm>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/moe/choose.cuh"
#include "kernels/cuda/moe/exclusive_sums.cuh"
#include "kernels/cuda/moe/held_experts.cuh"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/rows/access.cuh"
#include "kernels/tuning/device_limits.h"

namespace moebius::kernels::cuda {
namespace {

using moebius::cuda::AwaitEarlier;
using moebius::cuda::LaunchEarly;

constexpr int kWarps = 4;           // of a block, where there are several
constexpr int kWarpsThatGroup = 8;  // of the one that groups, at least

__device__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// The table that finds slots, in shared memory: first_slot, or where an expert's copies begin.
__device__ void HoldTable(int num_experts, int32_t* table, SlotChoiceLaunch& choice) {
  if (choice.slots == nullptr) return;
  const bool copies = choice.copies_begin != nullptr;
  const int32_t* const from = copies ? choice.copies_begin : choice.first_slot;
  for (int e = threadIdx.x; e < num_experts + (copies ? 1 : 0); e += blockDim.x) {
    table[e] = __ldcg(from + e);
  }
  (copies ? choice.copies_begin : choice.first_slot) = table;
}

// From logits to scores; a lane's that are no experts are -inf.
template <int kEach>
__device__ void Score(RouteScore kind, float (&v)[kEach]) {
  if (kind == RouteScore::kSoftmax) {
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < kEach; ++i) top = fmaxf(top, v[i]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) sum += v[i] = expf(v[i] - top);
    sum = WarpSum(sum);
#pragma unroll
    for (int i = 0; i < kEach; ++i) v[i] /= sum;
  } else if (kind == RouteScore::kSigmoid) {
#pragma unroll
    for (int i = 0; i < kEach; ++i) v[i] = Sigmoid(v[i]);
  }
}

struct Choice {
  int expert;
  float weight;
};

// Of a row: lane j < k gets the j-th. v: the lane's logits; scores: room of the warp.
template <int kEach>
__device__ Choice ChooseExperts(const RouteTopKLaunch& args, const ExpertLanes& lanes,
                                const ExpertRun& run, float (&v)[kEach], const float (&bias)[kEach],
                                float (*scores)[32]) {
  const int lane = threadIdx.x % 32;
  Score(args.score, v);
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    scores[i][lane] = v[i];
    v[i] += bias[i];
  }
  HeldExperts<kEach> held(run, v);
  if (args.groups != RouteGroups::kNone &&
      !held.IsOfBestGroups(lanes, run, args.groups == RouteGroups::kTop2Sum, args.num_top_groups)) {
    held.Lower(run);
  }
  int2 mine = make_int2(0, 0);
  for (int j = 0; j < args.k; ++j) {
    const int2 best = held.TakeBest(lane);
    if (lane == j) mine = best;
  }
  const int expert = __shfl_sync(~0u, run.first, mine.x) + mine.y;
  float weight = scores[mine.y][mine.x];
  if (args.score == RouteScore::kSigmoidOnTop) weight = Sigmoid(weight);
  if (args.normalize) {
    const float least = args.score == RouteScore::kSigmoid ? 1e-20f : 0.0f;
    weight /= WarpSum(lane < args.k ? weight : 0.0f) + least;
  }
  return {expert, weight * args.scale};
}

// By the block that has all rows; rows_of: a bit a row, by slot. This thread's pair: of `row` and
// its lane, in `slot`, or of none (-1).
__device__ void PlacePairs(const GroupBySlotLaunch& args, const uint32_t* rows_of, int row, int k,
                           int slot) {
  __shared__ int starts[kMaxSlots];
  const auto num_slots = args.num_slots;
  for (int s = threadIdx.x; s < num_slots; s += blockDim.x) starts[s] = __popc(rows_of[s]);
  const int all = ExclusiveSums(starts, num_slots);
  for (int s = threadIdx.x; s < num_slots; s += blockDim.x) args.offsets[s] = starts[s];
  if (threadIdx.x == 0) args.offsets[num_slots] = all;
  const int lane = threadIdx.x % 32;
  const int pair = row * k + lane;
  if (lane >= k || pair >= args.num_pairs) return;
  int place = -1;
  if (slot >= 0) {
    place = starts[slot] + __popc(rows_of[slot] & ((1u << row) - 1));
    args.pairs[place] = pair;
  }
  args.places[pair] = place;
}

// kGroups: one block, whose warps are not fewer than the rows.
template <int kEach, bool kGroups>
__global__ void __launch_bounds__(32 * (kGroups ? kMaxRowsGrouped : kWarps))
    RouteKernel(const __grid_constant__ RouteTopKLaunch args, const ExpertLanes lanes,
                const __grid_constant__ GroupBySlotLaunch grouping) {
  __shared__ float scores[kGroups ? kMaxRowsGrouped : kWarps][kEach][32];
  __shared__ int32_t table[kMaxRouterExperts + 1];
  __shared__ uint32_t rows_of[kGroups ? kMaxSlots : 1];
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  const int64_t row = blockIdx.x * int64_t{kWarps} + warp;
  const bool is_row = row < args.rows;
  const ExpertRun run(lanes, lane);
  // What the launch before this does not write is here before the logits are (moe.h). __ldcg: not
  // what the L1 cache has from before.
  SlotChoiceLaunch choice = args.choice;
  HoldTable(args.num_experts, table, choice);
  const int32_t token = is_row && choice.slots != nullptr ? __ldcg(choice.tokens + row) : -1;
  float bias[kEach] = {};
  if (args.bias != nullptr) run.Load(args.bias, 0.0f, bias);
  if constexpr (kGroups) {
    for (int s = threadIdx.x; s < grouping.num_slots; s += blockDim.x) rows_of[s] = 0;
  }
  AwaitEarlier();
  float v[kEach];
  if (is_row) run.Load(args.logits + row * args.logits_stride, -INFINITY, v);
  __syncthreads();
  int slot = -1;
  if (is_row) {
    const Choice chosen = ChooseExperts(args, lanes, run, v, bias, scores[warp]);
    if (lane < args.k) {
      args.experts[row * args.k + lane] = chosen.expert;
      args.weights[row * args.k + lane] = chosen.weight;
    }
    if (choice.slots != nullptr) slot = PutSlots(choice, row, token, args.k, chosen.expert);
  }
  if constexpr (kGroups) {
    if (slot >= 0) atomicOr(&rows_of[slot], 1u << row);
    __syncthreads();
    PlacePairs(grouping, rows_of, static_cast<int>(row), args.k, slot);
  }
}

template <bool kGroups>
cudaError_t Launch(const RouteTopKLaunch& args, const GroupBySlotLaunch& grouping, unsigned blocks,
                   unsigned warps, cudaStream_t stream) {
  const int num_groups = args.groups == RouteGroups::kNone ? 1 : args.num_groups;
  if (!FitsRouter(args.num_experts, num_groups, args.k) || args.num_top_groups > num_groups) {
    return cudaErrorInvalidValue;
  }
  const ExpertLanes lanes = ExpertLanes::Of(args.num_experts, num_groups);
  auto* kernel = lanes.each <= 2   ? RouteKernel<2, kGroups>
                 : lanes.each <= 4 ? RouteKernel<4, kGroups>
                 : lanes.each <= 8 ? RouteKernel<8, kGroups>
                                   : RouteKernel<kMaxLaneExperts, kGroups>;
  return LaunchEarly(kernel, blocks, 32 * warps, 0, stream, args, lanes, grouping);
}

}  // namespace

int LaunchRouteTopK(const RouteTopKLaunch& args, CUstream_st* stream) {
  if (args.rows == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>((args.rows + kWarps - 1) / kWarps);
  return Launch<false>(args, {}, blocks, kWarps, stream);
}

int LaunchRouteAndGroup(const RouteTopKLaunch& args, const GroupBySlotLaunch& grouping,
                        CUstream_st* stream) {
  if (args.rows < 1 || args.rows > kMaxRowsGrouped || args.choice.slots == nullptr ||
      grouping.slots != args.choice.slots || grouping.num_pairs != args.rows * args.k ||
      grouping.num_slots < 1 || grouping.num_slots > kMaxSlots) {
    return cudaErrorInvalidValue;
  }
  const auto warps = static_cast<unsigned>(std::max<int64_t>(args.rows, kWarpsThatGroup));
  return Launch<true>(args, grouping, 1, warps, stream);
}

}  // namespace moebius::kernels::cuda
