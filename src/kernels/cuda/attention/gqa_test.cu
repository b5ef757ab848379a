// All forms of grouped-query attention against double precision: ragged batches of decode and
// prefill, windows and chunks, NaN in what must not be read, few and many workers.
#include <cstring>

#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/attention/gqa_prefill.h"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/testing.cuh"
#include "kernels/tuning/gqa_prefill.h"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;
using Bf16 = __nv_bfloat16;

struct Case {
  const char* name;
  int heads, kv_heads, dim, v_dim, block_size;
  std::vector<int32_t> queries, contexts;  // by sequence
  int64_t window = 0;
  int64_t chunk = 0;
  int workers = 0;
};

struct Batch {
  std::vector<int32_t> query_start = {0};
  std::vector<int32_t> table;
  int max_blocks = 0;
  int64_t cache_rows = 0;
};

Batch MakeBatch(const Case& c, testing::Rng& rng) {
  Batch b;
  for (const int32_t count : c.queries) b.query_start.push_back(b.query_start.back() + count);
  const int32_t longest = *std::max_element(c.contexts.begin(), c.contexts.end());
  b.max_blocks = (longest + c.block_size - 1) / c.block_size + 2;
  b.table.resize(c.contexts.size() * b.max_blocks);
  for (size_t i = 0; i < b.table.size(); ++i) b.table[i] = static_cast<int32_t>(i);
  std::shuffle(b.table.begin(), b.table.end(), rng);
  b.cache_rows = static_cast<int64_t>(b.table.size()) * c.block_size;
  return b;
}

int64_t CacheRow(const Case& c, const Batch& b, size_t seq, int position) {
  return int64_t{b.table[seq * b.max_blocks + position / c.block_size]} * c.block_size +
         position % c.block_size;
}

// NaN but where a context's positions lie.
template <typename T>
std::vector<T> MakeCache(const Case& c, const Batch& b, int64_t width, testing::Rng& rng) {
  std::vector<T> cache(b.cache_rows * width, testing::FromFloat<T>(NAN));
  for (size_t s = 0; s < c.contexts.size(); ++s) {
    for (int p = 0; p < c.contexts[s]; ++p) {
      const auto row = testing::RandomNormal<T>(rng, width);
      std::copy(row.begin(), row.end(), cache.begin() + CacheRow(c, b, s, p) * width);
    }
  }
  return cache;
}

template <typename T>
std::vector<double> Reference(const Case& c, const Batch& b, const std::vector<T>& q,
                              const std::vector<T>& k, int64_t k_stride, const std::vector<T>& v,
                              int64_t v_stride, double scale) {
  std::vector<double> out(static_cast<size_t>(b.query_start.back()) * c.heads * c.v_dim, 0.0);
  for (size_t s = 0; s < c.contexts.size(); ++s) {
    for (int i = 0; i < c.queries[s]; ++i) {
      const int position = c.contexts[s] - c.queries[s] + i;
      int64_t first = 0;
      if (c.window > 0) first = std::max<int64_t>(first, position - c.window + 1);
      if (c.chunk > 0) first = std::max<int64_t>(first, position / c.chunk * c.chunk);
      for (int h = 0; h < c.heads; ++h) {
        const int kv = h / (c.heads / c.kv_heads);
        const size_t row = static_cast<size_t>(b.query_start[s] + i) * c.heads + h;
        std::vector<double> scores;
        double top = -1e300;
        for (int64_t p = first; p <= position; ++p) {
          const int64_t at = CacheRow(c, b, s, static_cast<int>(p)) * k_stride + kv * c.dim;
          double dot = 0;
          for (int d = 0; d < c.dim; ++d) {
            dot += static_cast<double>(testing::ToFloat(q[row * c.dim + d])) *
                   testing::ToFloat(k[at + d]);
          }
          scores.push_back(dot * scale);
          top = std::max(top, scores.back());
        }
        double sum = 0;
        for (double& x : scores) sum += x = std::exp(x - top);
        for (int64_t p = first; p <= position; ++p) {
          const int64_t at = CacheRow(c, b, s, static_cast<int>(p)) * v_stride + kv * c.v_dim;
          for (int d = 0; d < c.v_dim; ++d) {
            out[row * c.v_dim + d] += scores[p - first] / sum * testing::ToFloat(v[at + d]);
          }
        }
      }
    }
  }
  return out;
}

