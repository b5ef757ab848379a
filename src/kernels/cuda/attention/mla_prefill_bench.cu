// MLA of prompts' chunks: expanded (gather, expand, attend) beside absorbed (both products and the
// decode kernel, a row at a time). FLOP: 2 x (192 + 128) x heads a visible position, causal. The
// last head of the last query of each row is checked, from the keys and values that the products
// gave.
#include "kernels/cuda/attention/bench_check.cuh"
#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/attention/mla_prefill.h"
#include "kernels/cuda/benches.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;
using RunDense = std::function<void(const DenseProduct&, CUstream_st*)>;

constexpr int kBlock = 64;
// Keys are sums of 512 products of normal numbers here: about 22 as large as queries.
constexpr float kScale = 1.0f / (13.86f * 22.6f);

struct Chunks {
  int heads, batch, queries, context;
  int64_t rows() const { return int64_t{batch} * queries; }
  int64_t cache_rows() const { return int64_t{batch} * context; }
  double visible() const { return static_cast<double>(rows()) * (context - (queries - 1) / 2.0); }
};

// Inputs of one row of the table, and what both ways make of them.
struct Inputs {
  explicit Inputs(const Chunks& c)
      : cache(testing::DeviceNormal(c.cache_rows() * kMlaWidth, 1)),
        q(testing::DeviceNormal(c.rows() * c.heads * kMlaQuery, 2)),
        absorbed_q(testing::DeviceNormal(c.rows() * c.heads * kMlaWidth, 3)),
        w_uk(testing::DeviceNormal(int64_t{c.heads} * kMlaLatent * kMlaHead, 4)),
        w_uv(testing::DeviceNormal(int64_t{c.heads} * kMlaLatent * kMlaHead, 5)),
        out(c.rows() * c.heads * kMlaHead),
        table(Blocks(c)) {
    for (int i = 0; i <= c.batch; ++i) query_start.push_back(i * c.queries);
    contexts.assign(c.batch, c.context);
  }
  static std::vector<int32_t> Blocks(const Chunks& c) {
    std::vector<int32_t> order(c.cache_rows() / kBlock);
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    testing::Rng rng(5);
    std::shuffle(order.begin(), order.end(), rng);
    return order;
  }
  Device<__nv_bfloat16> cache, q, absorbed_q, w_uk, w_uv, out;
  Device<int32_t> table;
  std::vector<int32_t> query_start, contexts;
};

// [rows, width] of a matrix with `stride` between rows.
std::vector<float> ReadColumns(const __nv_bfloat16* from, int64_t rows, int64_t stride,
                               int64_t width) {
  Device<__nv_bfloat16> packed(rows * width);
  CUDA_OK(cudaMemcpy2D(packed.get(), width * 2, from, stride * 2, width * 2, rows,
                       cudaMemcpyDeviceToDevice));
  return ReadFloats(packed.get(), rows * width);
}

// Of a head: out = a w^T or a w. w: [512, 128] or [128, 512] by head.
DenseProduct HeadProduct(const Chunks& c, const __nv_bfloat16* w, int64_t rows) {
  DenseProduct product;
  product.w = w;
  product.w_batch = int64_t{kMlaLatent} * kMlaHead;
  product.rows = rows;
  product.batch = c.heads;
  return product;
}

struct ExpandedTime {
  double attend_us = 0;
  double all_us = 0;
  int heads_at_a_time = 0;
  bool right = false;
};

