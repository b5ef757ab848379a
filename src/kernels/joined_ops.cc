// Operations made of others: checked here, run in one by the back ends that have something better
// than their steps.
#include <utility>

#include "kernels/backend.h"
#include "kernels/op_checks.h"

namespace moebius::kernels {

void BeginBeside(ExecContext& ctx) { ctx.backend->begin_beside(ctx); }
void EndBeside(ExecContext& ctx) { ctx.backend->end_beside(ctx); }

void Mlp(ExecContext& ctx, const MlpArgs& args) {
  const SwiGluArgs& first = args.first;
  CheckAct(first.a, args.out.rows, first.w->k);
  CheckWeight(*first.w, first.a.cols, true);
  CheckAct(first.out, first.a.rows, first.w->n);
  CheckSameDType(first.a, first.out);
  CheckWeight(*args.down, first.out.cols, false);
  CheckAct(args.out, first.a.rows, args.down->n);
  if (args.out.rows > 0) ctx.backend->mlp(ctx, args);
}

void MlpInSteps(ExecContext& ctx, const MlpArgs& args) {
  SwiGlu(ctx, args.first);
  Gemm(ctx, {.a = args.first.out, .w = args.down, .bias = {}, .out = args.out});
}

namespace {

void CheckRoute(const ExecContext& ctx, const RouteToSlotsArgs& args) {
  const int64_t rows = args.route.logits.rows;
  const int64_t num_experts = args.route.logits.cols;
  CheckF32(args.route.logits, rows, num_experts);
  MOEBIUS_CHECK_GE(args.route.k, 1);
  CheckLength(args.route.experts, rows * args.route.k);
  CheckLength(args.route.weights, rows * args.route.k);
  CheckLength(args.tokens, rows);
  CheckChoice(ctx, args.choice, num_experts, rows);
  CheckLength(args.slots, rows * args.route.k);
}

}  // namespace

void RouteToSlots(ExecContext& ctx, const RouteToSlotsArgs& args) {
  CheckRoute(ctx, args);
  if (args.route.logits.rows > 0) ctx.backend->route_to_slots(ctx, args);
}

void RouteToSlotsInSteps(ExecContext& ctx, const RouteToSlotsArgs& args) {
  RouteTopK(ctx, args.route);
  ChooseSlots(ctx, {.experts = args.route.experts,
                    .tokens = args.tokens,
                    .k = args.route.k,
                    .choice = args.choice,
                    .slots = args.slots});
}

void RouteToPlaces(ExecContext& ctx, const RouteToPlacesArgs& args) {
  CheckRoute(ctx, args.route);
  MOEBIUS_CHECK(args.group.slots.data() == args.route.slots.data());
  CheckLength(args.group.slots, std::ssize(args.route.slots));
  CheckLength(args.group.offsets, args.group.num_slots + 1);
  CheckLength(args.group.pairs, std::ssize(args.route.slots));
  CheckLength(args.group.places, std::ssize(args.route.slots));
  ctx.backend->route_to_places(ctx, args);
}

void RouteToPlacesInSteps(ExecContext& ctx, const RouteToPlacesArgs& args) {
  RouteToSlots(ctx, args.route);
  GroupBySlot(ctx, args.group);
}

void GroupedMlp(ExecContext& ctx, const GroupedMlpArgs& args) {
  const GroupedSwiGluArgs& first = args.first;
  MOEBIUS_CHECK_EQ(args.down.size(), first.weights.size());
  CheckLength(first.offsets, static_cast<int64_t>(args.down.size()) + 1);
  CheckExpertRows(ctx, first);
  CheckAct(first.out, first.out.rows, first.out.cols);
  CheckAct(args.out, first.out.rows, args.out.cols);
  for (size_t s = 0; s < args.down.size(); ++s) {
    if (first.weights[s].data != nullptr) CheckWeight(first.weights[s], first.a.cols, true);
    if (args.down[s].data != nullptr) CheckWeight(args.down[s], first.out.cols, false);
  }
  if (!args.down.empty()) ctx.backend->grouped_mlp(ctx, args);
}

void GroupedMlpInSteps(ExecContext& ctx, const GroupedMlpArgs& args) {
  GroupedSwiGlu(ctx, args.first);
  GroupedGemm(ctx, {.a = args.first.out,
                    .offsets = args.first.offsets,
                    .weights = args.down,
                    .out = args.out,
                    .likely_places = args.first.likely_places});
}

void ReduceAndNorm(ExecContext& ctx, const ReduceAndNormArgs& args) {
  CheckReduce(ctx, args.sum);
  CheckNorm(args.norm);
  MOEBIUS_CHECK(args.norm.x.data == args.sum.out.data);
  CheckAct(args.norm.x, args.sum.out.rows, args.sum.out.cols);
  if (args.sum.out.rows > 0) ctx.backend->reduce_and_norm(ctx, args);
}

void ReduceAndNormInSteps(ExecContext& ctx, const ReduceAndNormArgs& args) {
  WeightedReduce(ctx, args.sum);
  RmsNorm(ctx, args.norm);
}

void PrepareHeads(ExecContext& ctx, const PrepareHeadsArgs& args) {
  const auto rows = static_cast<int64_t>(args.rows.size());
  const int64_t kv_width = args.num_kv_heads * args.head_dim;
  CheckAct(args.qkv, rows, args.num_heads * args.head_dim + 2 * kv_width);
  MOEBIUS_CHECK_EQ(args.q_norm.data == nullptr, args.k_norm.data == nullptr);
  if (args.q_norm.data != nullptr) {
    CheckF32(args.q_norm, 1, args.head_dim);
    CheckF32(args.k_norm, 1, args.head_dim);
  }
  MOEBIUS_CHECK_EQ(args.head_dim % 2, 0);
  MOEBIUS_CHECK_LE(args.head_dim, kMaxRopeDim);
  CheckLength(args.positions, rows);
  CheckF32(args.table, args.table.rows, args.head_dim);
  for (const Position position : Readable(ctx, args.positions)) {
    MOEBIUS_CHECK_GE(position, 0);
    MOEBIUS_CHECK_LT(position, args.table.rows);
  }
  CheckAct(args.k_cache, args.k_cache.rows, kv_width);
  CheckAct(args.v_cache, args.k_cache.rows, kv_width);
  CheckSameDType(args.k_cache, args.v_cache);
  for (const int64_t row : Readable(ctx, args.rows)) MOEBIUS_CHECK_LT(row, args.k_cache.rows);
  if (rows > 0) ctx.backend->prepare_heads(ctx, args);
}

void PrepareHeadsInSteps(ExecContext& ctx, const PrepareHeadsArgs& args) {
  const int64_t q_width = args.num_heads * args.head_dim;
  const int64_t kv_width = args.num_kv_heads * args.head_dim;
  const Mat q = args.qkv.Cols(0, q_width);
  const Mat k = args.qkv.Cols(q_width, kv_width);
  const Mat v = args.qkv.Cols(q_width + kv_width, kv_width);
  if (args.q_norm.data != nullptr) {
    for (const auto& [x, weight] : {std::pair(q, args.q_norm), std::pair(k, args.k_norm)}) {
      RmsNorm(ctx, {.x = x,
                    .residual = {},
                    .weight = weight,
                    .eps = args.eps,
                    .group = args.head_dim,
                    .out = x});
    }
  }
  Rope(ctx, {.x = args.qkv.Cols(0, q_width + kv_width),  // keys follow queries
             .num_heads = args.num_heads + args.num_kv_heads,
             .head_stride = args.head_dim,
             .dim = args.head_dim,
             .interleaved = args.interleaved,
             .positions = args.positions,
             .table = args.table});
  KvWrite(ctx, {.x = k, .rows = args.rows, .cache = args.k_cache});
  KvWrite(ctx, {.x = v, .rows = args.rows, .cache = args.v_cache});
}

void PrepareLatents(ExecContext& ctx, const PrepareLatentsArgs& args) {
  const auto rows = static_cast<int64_t>(args.rows.size());
  const int64_t rope_dim = args.x.cols - args.latent_dim;
  CheckAct(args.x, rows, args.x.cols);
  CheckF32(args.norm, 1, args.latent_dim);
  MOEBIUS_CHECK_GT(rope_dim, 0);
  MOEBIUS_CHECK_EQ(rope_dim % 2, 0);
  CheckLength(args.positions, rows);
  CheckF32(args.table, args.table.rows, rope_dim);
  CheckLatentCache(args.cache, args.latent_dim, rope_dim);
  if (args.q.data != nullptr) {
    CheckAct(args.q, rows, args.q.cols);
    CheckSameDType(args.q, args.x);
    CheckF32(args.q_norm, 1, args.q.cols);
  }
  if (rows > 0) ctx.backend->prepare_latents(ctx, args);
}

void PrepareLatentsInSteps(ExecContext& ctx, const PrepareLatentsArgs& args) {
  if (args.q.data != nullptr) {
    RmsNorm(ctx,
            {.x = args.q, .residual = {}, .weight = args.q_norm, .eps = args.q_eps, .out = args.q});
  }
  const Mat latent = args.x.Cols(0, args.latent_dim);
  RmsNorm(ctx, {.x = latent, .residual = {}, .weight = args.norm, .eps = args.eps, .out = latent});
  Rope(ctx, {.x = args.x,
             .head_stride = args.x.cols,
             .offset = args.latent_dim,
             .dim = args.x.cols - args.latent_dim,
             .interleaved = args.interleaved,
             .positions = args.positions,
             .table = args.table});
  KvWrite(ctx,
          {.x = args.x, .rows = args.rows, .cache = args.cache, .latent_dim = args.latent_dim});
}

}  // namespace moebius::kernels