// LaunchGqa, the same behind another launch (right after kCut), LaunchGqaPrefill,
// LaunchAttentionAny.
enum class Form { kCut, kBehind, kTiles, kAny };

constexpr const char* NameOf(Form form) {
  constexpr const char* kNames[] = {"cut", "behind", "tiles", "any"};
  return kNames[static_cast<int>(form)];
}

// Launches twice: the same bits, whatever was in the output before.
template <typename Launch>
void LaunchTwice(const Case& c, Device<Bf16>& out, const Launch& launch) {
  CUDA_OK(launch());
  CUDA_OK(cudaDeviceSynchronize());
  const auto first = out.Download();
  out.Poison();
  CUDA_OK(launch());
  testing::Expect(std::memcmp(first.data(), out.Download().data(), out.bytes()) == 0,
                  std::string(c.name) + ": a second launch gave other bits");
}

int NumSms(const Case& c) {
  int sms = 0;
  CUDA_OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  return c.workers > 0 ? c.workers : sms;
}

// What a step's own launches write right before attention: its queries, and the caches at their
// positions.
struct LateRow {
  Bf16* to;
  const Bf16* from;
  int64_t count;
};
__global__ void TakeAway(const LateRow* rows) {
  const LateRow row = rows[blockIdx.x];
  for (int i = threadIdx.x; i < row.count; i += blockDim.x) row.to[i] = __float2bfloat16(NAN);
}
// Lets the next launch come up, and writes them long after.
__global__ void WriteLate(const LateRow* rows) {
  moebius::cuda::AwaitEarlier();
  for (int i = 0; i < 20; ++i) __nanosleep(1000);
  const LateRow row = rows[blockIdx.x];
  for (int i = threadIdx.x; i < row.count; i += blockDim.x) row.to[i] = row.from[i];
}
std::vector<LateRow> LateRows(const Case& c, const Batch& b, const GqaShape& to,
                              const GqaShape& from) {
  std::vector<LateRow> rows;
  const auto add = [&rows](const void* t, const void* f, int64_t row, int64_t stride) {
    const int64_t at = row * stride;
    rows.push_back(
        {static_cast<Bf16*>(const_cast<void*>(t)) + at, static_cast<const Bf16*>(f) + at, stride});
  };
  for (size_t s = 0; s < c.contexts.size(); ++s) {
    for (int i = 0; i < c.queries[s]; ++i) {
      add(to.q, from.q, b.query_start[s] + i, c.heads * c.dim);
      const int position = c.contexts[s] - c.queries[s] + i;
      if (position < 0) continue;
      add(to.k_cache, from.k_cache, CacheRow(c, b, s, position), to.k_stride);
      add(to.v_cache, from.v_cache, CacheRow(c, b, s, position), to.v_stride);
    }
  }
  return rows;
}

// What LaunchGqa reads of a batch.
struct Cut {
  Cut(const Case& c, const Batch& b, const GqaShape& shape)
      : max_queries(GqaQueriesPerItem(c.heads, c.kv_heads,
                                      *std::max_element(c.queries.begin(), c.queries.end()) <= 1)),
        num_workers(c.workers > 0 ? c.workers
                                  : GqaWorkers(NumSms(c), c.heads, c.kv_heads, max_queries, c.dim)),
        splits(
            SplitAttention(AttentionItems(b.query_start, c.contexts, max_queries),
                           {.num_workers = num_workers, .segment_cost = 1, .sums_in_place = true})),
        segments(splits.segments),
        worker_begin(splits.worker_begin),
        workspace(GqaWorkspaceBytes(splits.num_slots, max_queries, c.heads, c.dim)),
        arrivals(std::vector<int32_t>(
            GqaArrivals(splits.num_slots, max_queries, c.heads, c.kv_heads), 0)) {
    args.shape = shape;
    args.max_queries = max_queries;
    args.segments = segments.get();
    args.num_segments = static_cast<int64_t>(splits.segments.size());
    args.worker_begin = worker_begin.get();
    args.num_workers = num_workers;
    args.workspace = workspace.get();
    args.max_slots = splits.num_slots;
    args.arrivals = arrivals.get();
  }
  void ExpectNoArrivals(const Case& c) const {
    const auto left = arrivals.Download();
    testing::Expect(std::all_of(left.begin(), left.end(), [](int32_t n) { return n == 0; }),
                    std::string(c.name) + ": an arrival is left");
  }

