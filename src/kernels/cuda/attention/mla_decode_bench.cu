// MLA decode's rates: batch x context x heads, each launch on other blocks of a pool far larger
// than the L2 cache. Prints Markdown rows. Bytes: cache rows once, queries and outputs; FLOP: 2 x
// 1088 x heads x context a row (heads as asked, not as padded). One head of one request of each row
// is checked.
#include <cuda_fp8.h>

#include "kernels/cuda/attention/bench_check.cuh"
#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/benches.h"
#include "kernels/cuda/testing.cuh"
#include "kernels/latent_row.h"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;

constexpr LatentRow kFp8Row = {kMlaLatent, kMlaWidth - kMlaLatent};

// A block a row, a thread a latent: with scale 1/64, so that normal numbers use much of e4m3's
// range. Into `cache` what the rows mean.
__global__ void FillFp8(__nv_bfloat16* cache, uint8_t* rows) {
  __nv_bfloat16* x = cache + int64_t{blockIdx.x} * kMlaWidth;
  uint8_t* row = rows + int64_t{blockIdx.x} * kFp8Row.bytes();
  const int c = threadIdx.x;
  const __nv_fp8_e4m3 code(__bfloat162float(x[c]) * 64);
  row[c] = code.__x;
  x[c] = __float2bfloat16(static_cast<float>(code) / 64);
  if (c < kFp8Row.num_blocks()) {
    reinterpret_cast<float*>(row + kFp8Row.scales_at())[c] = 1.0f / 64;
  }
  if (c < kFp8Row.rope_dim) {
    reinterpret_cast<__nv_bfloat16*>(row + kFp8Row.rope_at())[c] = x[kMlaLatent + c];
  }
}

struct Pool {
  Pool() {
    FillFp8<<<static_cast<unsigned>(rows), kMlaLatent>>>(cache.get(), fp8.get());
    CUDA_OK(cudaDeviceSynchronize());
  }
  int64_t rows = int64_t{1536} * 1024;  // 1.8 GB, and 1.0 GB in fp8
  Device<__nv_bfloat16> cache = testing::DeviceNormal(rows * kMlaWidth, 3);
  Device<uint8_t> fp8 = Device<uint8_t>(rows * kFp8Row.bytes());
};

struct Shape {
  int heads;
  int batch;
  int context;
  int block_size = 64;
  int segment_cost = 8;
  bool is_fp8 = false;
};

struct MlaTime {
  double us = 0;
  bool right = false;
};

// Of the last request's last head, in the first set.
bool IsRight(const Pool& pool, const Shape& s, const std::vector<int32_t>& order,
             const __nv_bfloat16* q, const __nv_bfloat16* out, double scale) {
  const int64_t row = int64_t{s.batch} * s.heads - 1;
  const int blocks = s.context / s.block_size;
  std::vector<float> keys;
  for (int b = 0; b < blocks; ++b) {
    const int64_t block = order[(int64_t{s.batch} - 1) * blocks + b];
    const auto rows = ReadFloats(pool.cache.get() + block * s.block_size * kMlaWidth,
                                 int64_t{s.block_size} * kMlaWidth);
    keys.insert(keys.end(), rows.begin(), rows.end());
  }
  const auto want = AttendOnHost(ReadFloats(q + row * kMlaWidth, kMlaWidth), keys, kMlaWidth, keys,
                                 kMlaWidth, kMlaLatent, scale);
  return IsCloseTo(ReadFloats(out + row * kMlaLatent, kMlaLatent), want);
}

