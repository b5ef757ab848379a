// Grouped-query attention's rates: decode (bound by memory) and prefill (bound by arithmetic).
// Prefill's FLOP: 4 x width x heads x visible positions. One head of one query of each row is
// checked.
#include "kernels/cuda/attention/bench_check.cuh"
#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/benches.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;

struct Shape {
  int heads, kv_heads, dim, batch, queries, context;
};

constexpr int kBlock = 16;

// Of the last query, which sees its request's whole context, the last head. table: that request's
// blocks.
bool IsRight(const Shape& s, const int32_t* table, const __nv_bfloat16* k, const __nv_bfloat16* v,
             const __nv_bfloat16* q, const __nv_bfloat16* out, double scale) {
  const int64_t width = int64_t{s.kv_heads} * s.dim;
  const int64_t row = int64_t{s.batch} * s.queries * s.heads - 1;
  std::vector<float> keys, values;
  for (int b = 0; b < s.context / kBlock; ++b) {
    const int64_t at = int64_t{table[b]} * kBlock * width;
    for (const auto& [cache, rows] : {std::pair(k, &keys), std::pair(v, &values)}) {
      const auto block = ReadFloats(cache + at, kBlock * width);
      for (int i = 0; i < kBlock; ++i) {
        const auto end = block.begin() + (i + 1) * width;
        rows->insert(rows->end(), end - s.dim, end);
      }
    }
  }
  const auto want =
      AttendOnHost(ReadFloats(q + row * s.dim, s.dim), keys, s.dim, values, s.dim, s.dim, scale);
  return IsCloseTo(ReadFloats(out + row * s.dim, s.dim), want);
}

bool Row(const Shape& s, int sms, double copy_rate, std::FILE* json) {
  const int64_t pool_rows = int64_t{1} << 20;
  const int64_t width = int64_t{s.kv_heads} * s.dim;
  const auto k = testing::DeviceNormal(pool_rows * width, 1);
  const auto v = testing::DeviceNormal(pool_rows * width, 2);
  const int64_t q_size = int64_t{s.batch} * s.queries * s.heads * s.dim;
  const auto q = testing::DeviceNormal(q_size, 3);
  Device<__nv_bfloat16> out(q_size);
  const int max_blocks = s.context / kBlock;
  const int sets =
      static_cast<int>(std::clamp<int64_t>(pool_rows / (int64_t{s.batch} * s.context), 1, 8));
  std::vector<int32_t> order(pool_rows / kBlock);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  testing::Rng rng(5);
  std::shuffle(order.begin(), order.end(), rng);
  const Device<int32_t> table(order);
  std::vector<int32_t> query_start(s.batch + 1);
  for (int i = 0; i <= s.batch; ++i) query_start[i] = i * s.queries;
  GqaArgs args;
  args.max_queries = GqaQueriesPerItem(s.heads, s.kv_heads, s.queries == 1);
  const auto items =
      AttentionItems(query_start, std::vector<int32_t>(s.batch, s.context), args.max_queries);
  args.num_workers = GqaWorkers(sms, s.heads, s.kv_heads, args.max_queries, s.dim);
  const auto splits = SplitAttention(items, {.num_workers = args.num_workers, .segment_cost = 2});
  const Device<AttentionSegment> segments(splits.segments);
  const Device<int32_t> workers(splits.worker_begin);
  const Device<AttentionRow> rows(splits.combine);
  Device<uint8_t> workspace(GqaWorkspaceBytes(splits.num_slots, args.max_queries, s.heads, s.dim));
  args.shape.q = q.get();
  args.shape.k_cache = k.get();
  args.shape.v_cache = v.get();
  args.shape.out = out.get();
  args.shape.k_stride = args.shape.v_stride = width;
  args.shape.num_heads = s.heads;
  args.shape.num_kv_heads = s.kv_heads;
  args.shape.head_dim = args.shape.v_head_dim = s.dim;
  args.shape.scale = 1.0f / std::sqrt(static_cast<float>(s.dim));
  args.shape.max_blocks = max_blocks;
  args.shape.block_size = kBlock;
  args.segments = segments.get();
  args.worker_begin = workers.get();
  args.combine = rows.get();
  args.num_combine = static_cast<int64_t>(splits.combine.size());
  args.workspace = workspace.get();
  args.max_slots = splits.num_slots;
  const int launches = std::max(sets, 2);
  const double us = testing::TimeGraph(launches, 7, [&](int i, cudaStream_t stream) {
    GqaArgs now = args;
    now.shape.block_table = table.get() + int64_t{i % sets} * s.batch * max_blocks;
    CUDA_OK(LaunchGqa(now, stream));
  });
  const double bytes = 4.0 * s.batch * s.context * static_cast<double>(width) + 4.0 * q_size;
  const double visible =
      static_cast<double>(s.batch) * s.queries * (s.context - (s.queries - 1) / 2.0);
  const double flop = 4.0 * s.dim * s.heads * visible;
  const int64_t last_request = int64_t{(launches - 1) % sets} * s.batch + s.batch - 1;
  const bool right = IsRight(s, order.data() + last_request * max_blocks, k.get(), v.get(), q.get(),
                             out.get(), args.shape.scale);
  std::printf("| %d / %d x %d | %d | %d | %d | %.1f | %.0f | %.0f %% | %.0f | %s |\n", s.heads,
              s.kv_heads, s.dim, s.batch, s.queries, s.context, us, bytes / us * 1e-3,
              100 * bytes / us * 1e6 / copy_rate, flop / us * 1e-6, right ? "yes" : "NO");
  std::fflush(stdout);
  if (json != nullptr) {
    std::fprintf(json,
                 "{\"section\":\"gqa\",\"heads\":%d,\"kv_heads\":%d,\"dim\":%d,\"batch\":%d,"
                 "\"queries\":%d,\"context\":%d,\"us\":%.2f,\"gbs\":%.0f,\"tflops\":%.0f,"
                 "\"copy_gbs\":%.0f,\"correct\":%s}\n",
                 s.heads, s.kv_heads, s.dim, s.batch, s.queries, s.context, us, bytes / us * 1e-3,
                 flop / us * 1e-6, copy_rate * 1e-9, right ? "true" : "false");
  }
  return right;
}

}  // namespace

bool BenchGqa(std::FILE* json) {
  int sms = 0;
  CUDA_OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  const double copy_rate = testing::CopyRate();
  std::printf("\nGrouped-query attention, copy %.0f GB/s (read + written)\n\n", copy_rate * 1e-9);
  std::printf("| heads | batch | queries | context | us | GB/s | of copy | TFLOP/s | right |\n");
  std::printf("| --- | --: | --: | --: | --: | --: | --: | --: | --- |\n");
  constexpr Shape kShapes[] = {{32, 4, 128, 1, 1, 8192},   {32, 4, 128, 32, 1, 4096},
                               {32, 4, 128, 128, 1, 4096}, {32, 8, 128, 64, 1, 4096},
                               {64, 8, 64, 64, 1, 4096},   {32, 4, 128, 1, 4096, 4096},
                               {32, 8, 128, 4, 2048, 2048}};
  bool right = true;
  for (const Shape& shape : kShapes) right = Row(shape, sms, copy_rate, json) && right;
  return right;
}

}  // namespace moebius::kernels::cuda