  int max_queries, num_workers;
  AttentionSplits splits;
  Device<AttentionSegment> segments;
  Device<int32_t> worker_begin;
  Device<uint8_t> workspace;
  Device<int32_t> arrivals;
  GqaArgs args;
};

void RunCut(const Case& c, const Batch& b, const GqaShape& shape, Device<Bf16>& out) {
  Cut cut(c, b, shape);
  LaunchTwice(c, out, [&] {
    cut.workspace.Poison();
    return LaunchGqa(cut.args, nullptr);
  });
  cut.ExpectNoArrivals(c);
}

// Again and again in a graph, each time behind a launch that writes what is new when this one is up
// already. The output is that of RunCut, to the bit.
void RunBehind(const Case& c, const Batch& b, const GqaShape& shape, Device<Bf16>& out) {
  const auto want = out.Download();
  const auto copy_of = [](const void* from, int64_t count) {
    Device<Bf16> copy(count);
    CUDA_OK(cudaMemcpy(copy.get(), from, copy.bytes(), cudaMemcpyDeviceToDevice));
    return copy;
  };
  const Device<Bf16> q = copy_of(shape.q, int64_t{b.query_start.back()} * c.heads * c.dim);
  const Device<Bf16> k = copy_of(shape.k_cache, b.cache_rows * shape.k_stride);
  const Device<Bf16> v = copy_of(shape.v_cache, b.cache_rows * shape.v_stride);
  GqaShape changing = shape;
  changing.q = q.get();
  changing.k_cache = k.get();
  changing.v_cache = v.get();
  const Device<LateRow> late(LateRows(c, b, changing, shape));
  Cut cut(c, b, changing);
  cudaStream_t stream;
  CUDA_OK(cudaStreamCreate(&stream));
  CUDA_OK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < 3; ++i) {
    CUDA_OK(cudaMemsetAsync(out.get(), 0xff, out.bytes(), stream));
    CUDA_OK(cudaMemsetAsync(cut.workspace.get(), 0xff, cut.workspace.bytes(), stream));
    TakeAway<<<late.size(), 128, 0, stream>>>(late.get());
    CUDA_OK(moebius::cuda::LaunchEarly(WriteLate, late.size(), 128, 0, stream, late.get()));
    CUDA_OK(LaunchGqa(cut.args, stream));
  }
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  CUDA_OK(cudaStreamEndCapture(stream, &graph));
  CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  for (int i = 0; i < 10; ++i) {
    CUDA_OK(cudaGraphLaunch(exec, stream));
    CUDA_OK(cudaStreamSynchronize(stream));
    testing::Expect(std::memcmp(want.data(), out.Download().data(), out.bytes()) == 0,
                    std::string(c.name) + ": other bits behind a launch that writes late");
  }
  cut.ExpectNoArrivals(c);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

void RunTiles(const Case& c, const Batch& b, const GqaShape& shape, Device<Bf16>& out) {
  const auto tiles = AttentionItems(b.query_start, c.contexts, static_cast<int>(kGqaTile));
  const Device<AttentionItem> d_tiles(tiles);
  const Device<int32_t> next(std::vector<int32_t>{0});
  GqaPrefillArgs args;
  args.shape = shape;
  args.num_rows = b.query_start.back();
  args.cache_rows = b.cache_rows;
  args.tiles = d_tiles.get();
  args.num_tiles = static_cast<int>(tiles.size());
  // So many that heads of keys take turns where there are few workers.
  args.num_keys = c.workers > 0 ? 1 << 20 : b.cache_rows;
  args.next = next.get();
  args.num_sms = NumSms(c);
  LaunchTwice(c, out, [&] { return LaunchGqaPrefill(args, nullptr); });
  testing::Expect(next.Download()[0] == 0, std::string(c.name) + ": the counter is not zero again");
}

