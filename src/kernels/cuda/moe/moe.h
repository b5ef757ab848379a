// The router's choice, the grouping of its pairs by slot and the weighted sum that brings expert
// rows home, on the GPU: the contracts of kernels/ops.h with device pointers. A launch allocates
// nothing, waits for nothing and may be captured in a graph. Each returns 0 or the cudaError_t of
// its launch. The device thread of a rank calls them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/rows/rows.h"

namespace moebius::kernels::cuda {

// As RouterScore and GroupScore of kernels/ops.h, in the same order.
enum class RouteScore : uint8_t { kSoftmax, kSigmoid, kSigmoidOnTop };
enum class RouteGroups : uint8_t { kNone, kMax, kTop2Sum };

// Where the slots of a row's experts are found (SlotChoice of kernels/ops.h), and where they go.
struct SlotChoiceLaunch {
  const int32_t* tokens = nullptr;      // [rows]; negative: padding
  const int32_t* first_slot = nullptr;  // [experts]
  int64_t* counts = nullptr;            // [experts], added to; or null
  int64_t* prompt_counts = nullptr;     // [experts], likewise for rows from num_decodes on; or null
  int64_t num_decodes = 0;
  // Instead of first_slot, where experts have copies: ReplicaTable. Null: none has.
  const int32_t* copies_begin = nullptr;
  const int32_t* copies = nullptr;
  int slots_per_rank = 1;
  int home = 0;
  const int32_t* positions = nullptr;  // [rows], with copies
  int32_t* slots = nullptr;            // out [rows, k]; null: none
};

// Of what it reads, the launch before it may write logits alone: the bias, tokens and tables of
// slots are read while that one still runs.
struct RouteTopKLaunch {
  const float* logits = nullptr;  // [rows, experts]
  int64_t logits_stride = 0;
  int64_t rows = 0;
  int num_experts = 0;  // at most 512
  RouteScore score = RouteScore::kSoftmax;
  const float* bias = nullptr;  // [experts], for the choice only; null: none
  RouteGroups groups = RouteGroups::kNone;
  int num_groups = 1;  // of experts that FitsRouter (kernels/tuning/device_limits.h)
  int num_top_groups = 1;
  int k = 1;  // at most 32
  bool normalize = false;
  float scale = 1.0f;
  int32_t* experts = nullptr;  // out [rows, k], best first; ties to the lowest id
  float* weights = nullptr;    // out [rows, k]
  SlotChoiceLaunch choice;     // with slots: what LaunchChooseSlots does, in the same launch
};
int LaunchRouteTopK(const RouteTopKLaunch& args, CUstream_st* stream);

// See DrawLogitsArgs in kernels/ops.h.
struct DrawLogitsLaunch {
  const int32_t* tokens = nullptr;           // [rows]
  const int32_t* positions = nullptr;        // [rows]
  const float* log_probabilities = nullptr;  // [experts]
  int layer = 0;
  float* logits = nullptr;  // out [rows, experts]
  int64_t logits_stride = 0;
  int64_t rows = 0;
  int num_experts = 0;
};
int LaunchDrawLogits(const DrawLogitsLaunch& args, CUstream_st* stream);

// See ChooseSlotsArgs in kernels/ops.h.
struct ChooseSlotsLaunch {
  const int32_t* experts = nullptr;  // [rows, k]
  SlotChoiceLaunch choice;
  int64_t rows = 0;
  int k = 1;  // at most 32
};
int LaunchChooseSlots(const ChooseSlotsLaunch& args, CUstream_st* stream);

// The input rows of a grouped product: out[p] = a[pairs[p] / rows_per_pair], times
// row_scale[pairs[p]] where it is given, for places p < *num_places. pairs null: a[p]. fp8 rows
// take the scales of their blocks along, [cols / 128, stride] both, and have no row_scale.
struct GatherLaunch {
  DeviceRows in;
  const int32_t* pairs = nullptr;  // by place
  int64_t rows_per_pair = 1;
  const int32_t* places_of = nullptr;   // by pair, negative: none; null: not known
  int64_t rows = 0;                     // where places_of is
  const float* row_scale = nullptr;     // by pair
  const int32_t* num_places = nullptr;  // on the device
  DeviceRows out;                       // [places, cols]
  int64_t places = 0;                   // at most
  int64_t cols = 0;
  const float* scales = nullptr;
  int64_t scale_stride = 0;
  float* out_scales = nullptr;
  int64_t out_scale_stride = 0;
};
int LaunchGather(const GatherLaunch& args, CUstream_st* stream);

constexpr int kMaxSlots = 1024;

// Pair p of slot s gets a place in [offsets[s], offsets[s + 1]), in order of p. A negative slot is
// skipped (its place is -1).
struct GroupBySlotLaunch {
  const int32_t* slots = nullptr;  // [num_pairs]
  int64_t num_pairs = 0;
  int num_slots = 0;             // at most kMaxSlots
  int32_t* offsets = nullptr;    // out [num_slots + 1]
  int32_t* pairs = nullptr;      // out [num_pairs], by place
  int32_t* places = nullptr;     // out [num_pairs]
  int32_t* workspace = nullptr;  // GroupBySlotWorkspace bytes
};
size_t GroupBySlotWorkspace(int64_t num_pairs, int num_slots);
int LaunchGroupBySlot(const GroupBySlotLaunch& args, CUstream_st* stream);

// LaunchRouteTopK with slots and LaunchGroupBySlot of these, in one launch, to the same bits. For 1
// to kMaxRowsGrouped rows; experts of a row lie in slots of their own.
constexpr int64_t kMaxRowsGrouped = 16;
int LaunchRouteAndGroup(const RouteTopKLaunch& args, const GroupBySlotLaunch& grouping,
                        CUstream_st* stream);

// out[t] = sum over j in order of weights[t, j] * rows[places[t * k + j]] (+ shared[t] last), in
// float32, rounded once. A negative place adds nothing; weights null: all 1. Places and weights are
// read before the launch before has ended (launch.cuh): it must not be their writer.
struct WeightedReduceLaunch {
  DeviceRows in;                    // [places, cols]
  const int32_t* places = nullptr;  // [rows * k]
  const float* weights = nullptr;   // [rows * k]
  int k = 1;
  DeviceRows shared;  // [rows, cols]; data null: none; the dtype of `in`, as out
  DeviceRows out;     // [rows, cols]
  int64_t rows = 0;
  int64_t cols = 0;
};
int LaunchWeightedReduce(const WeightedReduceLaunch& args, CUstream_st* stream);

// LaunchWeightedReduce, then LaunchRmsNorm of its rows, to the same bits; sum.out stays unwritten.
// For what fits: at most 2048 columns, four at a time, all of one dtype.
bool FitsReduceAndNorm(const WeightedReduceLaunch& sum, const RmsNormLaunch& norm);
int LaunchReduceAndNorm(const WeightedReduceLaunch& sum, const RmsNormLaunch& norm,
                        CUstream_st* stream);

}  // namespace moebius::kernels::cuda