ExpandedTime TimeExpanded(const Chunks& c, const Inputs& in, int sms, const RunDense& dense) {
  const auto items = AttentionItems(in.query_start, in.contexts, c.queries);
  const LatentPasses plan = PlanLatentPasses(items, {.num_heads = c.heads, .num_sms = sms});
  const Device<LatentSequence> sequences(plan.sequences);
  const Device<LatentTile> tiles(plan.tiles);
  Device<uint8_t> workspace(kLatentPassBytes);
  Device<int32_t> next(c.heads);
  const __nv_bfloat16* keys = nullptr;
  const __nv_bfloat16* values = nullptr;
  const auto run = [&](cudaStream_t stream, bool expands) {
    for (const LatentPass& pass : plan.passes) {
      auto* latents = reinterpret_cast<__nv_bfloat16*>(workspace.get());
      auto* k = latents + int64_t{pass.num_keys} * kMlaWidth;
      auto* v = k + int64_t{pass.num_keys} * pass.num_heads * kMlaHead;
      keys = k;
      values = v;
      GatherLatentsLaunch gather;
      gather.cache = in.cache.get();
      gather.cache_stride = kMlaWidth;
      gather.block_table = in.table.get();
      gather.max_blocks = c.context / kBlock;
      gather.block_size = kBlock;
      gather.sequences = sequences.get() + pass.first_sequence;
      gather.num_sequences = pass.num_sequences;
      gather.num_keys = pass.num_keys;
      gather.latents = latents;
      gather.next = next.get();
      gather.num_next = c.heads;
      CUDA_OK(LaunchGatherLatents(gather, stream));
      MlaPrefillLaunch launch;
      launch.q = in.q.get();
      launch.q_stride = int64_t{c.heads} * kMlaQuery;
      launch.num_rows = c.rows();
      launch.latents = latents;
      launch.keys = k;
      launch.values = v;
      launch.expanded_stride = int64_t{pass.num_heads} * kMlaHead;
      launch.num_keys = pass.num_keys;
      launch.tiles = tiles.get() + pass.first_tile;
      launch.num_tiles = pass.num_tiles;
      launch.num_sms = sms;
      launch.scale = kScale;
      launch.out = in.out.get();
      launch.out_stride = int64_t{c.heads} * kMlaHead;
      for (int first = 0; first < c.heads; first += pass.num_heads) {
        launch.first_head = first;
        launch.num_heads = std::min(pass.num_heads, c.heads - first);
        launch.next = next.get() + first / pass.num_heads;
        const int64_t w_begin = int64_t{first} * kMlaLatent * kMlaHead;
        DenseProduct product = HeadProduct(c, in.w_uk.get() + w_begin, pass.num_keys);
        product.batch = launch.num_heads;
        product.w_transposed = true;
        product.a = latents;
        product.a_stride = kMlaWidth;
        product.out = k;
        product.out_stride = launch.expanded_stride;
        product.out_batch = kMlaHead;
        product.n = kMlaHead;
        product.k = kMlaLatent;
        if (expands) dense(product, stream);
        product.w = in.w_uv.get() + w_begin;
        product.w_transposed = false;
        product.out = v;
        product.n = kMlaHead * launch.num_heads;  // one weight of all heads
        product.batch = 1;
        if (expands) dense(product, stream);
        CUDA_OK(LaunchMlaPrefill(launch, stream));
      }
    }
  };
  run(nullptr, true);  // kernels are loaded, which a capture does not allow
  const auto time = [&](bool expands) {
    return testing::TimeGraph(1, 5, [&](int, cudaStream_t stream) { run(stream, expands); });
  };
  ExpandedTime result;
  result.all_us = time(true);
  result.attend_us = time(false);
  const LatentPass& last = plan.passes.back();
  result.heads_at_a_time = last.num_heads;
  // The last launch's last head: of a last group that may have fewer heads.
  const int of_group = (c.heads - 1) % last.num_heads;
  const int64_t stride = int64_t{last.num_heads} * kMlaHead;
  const int64_t first_key = plan.sequences.back().first_key;
  const auto k =
      ReadColumns(keys + first_key * stride + of_group * kMlaHead, c.context, stride, kMlaHead);
  const auto v =
      ReadColumns(values + first_key * stride + of_group * kMlaHead, c.context, stride, kMlaHead);
  const auto rope = ReadColumns(
      reinterpret_cast<const __nv_bfloat16*>(workspace.get()) + first_key * kMlaWidth + kMlaLatent,
      c.context, kMlaWidth, 64);
  std::vector<float> whole;
  for (int p = 0; p < c.context; ++p) {
    whole.insert(whole.end(), k.begin() + p * kMlaHead, k.begin() + (p + 1) * kMlaHead);
    whole.insert(whole.end(), rope.begin() + p * 64, rope.begin() + (p + 1) * 64);
  }
  const int64_t row = c.rows() * c.heads - 1;
  const auto q = ReadFloats(in.q.get() + row * kMlaQuery, kMlaQuery);
  result.right = IsCloseTo(ReadFloats(in.out.get() + row * kMlaHead, kMlaHead),
                           AttendOnHost(q, whole, kMlaQuery, v, kMlaHead, kMlaHead, kScale));
  return result;
}

