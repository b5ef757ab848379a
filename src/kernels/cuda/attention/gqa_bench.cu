// Grouped-query attention's rates: decode (bound by memory) and prefill (bound by arithmetic).
// Prefill's FLOP: 4 x width x heads x visible positions.
#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;

struct Shape {
  int heads, kv_heads, dim, batch, queries, context;
};

void Row(const Shape& s, int sms, double copy_rate) {
  constexpr int kBlock = 16;
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
  const double us = testing::TimeGraph(std::max(sets, 2), 7, [&](int i, cudaStream_t stream) {
    GqaArgs now = args;
    now.shape.block_table = table.get() + int64_t{i % sets} * s.batch * max_blocks;
    CUDA_OK(LaunchGqa(now, stream));
  });
  const double bytes = 4.0 * s.batch * s.context * static_cast<double>(width) + 4.0 * q_size;
  const double visible =
      static_cast<double>(s.batch) * s.queries * (s.context - (s.queries - 1) / 2.0);
  std::printf("| %d / %d x %d | %d | %d | %d | %.1f | %.0f | %.0f %% | %.0f |\n", s.heads,
              s.kv_heads, s.dim, s.batch, s.queries, s.context, us, bytes / us * 1e-3,
              100 * bytes / us * 1e6 / copy_rate, 4.0 * s.dim * s.heads * visible / us * 1e-6);
  std::fflush(stdout);
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  int sms = 0;
  CUDA_OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  const double copy_rate = testing::CopyRate();
  std::printf("copy %.0f GB/s (read + written)\n\n", copy_rate * 1e-9);
  std::printf("| heads | batch | queries | context | us | GB/s | of copy | TFLOP/s |\n");
  std::printf("| --- | --: | --: | --: | --: | --: | --: | --: |\n");
  Row({32, 4, 128, 1, 1, 8192}, sms, copy_rate);
  Row({32, 4, 128, 32, 1, 4096}, sms, copy_rate);
  Row({32, 4, 128, 128, 1, 4096}, sms, copy_rate);
  Row({32, 8, 128, 64, 1, 4096}, sms, copy_rate);
  Row({64, 8, 64, 64, 1, 4096}, sms, copy_rate);
  Row({32, 4, 128, 1, 4096, 4096}, sms, copy_rate);
  Row({32, 8, 128, 4, 2048, 2048}, sms, copy_rate);
  return 0;
}
