// Grouped-query attention's rates: decode (bound by memory) and prefill (bound by arithmetic).
// Prefill's FLOP: 4 x width x heads x visible positions; by either kernel, where a step would take
// the one of tiles. One head of one query of each row is checked.
#include "kernels/cuda/attention/bench_check.cuh"
#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/attention/gqa_prefill.h"
#include "kernels/cuda/benches.h"
#include "kernels/cuda/testing.cuh"
#include "kernels/tuning/gqa_prefill.h"

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

// Contexts in blocks all over a pool, in as many sets as it has room for: launches take turns.
struct Inputs {
  static constexpr int64_t kPoolRows = int64_t{1} << 20;

  explicit Inputs(const Shape& s)
      : width(int64_t{s.kv_heads} * s.dim),
        q_size(int64_t{s.batch} * s.queries * s.heads * s.dim),
        max_blocks(s.context / kBlock),
        sets(static_cast<int>(
            std::clamp<int64_t>(kPoolRows / (int64_t{s.batch} * s.context), 1, 8))),
        k(testing::DeviceNormal(kPoolRows * width, 1)),
        v(testing::DeviceNormal(kPoolRows * width, 2)),
        q(testing::DeviceNormal(q_size, 3)),
        out(q_size),
        order(ShuffledBlocks()),
        table(order),
        contexts(s.batch, s.context) {
    for (int i = 0; i <= s.batch; ++i) query_start.push_back(i * s.queries);
    shape.q = q.get();
    shape.k_cache = k.get();
    shape.v_cache = v.get();
    shape.out = out.get();
    shape.k_stride = shape.v_stride = width;
    shape.num_heads = s.heads;
    shape.num_kv_heads = s.kv_heads;
    shape.head_dim = shape.v_head_dim = s.dim;
    shape.scale = 1.0f / std::sqrt(static_cast<float>(s.dim));
    shape.max_blocks = max_blocks;
    shape.block_size = kBlock;
  }
  static std::vector<int32_t> ShuffledBlocks() {
    std::vector<int32_t> order(kPoolRows / kBlock);
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    testing::Rng rng(5);
    std::shuffle(order.begin(), order.end(), rng);
    return order;
  }
  int64_t SetBegin(int i) const {
    return int64_t{i % sets} * static_cast<int64_t>(contexts.size()) * max_blocks;
  }

  int64_t width, q_size;
  int max_blocks, sets;
  Device<__nv_bfloat16> k, v, q, out;
  std::vector<int32_t> order;
  Device<int32_t> table;
  std::vector<int32_t> query_start, contexts;
  GqaShape shape;
};

// Both: microseconds of a launch of `launches`, each on another set.
double TimeCut(const Shape& s, const Inputs& in, int sms, int launches) {
  GqaArgs args;
  args.shape = in.shape;
  args.max_queries = GqaQueriesPerItem(s.heads, s.kv_heads, s.queries == 1);
  const auto items = AttentionItems(in.query_start, in.contexts, args.max_queries);
  args.num_workers = GqaWorkers(sms, s.heads, s.kv_heads, args.max_queries, s.dim);
  const auto splits = SplitAttention(
      items, {.num_workers = args.num_workers, .segment_cost = 2, .sums_in_place = true});
  const Device<AttentionSegment> segments(splits.segments);
  const Device<int32_t> workers(splits.worker_begin);
  const Device<int32_t> arrivals(std::vector<int32_t>(
      GqaArrivals(splits.num_slots, args.max_queries, s.heads, s.kv_heads), 0));
  Device<uint8_t> workspace(GqaWorkspaceBytes(splits.num_slots, args.max_queries, s.heads, s.dim));
  args.segments = segments.get();
  args.num_segments = static_cast<int64_t>(splits.segments.size());
  args.worker_begin = workers.get();
  args.workspace = workspace.get();
  args.max_slots = splits.num_slots;
  args.arrivals = arrivals.get();
  return testing::TimeGraph(launches, 7, [&](int i, cudaStream_t stream) {
    GqaArgs now = args;
    now.shape.block_table = in.table.get() + in.SetBegin(i);
    CUDA_OK(LaunchGqa(now, stream));
  });
}

double TimeTiles(const GqaPrefillPlan& plan, const Inputs& in, int sms, int launches) {
  const Device<AttentionItem> tiles(plan.tiles);
  const Device<int32_t> next(std::vector<int32_t>{0});
  GqaPrefillArgs args;
  args.shape = in.shape;
  args.num_rows = in.query_start.back();
  args.cache_rows = Inputs::kPoolRows;
  args.tiles = tiles.get();
  args.num_tiles = static_cast<int>(plan.tiles.size());
  args.num_keys = plan.num_keys;
  args.next = next.get();
  args.num_sms = sms;
  return testing::TimeGraph(launches, 7, [&](int i, cudaStream_t stream) {
    GqaPrefillArgs now = args;
    now.shape.block_table = in.table.get() + in.SetBegin(i);
    CUDA_OK(LaunchGqaPrefill(now, stream));
  });
}

