// MLA decode against a double-precision product of the same bfloat16 inputs (an fp8 cache: of what
// its rows mean): head counts, block sizes, ragged and edge lengths, holes and NaN in what must not
// be read, every way to split.
#include <cuda_fp8.h>

#include <cstring>

#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/testing.cuh"
#include "kernels/latent_row.h"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;

// One block a (row, head).
__global__ void Reference(const __nv_bfloat16* q, const __nv_bfloat16* cache, const int32_t* table,
                          int max_blocks, int block_size, const int32_t* contexts,
                          const int32_t* seqs, int num_heads, double scale, double* scores,
                          int max_context, double* out) {
  const int row = blockIdx.x / num_heads;
  const int context = contexts[row];
  double* mine = scores + static_cast<int64_t>(blockIdx.x) * max_context;
  const __nv_bfloat16* query = q + static_cast<int64_t>(blockIdx.x) * 576;
  const auto cache_row = [&](int p) {
    const int64_t id = table[seqs[row] * max_blocks + p / block_size];
    return cache + (id * block_size + p % block_size) * 576;
  };
  for (int p = threadIdx.x; p < context; p += blockDim.x) {
    double dot = 0;
    for (int d = 0; d < 576; ++d) {
      dot += static_cast<double>(__bfloat162float(query[d])) * __bfloat162float(cache_row(p)[d]);
    }
    mine[p] = dot * scale;
  }
  __syncthreads();
  double top = -1e300;
  for (int p = 0; p < context; ++p) top = fmax(top, mine[p]);
  double sum = 0;
  for (int p = 0; p < context; ++p) sum += exp(mine[p] - top);
  for (int d = threadIdx.x; d < 512; d += blockDim.x) {
    double value = 0;
    for (int p = 0; p < context; ++p) {
      value += exp(mine[p] - top) * static_cast<double>(__bfloat162float(cache_row(p)[d]));
    }
    out[static_cast<int64_t>(blockIdx.x) * 512 + d] = context > 0 ? value / sum : 0.0;
  }
}

constexpr LatentRow kLayout = {kMlaLatent, kMlaWidth - kMlaLatent};

// The fp8 rows of a bfloat16 cache, which then has what they mean.
std::vector<uint8_t> Quantize(std::vector<__nv_bfloat16>& cache) {
  const size_t rows = cache.size() / kMlaWidth;
  std::vector<uint8_t> out(rows * kLayout.bytes());
  for (size_t r = 0; r < rows; ++r) {
    __nv_bfloat16* x = &cache[r * kMlaWidth];
    uint8_t* row = &out[r * kLayout.bytes()];
    for (int64_t block = 0; block < kLayout.num_blocks(); ++block) {
      const int64_t begin = block * LatentRow::kBlock;
      float largest = 0;
      for (int64_t c = begin; c < begin + LatentRow::kBlock; ++c) {
        largest = std::fmax(largest, std::fabs(__bfloat162float(x[c])));
      }
      const float scale = std::isnan(__bfloat162float(x[begin])) ? NAN : E4m3Scale(largest);
      std::memcpy(row + kLayout.scales_at() + 4 * block, &scale, 4);
      for (int64_t c = begin; c < begin + LatentRow::kBlock; ++c) {
        const __nv_fp8_e4m3 code(__bfloat162float(x[c]) / scale);
        row[c] = code.__x;
        x[c] = __float2bfloat16(static_cast<float>(code) * scale);
      }
    }
    std::memcpy(row + kLayout.rope_at(), x + kMlaLatent, kLayout.rope_dim * 2);
  }
  return out;
}

struct Case {
  const char* name;
  int num_heads;
  int block_size;
  std::vector<int32_t> contexts;
  int num_workers = 0;  // 0: as many as fit
  bool whole = false;
  float sharpness = 1.0f;
};