double TimeAbsorbed(const Chunks& c, const Inputs& in, int sms, const RunDense& dense) {
  const auto items = AttentionItems(in.query_start, in.contexts, 1);
  const int workers_count = MlaDecodeWorkers(sms, c.heads);
  const AttentionSplits splits = SplitAttention(items, {.num_workers = workers_count});
  const Device<AttentionSegment> segments(splits.segments);
  const Device<int32_t> workers(splits.worker_begin);
  const Device<AttentionRow> combine(splits.combine);
  Device<uint8_t> workspace(MlaDecodeWorkspaceBytes(MaxAttentionSlots(workers_count), c.heads));
  Device<__nv_bfloat16> latent_out(c.rows() * c.heads * kMlaLatent);
  const auto run = [&](cudaStream_t stream) {
    DenseProduct product = HeadProduct(c, in.w_uk.get(), c.rows());
    product.a = in.q.get();
    product.a_stride = int64_t{c.heads} * kMlaQuery;
    product.a_batch = kMlaQuery;
    product.out = in.absorbed_q.get();
    product.out_stride = int64_t{c.heads} * kMlaWidth;
    product.out_batch = kMlaWidth;
    product.n = kMlaLatent;
    product.k = kMlaHead;
    dense(product, stream);
    MlaDecodeArgs args;
    args.q = in.absorbed_q.get();
    args.cache = in.cache.get();
    args.out = latent_out.get();
    args.num_rows = c.rows();
    args.cache_rows = c.cache_rows();
    args.num_heads = c.heads;
    args.scale = kScale;
    args.block_table = in.table.get();
    args.max_blocks = c.context / kBlock;
    args.block_size = kBlock;
    args.segments = segments.get();
    args.worker_begin = workers.get();
    args.combine = combine.get();
    args.num_combine = static_cast<int64_t>(splits.combine.size());
    args.num_workers = workers_count;
    args.workspace = workspace.get();
    args.max_slots = MaxAttentionSlots(workers_count);
    CUDA_OK(LaunchMlaDecode(args, stream));
    product = HeadProduct(c, in.w_uv.get(), c.rows());
    product.a = latent_out.get();
    product.a_stride = int64_t{c.heads} * kMlaLatent;
    product.a_batch = kMlaLatent;
    product.out = in.out.get();
    product.out_stride = int64_t{c.heads} * kMlaHead;
    product.out_batch = kMlaHead;
    product.n = kMlaHead;
    product.k = kMlaLatent;
    dense(product, stream);
  };
  run(nullptr);
  return testing::TimeGraph(1, 3, [&](int, cudaStream_t stream) { run(stream); });
}

bool Row(const Chunks& c, int sms, const RunDense& dense, std::FILE* json) {
  const Inputs in(c);
  const ExpandedTime time = TimeExpanded(c, in, sms, dense);
  const double absorbed = TimeAbsorbed(c, in, sms, dense);
  const double flop = 2.0 * (192 + kMlaHead) * c.heads * c.visible();
  const double rate = flop / time.attend_us * 1e-6;
  std::printf("| %d | %d | %d | %d | %d | %.0f | %.0f | %.0f | %.0f | %.2f | %s |\n", c.heads,
              c.batch, c.queries, c.context, time.heads_at_a_time, time.attend_us, rate,
              time.all_us, absorbed, absorbed / time.all_us, time.right ? "yes" : "NO");
  std::fflush(stdout);
  if (json != nullptr) {
    std::fprintf(json,
                 "{\"section\":\"mla_prefill\",\"heads\":%d,\"batch\":%d,\"queries\":%d,"
                 "\"context\":%d,\"attend_us\":%.1f,\"tflops\":%.0f,\"us\":%.1f,"
                 "\"absorbed_us\":%.1f,\"correct\":%s}\n",
                 c.heads, c.batch, c.queries, c.context, time.attend_us, rate, time.all_us,
                 absorbed, time.right ? "true" : "false");
  }
  return time.right;
}

}  // namespace

bool BenchMlaPrefill(const std::function<void(const DenseProduct&, CUstream_st*)>& dense,
                     std::FILE* json) {
  int sms = 0;
  CUDA_OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  std::printf("\nMLA of prompts' chunks, latents expanded; beside it absorbed\n\n");
  std::printf(
      "| heads | prompts | queries | context | heads at a time | attend us | TFLOP/s | all us | "
      "absorbed us | absorbed / all | right |\n");
  std::printf("| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --- |\n");
  constexpr Chunks kRows[] = {{128, 4, 2048, 2048}, {128, 1, 8192, 8192}, {128, 16, 512, 512},
                              {128, 1, 2048, 8192}, {128, 1, 256, 8192},  {128, 1, 2048, 65536},
                              {64, 1, 8192, 8192},  {16, 4, 2048, 2048},  {16, 1, 8192, 8192}};
  bool right = true;
  for (const Chunks& row : kRows) right = Row(row, sms, dense, json) && right;
  return right;
}

}  // namespace moebius::kernels::cuda