bool Report(const Shape& s, const Inputs& in, const char* kernel, double us, int launches,
            double copy_rate, std::FILE* json) {
  const double bytes = 4.0 * s.batch * s.context * static_cast<double>(in.width) +
                       4.0 * static_cast<double>(in.q_size);
  const double visible =
      static_cast<double>(s.batch) * s.queries * (s.context - (s.queries - 1) / 2.0);
  const double flop = 4.0 * s.dim * s.heads * visible;
  const int64_t last_request = in.SetBegin(launches - 1) + int64_t{s.batch - 1} * in.max_blocks;
  const bool right = IsRight(s, in.order.data() + last_request, in.k.get(), in.v.get(), in.q.get(),
                             in.out.get(), in.shape.scale);
  std::printf("| %d / %d x %d | %d | %d | %d | %s | %.1f | %.0f | %.0f %% | %.0f | %s |\n", s.heads,
              s.kv_heads, s.dim, s.batch, s.queries, s.context, kernel, us, bytes / us * 1e-3,
              100 * bytes / us * 1e6 / copy_rate, flop / us * 1e-6, right ? "yes" : "NO");
  std::fflush(stdout);
  if (json != nullptr) {
    std::fprintf(json,
                 "{\"section\":\"gqa\",\"heads\":%d,\"kv_heads\":%d,\"dim\":%d,\"batch\":%d,"
                 "\"queries\":%d,\"context\":%d,\"kernel\":\"%s\",\"us\":%.2f,\"gbs\":%.0f,"
                 "\"tflops\":%.0f,\"copy_gbs\":%.0f,\"correct\":%s}\n",
                 s.heads, s.kv_heads, s.dim, s.batch, s.queries, s.context, kernel, us,
                 bytes / us * 1e-3, flop / us * 1e-6, copy_rate * 1e-9, right ? "true" : "false");
  }
  return right;
}

bool Row(const Shape& s, int sms, double copy_rate, std::FILE* json) {
  Inputs in(s);
  const int launches = moebius::kernels::cuda::EachOnce() ? 1 : std::max(in.sets, 2);
  const double cut = TimeCut(s, in, sms, launches);
  bool right = Report(s, in, "cut", cut, launches, copy_rate, json);
  const auto sequences = AttentionItems(in.query_start, in.contexts, s.queries);
  const GqaPrefillPlan plan = PlanGqaPrefill(sequences, s.heads, sms);
  if (s.dim != kGqaTile || plan.tiles.empty()) return right;
  in.out.Poison();
  const double tiles = TimeTiles(plan, in, sms, launches);
  return Report(s, in, "tiles", tiles, launches, copy_rate, json) && right;
}

}  // namespace

bool BenchGqa(std::FILE* json) {
  int sms = 0;
  CUDA_OK(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, 0));
  const double copy_rate = testing::CopyRate();
  std::printf("\nGrouped-query attention, copy %.0f GB/s (read + written)\n\n", copy_rate * 1e-9);
  std::printf(
      "| heads | batch | queries | context | kernel | us | GB/s | of copy | TFLOP/s | right |\n");
  std::printf("| --- | --: | --: | --: | --- | --: | --: | --: | --: | --- |\n");
  constexpr Shape kShapes[] = {
      {32, 4, 128, 1, 1, 304},      {32, 4, 128, 4, 1, 304},     {32, 4, 128, 1, 1, 8192},
      {32, 4, 128, 32, 1, 4096},    {32, 4, 128, 128, 1, 4096},  {32, 8, 128, 64, 1, 4096},
      {64, 8, 64, 64, 1, 4096},     {32, 4, 128, 1, 4096, 4096}, {32, 8, 128, 4, 2048, 2048},
      {32, 4, 128, 4, 2048, 2048},  {32, 4, 128, 1, 8192, 8192}, {32, 4, 128, 16, 512, 512},
      {32, 4, 128, 1, 2048, 32768}, {32, 4, 128, 32, 128, 4096}, {40, 8, 128, 1, 8192, 8192}};
  bool right = true;
  for (const Shape& shape : kShapes) right = Row(shape, sms, copy_rate, json) && right;
  return right;
}

}  // namespace moebius::kernels::cuda