double Run(const Case& c, bool is_fp8, testing::Rng& rng) {
  const std::string name = std::string(c.name) + (is_fp8 ? ", fp8" : "");
  const auto rows = static_cast<int>(c.contexts.size());
  int sms = 0;
  CUDA_OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  const int32_t longest = *std::max_element(c.contexts.begin(), c.contexts.end());
  const int max_blocks = (longest + c.block_size - 1) / c.block_size + 3;
  // Sequences own shuffled blocks; the entries behind a context are holes or blocks full of NaN.
  std::vector<int32_t> order(rows * max_blocks + 5);
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
  std::shuffle(order.begin(), order.end(), rng);
  std::vector<int32_t> table(rows * max_blocks);
  std::vector<int32_t> seqs(rows);
  const int64_t cache_rows = static_cast<int64_t>(order.size()) * c.block_size;
  std::vector<__nv_bfloat16> cache(cache_rows * kMlaWidth, __float2bfloat16(NAN));
  for (int r = 0; r < rows; ++r) {
    seqs[r] = rows - 1 - r;
    for (int b = 0; b < max_blocks; ++b) {
      int32_t& entry = table[seqs[r] * max_blocks + b];
      entry = order[r * max_blocks + b];
      if (b * c.block_size >= c.contexts[r]) {
        if (b % 2 == 0) entry = -1;
        continue;
      }
      const int filled = std::min(c.block_size, c.contexts[r] - b * c.block_size);
      const auto values = testing::RandomNormal<__nv_bfloat16>(rng, filled * kMlaWidth);
      std::copy(values.begin(), values.end(),
                cache.begin() + static_cast<int64_t>(entry) * c.block_size * kMlaWidth);
    }
  }
  const Device<uint8_t> d_fp8(is_fp8 ? Quantize(cache) : std::vector<uint8_t>(1));
  const Device<__nv_bfloat16> d_cache(cache);
  const Device<__nv_bfloat16> d_q(testing::RandomNormal<__nv_bfloat16>(
      rng, static_cast<size_t>(rows) * c.num_heads * kMlaWidth, c.sharpness));
  const Device<int32_t> d_table(table);
  const Device<int32_t> d_contexts(c.contexts);
  const Device<int32_t> d_seqs(seqs);
  Device<__nv_bfloat16> d_out(static_cast<size_t>(rows) * c.num_heads * kMlaLatent);

  AttentionSplitOptions options;
  options.num_workers = c.num_workers > 0 ? c.num_workers : MlaDecodeWorkers(sms, c.num_heads);
  options.whole = c.whole;
  const AttentionSplits splits = SplitAttention(c.contexts, seqs, options);
  const Device<AttentionSegment> d_segments(splits.segments);
  const Device<int32_t> d_workers(splits.worker_begin);
  const Device<AttentionRow> d_rows(splits.combine);
  Device<uint8_t> workspace(MlaDecodeWorkspaceBytes(splits.num_slots, c.num_heads));

  MlaDecodeArgs args;
  args.q = d_q.get();
  args.cache = is_fp8 ? static_cast<const void*>(d_fp8.get()) : d_cache.get();
  args.is_fp8 = is_fp8;
  args.out = d_out.get();
  args.num_rows = rows;
  args.cache_rows = cache_rows;
  args.num_heads = c.num_heads;
  args.scale = 1.0f / std::sqrt(192.0f);
  args.block_table = d_table.get();
  args.max_blocks = max_blocks;
  args.block_size = c.block_size;
  args.segments = d_segments.get();
  args.worker_begin = d_workers.get();
  args.combine = d_rows.get();
  args.num_combine = static_cast<int64_t>(splits.combine.size());
  args.num_workers = options.num_workers;
  args.workspace = workspace.get();
  args.max_slots = splits.num_slots;
  CUDA_OK(LaunchMlaDecode(args, nullptr));
  CUDA_OK(cudaDeviceSynchronize());
  const auto got = d_out.Download();

  const int max_context = std::max(longest, 1);
  const size_t heads = static_cast<size_t>(rows) * c.num_heads;
  Device<double> scores(heads * max_context);
  Device<double> want(heads * kMlaLatent);
  Reference<<<static_cast<unsigned>(heads), 256>>>(
      d_q.get(), d_cache.get(), d_table.get(), max_blocks, c.block_size, d_contexts.get(),
      d_seqs.get(), c.num_heads, args.scale, scores.get(), max_context, want.get());
  CUDA_OK(cudaDeviceSynchronize());
  const testing::Error error = testing::Compare(got, want.Download());
  testing::ExpectClose(error, 4e-3, name);
  std::printf("%-34s heads %3d block %3d slots %3d: relative error %.2e, worst %.2e\n",
              name.c_str(), c.num_heads, c.block_size, splits.num_slots, error.relative,
              error.worst);

  // The same bits again, into poisoned memory.
  d_out.Poison();
  workspace.Poison();
  CUDA_OK(LaunchMlaDecode(args, nullptr));
  const auto again = d_out.Download();
  testing::Expect(std::memcmp(got.data(), again.data(), d_out.bytes()) == 0,
                  name + ": a second launch gave other bits");
  return error.relative;
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  testing::Rng rng(std::random_device{}());
  const std::vector<int32_t> edges = {1, 2, 0, 63, 64, 65, 127, 128, 129, 191, 192, 193, 0, 640};
  const std::vector<int32_t> ragged = {4097, 1, 777, 2048, 300, 64, 1500};
  const std::vector<Case> cases = {
      {"one position", 128, 64, {1}},
      {"one tile", 64, 64, {64}},
      {"two tiles", 64, 64, {128}},
      {"nothing", 64, 64, {0, 0}},
      {"edges, few workers", 64, 64, edges, 3},
      {"edges", 128, 64, edges},
      {"edges, few workers", 128, 64, edges, 2},
      {"edges, small blocks", 128, 16, edges, 5},
      {"edges, small blocks", 16, 16, edges, 5},
      {"edges, blocks of 8", 32, 8, edges, 7},
      {"edges, large blocks", 32, 128, edges},
      {"ragged", 128, 64, ragged},
      {"ragged, sharp", 128, 64, ragged, 0, 0, 6.0f},
      {"ragged, small blocks", 128, 16, ragged},
      {"ragged", 64, 64, ragged},
      {"ragged", 32, 64, ragged},
      {"ragged", 16, 16, ragged},
      {"ragged, whole rows", 128, 64, ragged, 0, true},
      {"256 heads", 256, 64, {500, 70}},
      {"8 heads", 8, 64, {500, 70}},
      {"one long row", 128, 64, {16384}},
      {"one long row", 16, 64, {16384}},
  };
  double worst = 0;
  for (const bool is_fp8 : {false, true}) {
    for (const Case& c : cases) worst = std::max(worst, Run(c, is_fp8, rng));
  }
  std::printf("worst relative error %.2e\n", worst);
  return testing::Finish("mla_decode_test");
}