MlaTime Time(const Pool& pool, const Shape& s, int sms) {
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
  const float scale = 1.0f / std::sqrt(192.0f);
  MlaTime time;
  time.us = testing::TimeGraph(launches, 7, [&](int i, cudaStream_t stream) {
    const int set = i % sets;
    MlaDecodeArgs args;
    args.q = q.get() + set * q_size;
    args.cache = s.is_fp8 ? static_cast<const void*>(pool.fp8.get()) : pool.cache.get();
    args.is_fp8 = s.is_fp8;
    args.out = out.get() + set * out_size;
    args.num_rows = s.batch;
    args.cache_rows = pool.rows;
    args.num_heads = s.heads;
    args.scale = scale;
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
  time.right = IsRight(pool, s, order, q.get(), out.get(), scale);
  return time;
}

bool Row(const Pool& pool, const Shape& s, int sms, double copy_rate, const char* note,
         std::FILE* json) {
  const MlaTime time = Time(pool, s, sms);
  const double us = time.us;
  const double positions = static_cast<double>(s.batch) * s.context;
  const double row_bytes = s.is_fp8 ? kFp8Row.bytes() : kMlaWidth * 2;
  const double bytes = positions * row_bytes + 2.0 * s.batch * s.heads * (kMlaWidth + kMlaLatent);
  const double flop = 2.0 * (kMlaWidth + kMlaLatent) * s.heads * positions;
  std::printf("| %d | %d | %d | %d | %s | %.1f | %.0f | %.0f %% | %.0f | %s |\n", s.heads, s.batch,
              s.context, s.block_size, note, us, bytes / us * 1e-3,
              100 * bytes / us * 1e6 / copy_rate, flop / us * 1e-6, time.right ? "yes" : "NO");
  std::fflush(stdout);
  if (json != nullptr) {
    std::fprintf(
        json,
        "{\"section\":\"mla_decode\",\"heads\":%d,\"batch\":%d,\"context\":%d,\"block\":%d,"
        "\"variant\":\"%s\",\"us\":%.2f,\"gbs\":%.0f,\"tflops\":%.0f,\"copy_gbs\":%.0f,"
        "\"correct\":%s}\n",
        s.heads, s.batch, s.context, s.block_size, note, us, bytes / us * 1e-3, flop / us * 1e-6,
        copy_rate * 1e-9, time.right ? "true" : "false");
  }
  return time.right;
}

}  // namespace

bool BenchMlaDecode(bool all, std::FILE* json) {
  cudaDeviceProp device;
  CUDA_OK(cudaGetDeviceProperties(&device, 0));
  const int sms = device.multiProcessorCount;
  const double copy_rate = testing::CopyRate();
  std::printf("\nMLA decode on %s, %d multiprocessors, copy %.0f GB/s (read + written)\n\n",
              device.name, sms, copy_rate * 1e-9);
  const Pool pool;
  std::printf(
      "| heads | batch | context | block | variant | us | GB/s | of copy | TFLOP/s | right |\n");
  std::printf("| --: | --: | --: | --: | --- | --: | --: | --: | --: | --- |\n");
  bool right = true;
  for (const int heads : {128, 64, 32, 16}) {
    if (!all && heads == 32) continue;
    for (const int batch : {1, 8, 32, 64, 128, 256}) {
      if (!all && (batch == 1 || batch == 32 || batch == 64)) continue;
      for (const int context : {1024, 2048, 4096, 8192, 16384}) {
        if (!all && context != 4096) continue;
        if (static_cast<int64_t>(batch) * context > pool.rows) continue;
        right = Row(pool, {heads, batch, context}, sms, copy_rate, "", json) && right;
        const Shape fp8 = {.heads = heads, .batch = batch, .context = context, .is_fp8 = true};
        right = Row(pool, fp8, sms, copy_rate, "fp8", json) && right;
      }
    }
  }
  for (const int heads : {128, 64}) {
    if (!all) break;
    right = Row(pool, {heads, 128, 4096, 16}, sms, copy_rate, "blocks of 16", json) && right;
    for (const int cost : {0, 2, 6, 10}) {
      const std::string note = "segment cost " + std::to_string(cost);
      for (const int batch : {8, 128}) {
        const Shape shape = {heads, batch, 4096, 64, cost};
        right = Row(pool, shape, sms, copy_rate, note.c_str(), json) && right;
      }
    }
  }
  return right;
}

}  // namespace moebius::kernels::cuda