template <typename T>
void RunAny(const Case& c, const Batch& b, const GqaShape& shape) {
  const auto items = AttentionItems(b.query_start, c.contexts, 1);
  const Device<AttentionItem> d_items(items);
  constexpr DType kType = std::is_same_v<T, float> ? DType::kF32 : DType::kBF16;
  CUDA_OK(LaunchAttentionAny(
      {shape, kType, kType, d_items.get(), static_cast<int64_t>(items.size())}, nullptr));
  CUDA_OK(cudaDeviceSynchronize());
}

template <typename T>
void Run(const Case& c, testing::Rng& rng, const std::vector<Form>& forms) {
  const Batch b = MakeBatch(c, rng);
  const int64_t k_stride = c.kv_heads * c.dim + 8;
  const int64_t v_stride = c.kv_heads * c.v_dim;
  const auto k = MakeCache<T>(c, b, k_stride, rng);
  const auto v = MakeCache<T>(c, b, v_stride, rng);
  const int rows = b.query_start.back();
  const auto q = testing::RandomNormal<T>(rng, static_cast<size_t>(rows) * c.heads * c.dim, 1.5f);
  const Device<T> d_q(q), d_k(k), d_v(v);
  const Device<int32_t> d_table(b.table);
  Device<T> out(static_cast<size_t>(rows) * c.heads * c.v_dim);
  GqaShape shape;
  shape.q = d_q.get();
  shape.k_cache = d_k.get();
  shape.v_cache = d_v.get();
  shape.out = out.get();
  shape.k_stride = k_stride;
  shape.v_stride = v_stride;
  shape.num_heads = c.heads;
  shape.num_kv_heads = c.kv_heads;
  shape.head_dim = c.dim;
  shape.v_head_dim = c.v_dim;
  shape.scale = 1.0f / std::sqrt(static_cast<float>(c.dim));
  shape.window = c.window;
  shape.chunk = c.chunk;
  shape.block_table = d_table.get();
  shape.max_blocks = b.max_blocks;
  shape.block_size = c.block_size;
  const auto want = Reference(c, b, q, k, k_stride, v, v_stride, shape.scale);
  for (const Form form : forms) {
    if (form != Form::kBehind) out.Poison();
    if (form == Form::kAny) RunAny<T>(c, b, shape);
    if constexpr (std::is_same_v<T, Bf16>) {
      if (form == Form::kCut) RunCut(c, b, shape, out);
      if (form == Form::kBehind) RunBehind(c, b, shape, out);
      if (form == Form::kTiles) RunTiles(c, b, shape, out);
    }
    const testing::Error error = testing::Compare(out.Download(), want);
    testing::ExpectClose(error, std::is_same_v<T, float> ? 3e-6 : 5e-3,
                         std::string(c.name) + ", " + NameOf(form));
    std::printf("%-24s %5s heads %d/%d width %d: relative error %.2e, worst %.2e\n", c.name,
                NameOf(form), c.heads, c.kv_heads, c.dim, error.relative, error.worst);
  }
}

}  // namespace
}  // namespace moebius::kernels::cuda

