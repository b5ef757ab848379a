// Routing and the grouped products of experts.
#include <algorithm>

#include "base/math.h"
#include "kernels/cuda/gemm/any_gemm.h"
#include "kernels/cuda/gemm/few_rows.h"
#include "kernels/cuda/gemm/grouped_gemm.h"
#include "kernels/cuda/gemm/quantize.h"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/ops/cuda_ops.h"
#include "kernels/tuning/grouped_gemm_tiles.h"
#include "kernels/tuning/latent_passes.h"

namespace moebius::kernels::cuda {
namespace {

bool HasGaps(const Mat& m) { return m.rows > 1 && m.stride != m.cols; }

int64_t BytesBetween(std::span<const PackedWeight> weights) {
  if (weights.size() < 2) return 0;
  return static_cast<const std::byte*>(weights[1].data) -
         static_cast<const std::byte*>(weights[0].data);
}

// Whatever the tensor cores do not take.
void RunAnyGroups(ExecContext& ctx, const GroupedProduct& p) {
  const PackedWeight& first = p.weights.front();
  AnyGemmLaunch launch;
  launch.a = RowsOf(p.rows);
  launch.w = first.data;
  launch.w_dtype = ElementOf(first.format);
  launch.w_batch = BytesBetween(p.weights) / static_cast<int64_t>(SizeOf(launch.w_dtype));
  launch.scales = first.scales;
  if (first.scales != nullptr && p.weights.size() > 1) {
    launch.scale_batch = p.weights[1].scales - first.scales;
  }
  launch.out = RowsOf(p.out);
  launch.offsets = p.offsets.data();
  launch.rows = p.rows.rows;
  launch.n = p.n;
  launch.k = first.k;
  launch.batch = static_cast<int64_t>(p.weights.size());
  ctx.device->Check(LaunchAnyGemm(launch, ctx.device->stream), "grouped_gemm");
}

void RunGroups(ExecContext& ctx, const GroupedProduct& product) {
  if (ctx.device->deterministic || !RunGroupedProduct(ctx, product)) RunAnyGroups(ctx, product);
}

// Slots one after the other without gaps, n rows each.
bool IsPool(std::span<const PackedWeight> weights, int64_t n) {
  const PackedWeight& first = weights.front();
  const auto slot_bytes = n * first.k * static_cast<int64_t>(SizeOf(ElementOf(first.format)));
  return weights.size() == 1 || BytesBetween(weights) == slot_bytes;
}

// Rows that are quantised leave their gaps behind.
bool QuantisesGaps(const GroupedProduct& p) {
  return p.weights.front().format == WeightFormat::kFp8Block && p.rows.dtype == DType::kBF16 &&
         p.rows.stride % 8 == 0 && reinterpret_cast<uintptr_t>(p.rows.data) % 16 == 0;
}

// Whether the tensor cores take these shapes and dtypes.
bool Fits(const GroupedProduct& p) {
  const PackedWeight& first = p.weights.front();
  return first.format != WeightFormat::kF32 &&
         (p.rows.dtype == DType::kBF16 || p.rows.dtype == DType::kF8E4M3) &&
         p.out.dtype == DType::kBF16 && p.n % 128 == 0 && first.k % 128 == 0 &&
         IsPool(p.weights, p.n) && !HasGaps(p.out) && (!HasGaps(p.rows) || QuantisesGaps(p));
}

// A product of few places, for which reading the weights is all the work, if this is one.
bool RunFewPlaces(ExecContext& ctx, FewPlacesLaunch launch, const Mat& a,
                  std::span<const int32_t> offsets, std::span<const PackedWeight> weights,
                  const Mat& out) {
  if (ctx.device->deterministic) return false;
  const PackedWeight& first = weights.front();
  launch.a = RowsOf(a);
  launch.offsets = offsets.data();
  launch.num_slots = static_cast<int>(weights.size());
  launch.w = first.data;
  launch.scales = first.scales;
  launch.out = RowsOf(out);
  launch.places = out.rows;
  launch.n = first.n;
  launch.k = first.k;
  launch.gated = first.gated;
  launch.num_sms = ctx.device->num_sms;
  if (first.format == WeightFormat::kF32 || !IsPool(weights, first.gated ? 2 * first.n : first.n) ||
      !tuning::FewPlacesPay(launch.places, launch.num_slots, FewRowsShapeOf(first)) ||
      !FitsFewPlaces(launch)) {
    return false;
  }
  ctx.device->Check(LaunchFewPlaces(launch, ctx.device->stream), "grouped_gemm");
  return true;
}

// How many rows there are, on the device; null: all.
const int32_t* NumRows(const GroupedProduct& p) {
  return p.offsets.empty() ? nullptr : p.offsets.data() + p.weights.size();
}

// With room for its rows in fp8, to be written.
GroupedProduct WithFp8Room(ExecContext& ctx, GroupedProduct p) {
  const int64_t places = p.rows.rows;
  const int64_t k = p.weights.front().k;
  p.rows = ctx.workspace->AllocMat(DType::kF8E4M3, places, k);
  p.row_scales =
      ctx.workspace->AllocMat(DType::kF32, k / kScaleBlock, CeilDiv(places, 4) * 4).Cols(0, places);
  return p;
}

moebius::cuda::QuantizedRowsOut RowsOut(const GroupedProduct& p) {
  return {p.rows.data, p.row_scales.Row<float>(0), p.row_scales.stride};
}

// num_rows: on the device; null: all.
GroupedProduct Quantize(ExecContext& ctx, const GroupedProduct& p, const int32_t* num_rows) {
  const GroupedProduct quantized = WithFp8Room(ctx, p);
  const moebius::cuda::RowsIn in = {p.rows.data, num_rows, p.rows.rows,
                                    static_cast<int>(p.rows.cols),
                                    HasGaps(p.rows) ? p.rows.stride : 0};
  ctx.device->Check(moebius::cuda::LaunchQuantizeRows(in, RowsOut(quantized), ctx.device->stream),
                    "quantize");
  return quantized;
}

void Launch(ExecContext& ctx, const GroupedProduct& p) {
  const PackedWeight& first = p.weights.front();
  const int64_t places = p.rows.rows;
  const auto num_slots = static_cast<int>(p.weights.size());
  moebius::cuda::GroupedGemmArgs args = {};
  args.format = first.format == WeightFormat::kFp8Block ? tuning::GemmFormat::kFp8Block
                                                        : tuning::GemmFormat::kBf16;
  args.rows = p.rows.data;
  args.row_scales = p.row_scales.Row<float>(0);
  args.scale_stride = p.row_scales.stride;
  args.weight_scales = first.scales;
  args.weights = first.data;
  args.out = p.out.data;
  args.offsets = p.offsets.empty() ? nullptr : p.offsets.data();
  args.capacity = places;
  args.num_groups = num_slots;
  args.num_slots = num_slots;
  args.n = static_cast<int>(p.n);
  args.k = static_cast<int>(first.k);
  args.next = ctx.device->next_work;
  args.partials = ctx.device->partials;
  args.arrivals = ctx.device->arrivals;
  // How many rows a group has is known on the device alone: as if they were spread evenly.
  const int64_t likely = p.likely_places > 0 ? std::min(p.likely_places, places) : places;
  const auto expected = static_cast<int>(std::max<int64_t>(1, likely / num_slots));
  const tuning::GroupedGemmConfig config = tuning::ChooseGroupedGemm(
      {args.format, args.n, args.k, num_slots, expected, ctx.device->num_sms, p.offsets.empty()});
  ctx.device->Check(moebius::cuda::LaunchGroupedGemm(args, config, ctx.device->stream),
                    "grouped_gemm");
}

}  // namespace

bool RunGroupedProduct(ExecContext& ctx, const GroupedProduct& p) {
  if (!Fits(p)) return false;
  if (p.weights.front().format != WeightFormat::kFp8Block || p.rows.dtype == DType::kF8E4M3) {
    Launch(ctx, p);
    return true;
  }
  const ArenaScope scope(*ctx.workspace);
  Launch(ctx, Quantize(ctx, p, NumRows(p)));
  return true;
}

bool TakesFp8Rows(const GroupedProduct& p) {
  return p.weights.front().format == WeightFormat::kFp8Block && Fits(p);
}

void RunGatedProduct(ExecContext& ctx, const Mat& both, const GroupedProduct& p) {
  const ArenaScope scope(*ctx.workspace);
  const GroupedProduct quantized = WithFp8Room(ctx, p);
  const moebius::cuda::RowsIn in = {both.data, NumRows(p), both.rows, static_cast<int>(both.cols)};
  ctx.device->Check(moebius::cuda::LaunchSwiGluQuantize(in, RowsOut(quantized), ctx.device->stream),
                    "swiglu_quantize");
  Launch(ctx, quantized);
}

// By blocks of 128 x 128, so widths are what the tensor cores take.
bool QuantizesExpertRows(const ExecContext& ctx, WeightFormat format) {
  return format == WeightFormat::kFp8Block && !ctx.device->deterministic;
}

namespace {

RouteTopKLaunch LaunchOf(const RouteTopKArgs& args) {
  RouteTopKLaunch launch;
  launch.logits = FloatsOf(args.logits);
  launch.logits_stride = args.logits.stride;
  launch.rows = args.logits.rows;
  launch.num_experts = static_cast<int>(args.logits.cols);
  launch.score = static_cast<RouteScore>(args.score);
  launch.bias = FloatsOf(args.bias);
  launch.groups = static_cast<RouteGroups>(args.group_score);
  launch.num_groups = args.num_groups;
  launch.num_top_groups = args.num_top_groups;
  launch.k = args.k;
  launch.normalize = args.normalize;
  launch.scale = args.scale;
  launch.experts = args.experts.data();
  launch.weights = args.weights.data();
  return launch;
}

SlotChoiceLaunch ChoiceOf(const SlotChoice& choice, std::span<const TokenId> tokens,
                          std::span<int32_t> slots) {
  SlotChoiceLaunch launch;
  launch.tokens = tokens.data();
  launch.first_slot = choice.first_slot.data();
  launch.counts = choice.counts.data();
  launch.prompt_counts = choice.prompt_counts.data();
  launch.num_decodes = choice.num_decodes;
  if (!choice.replicas.empty()) {
    launch.copies_begin = choice.replicas.begin.data();
    launch.copies = choice.replicas.slots.data();
    launch.slots_per_rank = choice.replicas.slots_per_rank;
    launch.home = choice.replicas.home;
    launch.positions = choice.positions.data();
  }
  launch.slots = slots.data();
  return launch;
}

RouteTopKLaunch LaunchOf(const RouteToSlotsArgs& args) {
  RouteTopKLaunch launch = LaunchOf(args.route);
  launch.choice = ChoiceOf(args.choice, args.tokens, args.slots);
  return launch;
}

GroupBySlotLaunch LaunchOf(const GroupBySlotArgs& args) {
  GroupBySlotLaunch launch;
  launch.slots = args.slots.data();
  launch.num_pairs = static_cast<int64_t>(args.slots.size());
  launch.num_slots = static_cast<int>(args.num_slots);
  launch.offsets = args.offsets.data();
  launch.pairs = args.pairs.data();
  launch.places = args.places.data();
  return launch;
}

}  // namespace

void DrawLogits(ExecContext& ctx, const DrawLogitsArgs& args) {
  DrawLogitsLaunch launch;
  launch.tokens = args.tokens.data();
  launch.positions = args.positions.data();
  launch.log_probabilities = args.log_probabilities.data();
  launch.layer = args.layer;
  launch.logits = args.logits.Row<float>(0);
  launch.logits_stride = args.logits.stride;
  launch.rows = args.logits.rows;
  launch.num_experts = static_cast<int>(args.log_probabilities.size());
  ctx.device->Check(LaunchDrawLogits(launch, ctx.device->stream), "draw_logits");
}

void RouteTopK(ExecContext& ctx, const RouteTopKArgs& args) {
  ctx.device->Check(LaunchRouteTopK(LaunchOf(args), ctx.device->stream), "route_topk");
}

void RouteToSlots(ExecContext& ctx, const RouteToSlotsArgs& args) {
  ctx.device->Check(LaunchRouteTopK(LaunchOf(args), ctx.device->stream), "route_to_slots");
}

void RouteToPlaces(ExecContext& ctx, const RouteToPlacesArgs& args) {
  const int64_t rows = args.route.route.logits.rows;
  if (rows < 1 || rows > kMaxRowsGrouped) return RouteToPlacesInSteps(ctx, args);
  ctx.device->Check(
      LaunchRouteAndGroup(LaunchOf(args.route), LaunchOf(args.group), ctx.device->stream),
      "route_to_places");
}

void ChooseSlots(ExecContext& ctx, const ChooseSlotsArgs& args) {
  ChooseSlotsLaunch launch;
  launch.experts = args.experts.data();
  launch.choice = ChoiceOf(args.choice, args.tokens, args.slots);
  launch.rows = static_cast<int64_t>(args.tokens.size());
  launch.k = static_cast<int>(args.k);
  ctx.device->Check(LaunchChooseSlots(launch, ctx.device->stream), "choose_slots");
}

void GroupBySlot(ExecContext& ctx, const GroupBySlotArgs& args) {
  const ArenaScope scope(*ctx.workspace);
  GroupBySlotLaunch launch = LaunchOf(args);
  launch.workspace = static_cast<int32_t*>(
      ctx.workspace->Alloc(GroupBySlotWorkspace(launch.num_pairs, launch.num_slots)));
  ctx.device->Check(LaunchGroupBySlot(launch, ctx.device->stream), "group_by_slot");
}

namespace {

// The product's rows, brought together by place.
GroupedProduct Gather(ExecContext& ctx, const GroupedSwiGluArgs& args, const GroupedProduct& p) {
  GroupedProduct gathered = p;
  const int64_t places = args.out.rows;
  GatherLaunch gather;
  gather.in = RowsOf(p.rows);
  gather.pairs = args.pairs.data();
  gather.rows_per_pair = args.rows_per_pair;
  gather.places_of = args.places.data();
  gather.rows = p.rows.rows;
  gather.row_scale = args.row_scale.data();
  gather.num_places = args.offsets.data() + args.weights.size();
  gather.places = places;
  gather.cols = p.rows.cols;
  if (p.rows.dtype == DType::kF8E4M3) {
    gathered.rows = Mat(nullptr, p.rows.dtype, places, p.rows.cols);
    gathered = WithFp8Room(ctx, gathered);
    gather.scales = p.row_scales.Row<float>(0);
    gather.scale_stride = p.row_scales.stride;
    gather.out_scales = gathered.row_scales.Row<float>(0);
    gather.out_scale_stride = gathered.row_scales.stride;
  } else {
    gathered.rows = ctx.workspace->AllocMat(p.rows.dtype, places, p.rows.cols);
  }
  gather.out = RowsOf(gathered.rows);
  ctx.device->Check(LaunchGather(gather, ctx.device->stream), "gather");
  return gathered;
}

// Both halves in one product: what comes before the activation.
Mat RunGateUp(ExecContext& ctx, const GroupedSwiGluArgs& args) {
  const int64_t n = args.weights.front().n;
  // Kept while the gathered rows are given back.
  const Mat both = ctx.workspace->AllocMat(args.out.dtype, args.out.rows, 2 * n);
  const ArenaScope scope(*ctx.workspace);
  GroupedProduct product = {.rows = args.a,
                            .row_scales = args.a_scales,
                            .offsets = args.offsets,
                            .weights = args.weights,
                            .n = 2 * n,
                            .out = both,
                            .likely_places = args.likely_places};
  if (args.a.dtype == DType::kBF16 && args.row_scale.empty() && !args.pairs.empty() &&
      !ctx.device->deterministic && TakesFp8Rows(product)) {
    // Once, not for each expert that reads a row.
    MOEBIUS_CHECK_LE(args.a.rows, args.out.rows);
    product = Quantize(ctx, product, nullptr);
  }
  if (!args.pairs.empty() || !args.row_scale.empty()) product = Gather(ctx, args, product);
  product.rows = product.rows.Rows(0, args.out.rows);
  RunGroups(ctx, product);
  return both;
}

}  // namespace

void GroupedSwiGlu(ExecContext& ctx, const GroupedSwiGluArgs& args) {
  FewPlacesLaunch few;
  few.pairs = args.pairs.data();
  few.rows_per_pair = args.rows_per_pair;
  few.row_scale = args.row_scale.data();
  if (RunFewPlaces(ctx, few, args.a, args.offsets, args.weights, args.out)) return;
  const ArenaScope scope(*ctx.workspace);
  const Mat both = RunGateUp(ctx, args);
  GatedLaunch gated;
  gated.in = RowsOf(both);
  gated.out = RowsOf(args.out);
  gated.num_rows = args.offsets.data() + args.weights.size();
  gated.rows = args.out.rows;
  gated.n = both.cols / 2;
  ctx.device->Check(LaunchGated(gated, ctx.device->stream), "grouped_swiglu");
}

void GroupedGemm(ExecContext& ctx, const GroupedGemmArgs& args) {
  if (RunFewPlaces(ctx, {}, args.a, args.offsets, args.weights, args.out)) return;
  RunGroups(ctx, {.rows = args.a,
                  .offsets = args.offsets,
                  .weights = args.weights,
                  .n = args.weights.front().n,
                  .out = args.out,
                  .likely_places = args.likely_places});
}

void GroupedMlp(ExecContext& ctx, const GroupedMlpArgs& args) {
  const GroupedProduct down = {.rows = args.first.out,
                               .offsets = args.first.offsets,
                               .weights = args.down,
                               .n = args.down.front().n,
                               .out = args.out,
                               .likely_places = args.first.likely_places};
  const auto are_few = [&](const PackedWeight& w) {
    return tuning::FewPlacesPay(args.out.rows, std::ssize(args.down), FewRowsShapeOf(w));
  };
  const bool is_few = args.first.a.dtype == DType::kBF16 && are_few(args.first.weights.front()) &&
                      are_few(args.down.front());
  if (ctx.device->deterministic || is_few || !TakesFp8Rows(down)) {
    cuda::GroupedSwiGlu(ctx, args.first);
    FewPlacesLaunch few;
    few.places_known = true;
    if (!RunFewPlaces(ctx, few, args.first.out, down.offsets, args.down, args.out)) {
      RunGroups(ctx, down);
    }
    return;
  }
  const ArenaScope scope(*ctx.workspace);
  const Mat both = RunGateUp(ctx, args.first);
  RunGatedProduct(ctx, both, down);
}

namespace {

WeightedReduceLaunch LaunchOf(const WeightedReduceArgs& args) {
  WeightedReduceLaunch launch;
  launch.in = RowsOf(args.rows);
  launch.places = args.places.data();
  launch.weights = args.weights.data();
  launch.k = static_cast<int>(args.k);
  launch.shared = RowsOf(args.shared);
  launch.out = RowsOf(args.out);
  launch.rows = args.out.rows;
  launch.cols = args.out.cols;
  return launch;
}

}  // namespace

void WeightedReduce(ExecContext& ctx, const WeightedReduceArgs& args) {
  ctx.device->Check(LaunchWeightedReduce(LaunchOf(args), ctx.device->stream), "weighted_reduce");
}

void ReduceAndNorm(ExecContext& ctx, const ReduceAndNormArgs& args) {
  const WeightedReduceLaunch sum = LaunchOf(args.sum);
  const RmsNormLaunch norm = cuda::LaunchOf(args.norm);
  if (!FitsReduceAndNorm(sum, norm)) return ReduceAndNormInSteps(ctx, args);
  ctx.device->Check(LaunchReduceAndNorm(sum, norm, ctx.device->stream), "reduce_and_norm");
}

// What SwiGlu, GroupedSwiGlu, GroupBySlot and MlaPrefill take at most, and the quantised rows of
// fp8 products. Rows that are quantised before they are gathered, of which there are no more than
// places, lie where the gathered ones would in the activations' dtype.
size_t WorkspaceBytes(const OpLimits& l) {
  const auto bytes = [](int64_t count, int64_t size) {
    return static_cast<size_t>(count * size) + Arena::kAlignment;
  };
  const auto act = static_cast<int64_t>(SizeOf(l.act));
  const auto quantised = [&](int64_t rows, int64_t width) {
    return bytes(rows, width) + bytes((rows + 4) * (width / 128 + 1), sizeof(float));
  };
  const size_t dense = bytes(l.rows, 2 * l.gated_width * act) + quantised(l.rows, l.inputs);
  const size_t experts = bytes(l.places, l.expert_inputs * act) +
                         bytes(l.places, 2 * l.expert_width * act) +
                         quantised(l.places, std::max(l.expert_inputs, l.expert_width));
  const size_t grouping =
      l.num_slots > 0 ? GroupBySlotWorkspace(l.places, static_cast<int>(l.num_slots)) : 0;
  // And counters of its groups of heads.
  const size_t latents = l.expands_latents ? kLatentPassBytes + 4096 : 0;
  return std::max({dense, experts, grouping, latents}) + 4 * Arena::kAlignment;
}

}  // namespace moebius::kernels::cuda
