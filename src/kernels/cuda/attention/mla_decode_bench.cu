// MLA decode's rates: batch x context x heads, each launch on other blocks of a pool far larger
// than the L2 cache. Prints Markdown rows. Bytes: cache rows once, queries and outputs; FLOP: 2 x
// 1088 x heads x context a row (heads as asked, not as padded).
//   mla_decode_bench [quick | variants]
#include <cstring>

#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;

struct Pool {
  int64_t rows = int64_t{1536} * 1024;  // 1.8 GB
  Device<__nv_bfloat16> cache = testing::DeviceNormal(rows * kMlaWidth, 3);
};

struct Shape {
  int heads;
  int batch;
  int context;
  int block_size = 64;
  int segment_cost = 8;
};

double Time(const Pool& pool, const Shape& s, int sms) {
  const int64_t rows_needed = static_cast<int64_t>(s.batch) * s.context;
  const auto sets = static_cast<int>(std::clamp<int64_t>(pool.rows / rows_needed, 1, 16));
  const int max_blocks = s.context / s.block_size;
  std::vector<int32_t> order(pool.rows / s.block_size);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  testing::Rng rng(11);
  std::shuffle(order.begin(), order.end(), rng);
  order.resize(static_cast<size_t>(sets) * s.batch * max_blocks);
  const Device<int32_t> table(order);
  const size_t q_size = static_cast<size_t>(s.batch) * s.heads * kMlaWidth;
  const size_t out_size = static_cast<size_t>(s.batch) * s.heads * kMlaLatent;
  const auto q = testing::DeviceNormal(q_size * sets, 5);
  Device<__nv_bfloat16> out(out_size * sets);

  const AttentionSplitOptions options = {.num_workers = MlaDecodeWorkers(sms, s.heads),
                                         .segment_cost = s.segment_cost};
  const AttentionSplits splits =
      SplitAttention(std::vector<int32_t>(s.batch, s.context), {}, options);
  const Device<AttentionSegment> segments(splits.segments);
  const Device<int32_t> workers(splits.worker_begin);
  const Device<AttentionRow> rows(splits.combine);
  Device<uint8_t> workspace(
      MlaDecodeWorkspaceBytes(MaxAttentionSlots(options.num_workers), s.heads));
  const int launches = sets > 1 ? sets : 3;
  return testing::TimeGraph(launches, 7, [&](int i, cudaStream_t stream) {
    const int set = i % sets;
    MlaDecodeArgs args;
    args.q = q.get() + set * q_size;
    args.cache = pool.cache.get();
    args.out = out.get() + set * out_size;
    args.num_rows = s.batch;
    args.cache_rows = pool.rows;
    args.num_heads = s.heads;
    args.scale = 1.0f / std::sqrt(192.0f);
    args.block_table = table.get() + static_cast<int64_t>(set) * s.batch * max_blocks;
    args.max_blocks = max_blocks;
    args.block_size = s.block_size;
    args.segments = segments.get();
    args.worker_begin = workers.get();
    args.combine = rows.get();
    args.num_combine = static_cast<int64_t>(splits.combine.size());
    args.num_workers = options.num_workers;
    args.workspace = workspace.get();
    args.max_slots = MaxAttentionSlots(options.num_workers);
    CUDA_OK(LaunchMlaDecode(args, stream));
  });
}

void Row(const Pool& pool, const Shape& s, int sms, double copy_rate, const char* note) {
  const double us = Time(pool, s, sms);
  const double positions = static_cast<double>(s.batch) * s.context;
  const double bytes =
      positions * kMlaWidth * 2 + 2.0 * s.batch * s.heads * (kMlaWidth + kMlaLatent);
  const double flop = 2.0 * (kMlaWidth + kMlaLatent) * s.heads * positions;
  std::printf("| %d | %d | %d | %d | %s | %.1f | %.0f | %.0f %% | %.0f |\n", s.heads, s.batch,
              s.context, s.block_size, note, us, bytes / us * 1e-3,
              100 * bytes / us * 1e6 / copy_rate, flop / us * 1e-6);
  std::fflush(stdout);
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main(int argc, char** argv) {
  using namespace moebius::kernels::cuda;
  const bool quick = argc > 1 && std::strcmp(argv[1], "quick") == 0;
  const bool variants = argc > 1 && std::strcmp(argv[1], "variants") == 0;
  cudaDeviceProp device;
  CUDA_OK(cudaGetDeviceProperties(&device, 0));
  const int sms = device.multiProcessorCount;
  const double copy_rate = testing::CopyRate();
  std::printf("%s, %d multiprocessors, copy %.0f GB/s (read + written)\n\n", device.name, sms,
              copy_rate * 1e-9);
  const Pool pool;
  std::printf("| heads | batch | context | block | variant | us | GB/s | of copy | TFLOP/s |\n");
  std::printf("| --: | --: | --: | --: | --- | --: | --: | --: | --: |\n");
  for (const int heads : {128, 64, 32, 16}) {
    if (variants || (quick && heads == 32)) continue;
    for (const int batch : {1, 8, 32, 64, 128, 256}) {
      if (quick && (batch == 1 || batch == 32 || batch == 64)) continue;
      for (const int context : {1024, 2048, 4096, 8192, 16384}) {
        if (quick && context != 4096) continue;
        if (static_cast<int64_t>(batch) * context > pool.rows) continue;
        Row(pool, {heads, batch, context}, sms, copy_rate, "");
      }
    }
  }
  for (const int heads : {128, 64}) {
    Row(pool, {heads, 128, 4096, 16}, sms, copy_rate, "blocks of 16");
    for (const int cost : {0, 2, 6, 10}) {
      const std::string note = "segment cost " + std::to_string(cost);
      Row(pool, {heads, 8, 4096, 64, cost}, sms, copy_rate, note.c_str());
      Row(pool, {heads, 128, 4096, 64, cost}, sms, copy_rate, note.c_str());
    }
  }
  return 0;
}