int main() {
  using namespace moebius::kernels::cuda;
  using moebius::kernels::kGqaTile;
  testing::Rng rng(std::random_device{}());
  const std::vector<int32_t> ones(9, 1);
  const std::vector<int32_t> lengths = {1, 2, 15, 63, 64, 65, 128, 700, 33};
  const std::vector<int32_t> chunks = {1, 70, 1, 5, 64};
  const std::vector<int32_t> behind = {90, 70, 1, 200, 130};
  const std::vector<int32_t> prompts = {1, 128, 300, 64, 129};
  const std::vector<int32_t> so_far = {1, 128, 700, 513, 330};
  const std::vector<Case> cases = {
      {"decode", 32, 8, 128, 128, 16, ones, lengths},
      {"decode, few workers", 32, 8, 128, 128, 16, ones, lengths, 0, 0, 2},
      {"decode, one group", 16, 16, 64, 64, 64, ones, lengths},
      {"decode, wide", 8, 2, 256, 256, 16, ones, lengths, 0, 0, 3},
      {"decode, window", 32, 4, 64, 64, 16, ones, lengths, 40, 0, 3},
      {"decode, chunk", 10, 2, 128, 128, 16, ones, lengths, 0, 48, 5},
      {"decode, many heads", 40, 1, 64, 64, 16, ones, lengths, 0, 0, 3},
      {"decode, 96 heads a group", 96, 1, 64, 64, 16, ones, lengths, 0, 0, 3},
      {"mixed", 32, 8, 128, 128, 16, chunks, behind},
      {"mixed, few workers", 32, 4, 128, 128, 16, chunks, behind, 0, 0, 2},
      {"mixed, one group", 4, 4, 64, 64, 16, chunks, behind, 0, 0, 3},
      {"mixed, window", 16, 2, 64, 64, 16, chunks, behind, 30, 0, 3},
      {"mixed, chunk", 16, 2, 128, 128, 32, chunks, behind, 0, 64, 2},
      {"mixed, wide", 8, 2, 256, 256, 16, chunks, behind},
      {"one tile", 4, 2, 128, 128, 16, {128}, {128}},
      {"prompts", 8, 2, 128, 128, 16, prompts, so_far},
      {"prompts, few workers", 8, 4, 128, 128, 16, prompts, so_far, 0, 0, 3},
      {"prompts, window", 8, 2, 128, 128, 16, prompts, so_far, 100},
      {"prompts, wide window", 6, 2, 128, 128, 32, prompts, so_far, 300, 0, 5},
      {"prompts, window of one", 4, 2, 128, 128, 16, prompts, so_far, 1},
      {"prompts, chunk", 10, 2, 128, 128, 64, prompts, so_far, 0, 192},
      {"prompts, small chunks", 5, 1, 128, 128, 128, prompts, so_far, 0, 48, 2},
      {"prompts, large blocks", 4, 4, 128, 128, 256, prompts, so_far},
  };
  for (const Case& c : cases) {
    std::vector<Form> forms = {Form::kCut, Form::kBehind};
    if (c.dim == kGqaTile) forms.push_back(Form::kTiles);
    if (c.workers == 0 || c.window + c.chunk > 0) forms.push_back(Form::kAny);
    Run<__nv_bfloat16>(c, rng, forms);
  }
  const std::vector<int32_t> some = {0, 300, 0, 64, 1, 0, 129, 700, 0};
  const std::vector<Case> cuts = {
      {"one request", 32, 4, 128, 128, 16, {1}, {300}},
      {"four requests", 32, 4, 128, 128, 16, {1, 1, 1, 1}, {300, 299, 257, 321}},
      {"two pieces", 32, 4, 128, 128, 16, {1}, {130}, 0, 0, 4},
      {"many pieces", 8, 1, 128, 128, 16, {1}, {5000}, 0, 0, 60},
      {"many pieces, narrow", 16, 1, 64, 64, 8, {1}, {2500}, 0, 0, 30},
      {"many pieces, wide", 14, 2, 256, 256, 48, {1, 1}, {1300, 2000}, 0, 0, 20},
      {"some see nothing", 32, 4, 128, 128, 16, ones, some, 0, 0, 5},
      {"some see nothing, one head", 4, 4, 64, 64, 32, ones, some},
      {"nobody sees", 8, 2, 128, 128, 16, {1, 1, 1}, {0, 0, 0}},
      {"pieces before the window", 8, 1, 128, 128, 16, {1, 1}, {3000, 500}, 100, 0, 30},
      {"pieces before the chunk", 8, 1, 64, 64, 256, {1, 1}, {3000, 500}, 0, 192, 30},
      {"chunks, some see nothing", 16, 2, 64, 64, 16, {1, 70, 1}, {0, 900, 300}, 0, 0, 40},
      {"24 heads a group", 24, 1, 128, 128, 16, {1, 1, 1}, {0, 1000, 65}, 0, 0, 9},
  };
  for (const Case& c : cuts) Run<__nv_bfloat16>(c, rng, {Form::kCut, Form::kBehind});
  Run<float>({"float32", 6, 3, 100, 72, 8, chunks, behind}, rng, {Form::kAny});
  Run<float>({"float32, latent", 4, 1, 576, 512, 16, chunks, behind}, rng, {Form::kAny});
  return testing::Finish("gqa_test");
}
