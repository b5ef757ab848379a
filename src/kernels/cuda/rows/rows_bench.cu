// Row, routing and sampling operations at the sizes of a decode step of DeepSeek-V3 (hidden 7168,
// 128 heads, 256 experts, top-8, vocabulary 129280) and one prefill chunk, and heads of Qwen3's.
// Inputs rotate through more memory than the L2 cache holds; times are of graph replays. Bytes:
// what each operation must read and write once.
#include <numeric>

#include "kernels/cuda/benches.h"
#include "kernels/cuda/moe/moe.h"
#include "kernels/cuda/rows/rows.h"
#include "kernels/cuda/rows/sample.h"
#include "kernels/cuda/testing.cuh"

namespace moebius::kernels::cuda {
namespace {

using testing::Device;
using Bf16 = __nv_bfloat16;

constexpr int64_t kHidden = 7168;
constexpr int kHeads = 128;
constexpr int kExperts = 256;
constexpr int kTopK = 8;
constexpr int64_t kVocab = 129280;
constexpr int64_t kQueries = 1536;  // low-rank ones

double g_copy_rate = 0;
std::FILE* g_json = nullptr;

void Row(const char* what, int64_t rows, double bytes,
         const std::function<void(int set, cudaStream_t stream)>& launch, int sets) {
  const double us = testing::TimeGraph(
      std::max(sets, 20), 9, [&](int i, cudaStream_t stream) { launch(i % sets, stream); });
  std::printf("| %s | %lld | %.1f | %.0f | %.0f %% |\n", what, static_cast<long long>(rows), us,
              bytes / us * 1e-3, 100 * bytes / us * 1e6 / g_copy_rate);
  std::fflush(stdout);
  if (g_json != nullptr) {
    std::fprintf(g_json,
                 "{\"section\":\"rows\",\"what\":\"%s\",\"rows\":%lld,\"us\":%.2f,\"gbs\":%.0f,"
                 "\"copy_gbs\":%.0f}\n",
                 what, static_cast<long long>(rows), us, bytes / us * 1e-3, g_copy_rate * 1e-9);
  }
}

// So many copies of `bytes` that together they are twice the L2 cache, within reason.
int Sets(double bytes) {
  return static_cast<int>(std::clamp(120e6 / std::max(bytes, 1.0), 1.0, 400.0));
}

void Norms(int64_t rows, int64_t hidden) {
  const double bytes = static_cast<double>(rows) * hidden * (2 + 4 + 4 + 2);
  const int sets = Sets(bytes);
  const auto x = testing::DeviceNormal(sets * rows * hidden, 1);
  Device<float> residual(sets * rows * hidden);
  CUDA_OK(cudaMemset(residual.get(), 0, residual.bytes()));
  testing::Rng rng(1);
  const Device<float> weight(testing::RandomNormal<float>(rng, hidden));
  Device<Bf16> out(sets * rows * hidden);
  const std::string what = "rms_norm with residual, " + std::to_string(hidden);
  Row(
      what.c_str(), rows, bytes,
      [&](int set, cudaStream_t stream) {
        const int64_t at = set * rows * hidden;
        RmsNormLaunch args;
        args.x = {x.get() + at, DType::kBF16, hidden};
        args.residual = residual.get() + at;
        args.residual_stride = hidden;
        args.weight = weight.get();
        args.out = {out.get() + at, DType::kBF16, hidden};
        args.rows = rows;
        args.cols = hidden;
        CUDA_OK(LaunchRmsNorm(args, stream));
      },
      sets);
}

void Latents(int64_t rows) {
  testing::Rng rng(2);
  const int64_t width = kHeads * 192;
  const double rope_bytes = static_cast<double>(rows) * kHeads * 64 * 2 * 2;
  const int sets = Sets(rope_bytes);
  const auto q = testing::DeviceNormal(sets * rows * width, 3);
  const Device<float> table(testing::RandomNormal<float>(rng, 4096 * 64));
  std::vector<int32_t> positions(rows);
  std::vector<int64_t> cache_rows(rows);
  for (int64_t t = 0; t < rows; ++t) {
    positions[t] = static_cast<int32_t>(rng() % 4096);
    cache_rows[t] = static_cast<int64_t>(t) * 131;
  }
  const Device<int32_t> d_positions(positions);
  const Device<int64_t> d_rows(cache_rows);
  Row(
      "rope of 128 heads of 64", rows, rope_bytes,
      [&](int set, cudaStream_t stream) {
        CUDA_OK(LaunchRope({{q.get() + set * rows * width, DType::kBF16, width},
                            rows,
                            kHeads,
                            192,
                            128,
                            64,
                            true,
                            true,
                            d_positions.get(),
                            table.get()},
                           stream));
      },
      sets);
  const Device<float> weight(testing::RandomNormal<float>(rng, 512));
  Device<Bf16> cache(rows * 131 * 576);
  const Device<float> query_weight(testing::RandomNormal<float>(rng, kQueries));
  for (const bool beside : {false, true}) {
    Row(
        beside ? "the same, and queries of 1536 normed" : "mla cache write: norm 512, rope 64",
        rows, static_cast<double>(rows) * 4 * (576 + (beside ? kQueries : 0)),
        [&](int set, cudaStream_t stream) {
          MlaKvWriteLaunch args;
          const DeviceRows queries = {q.get() + set * rows * width, DType::kBF16, width};
          args.x = {q.get() + set * rows * width + kQueries, DType::kBF16, width};
          if (beside) {
            args.queries = queries;
            args.query_cols = kQueries;
            args.query_weight = query_weight.get();
          }
          args.rows = rows;
          args.weight = weight.get();
          args.interleaved = true;
          args.deinterleave = true;
          args.positions = d_positions.get();
          args.table = table.get();
          args.cache_rows = d_rows.get();
          args.cache = {cache.get(), DType::kBF16, 576};
          CUDA_OK(LaunchMlaKvWrite(args, stream));
        },
        sets);
  }
}

// Of Qwen3-30B-A3B: 32 heads of queries, 4 of keys and 4 of values, 128 wide, normed. Positions
// follow each other as a prompt's do, and the cache has them in shuffled blocks of 16.
void NormedHeads(int64_t rows) {
  constexpr int64_t kQueryHeads = 32;
  constexpr int64_t kKeys = 4;
  constexpr int64_t kDim = 128;
  constexpr int64_t kWidth = (kQueryHeads + 2 * kKeys) * kDim;
  testing::Rng rng(5);
  const double bytes = static_cast<double>(rows) * kWidth * 2 * 2;
  const int sets = Sets(bytes / 2);  // nearly all in place
  const auto x = testing::DeviceNormal(sets * rows * kWidth, 6);
  const Device<float> weight(testing::RandomNormal<float>(rng, kDim));
  const Device<float> table(testing::RandomNormal<float>(rng, 4096 * kDim));
  const int64_t blocks = (rows + 15) / 16;
  std::vector<int64_t> block_rows(blocks);
  for (int64_t b = 0; b < blocks; ++b) block_rows[b] = 16 * b;
  std::shuffle(block_rows.begin(), block_rows.end(), rng);
  std::vector<int32_t> positions(rows);
  std::vector<int64_t> cache_rows(rows);
  for (int64_t t = 0; t < rows; ++t) {
    positions[t] = static_cast<int32_t>(t % 4096);
    cache_rows[t] = block_rows[t / 16] + t % 16;
  }
  const Device<int32_t> d_positions(positions);
  const Device<int64_t> d_rows(cache_rows);
  const int64_t cache_elements = 16 * blocks * kKeys * kDim;
  Device<Bf16> k(sets * cache_elements), v(sets * cache_elements);
  Row(
      "heads 32 / 4 / 4 x 128: norm, rope, cache write", rows, bytes,
      [&](int set, cudaStream_t stream) {
        PrepareHeadsLaunch args;
        args.x = {x.get() + set * rows * kWidth, DType::kBF16, kWidth};
        args.rows = rows;
        args.num_heads = kQueryHeads;
        args.num_kv_heads = kKeys;
        args.head_dim = kDim;
        args.q_weight = weight.get();
        args.k_weight = weight.get();
        args.positions = d_positions.get();
        args.table = table.get();
        args.cache_rows = d_rows.get();
        args.k_cache = {k.get() + set * cache_elements, DType::kBF16, kKeys * kDim};
        args.v_cache = {v.get() + set * cache_elements, DType::kBF16, kKeys * kDim};
        CUDA_OK(LaunchPrepareHeads(args, stream));
      },
      sets);
}

void Experts(int64_t rows) {
  testing::Rng rng(3);
  const Device<float> logits(testing::RandomNormal<float>(rng, rows * kExperts));
  const Device<float> bias(testing::RandomNormal<float>(rng, kExperts, 0.1f));
  Device<int32_t> experts(rows * kTopK), offsets(kExperts + 1), pairs(rows * kTopK),
      places(rows * kTopK);
  Device<float> weights(rows * kTopK);
  Device<uint8_t> workspace(GroupBySlotWorkspace(rows * kTopK, kExperts));
  std::vector<int32_t> identity(kExperts);
  std::iota(identity.begin(), identity.end(), 0);
  const Device<int32_t> first_slot(identity), tokens(std::vector<int32_t>(rows, 1));
  Device<int64_t> counts(kExperts);
  Device<int32_t> slots(rows * kTopK);
  const auto route = [&] {
    RouteTopKLaunch args;
    args.logits = logits.get();
    args.logits_stride = kExperts;
    args.rows = rows;
    args.num_experts = kExperts;
    args.score = RouteScore::kSigmoid;
    args.bias = bias.get();
    args.groups = RouteGroups::kTop2Sum;
    args.num_groups = 8;
    args.num_top_groups = 4;
    args.k = kTopK;
    args.normalize = true;
    args.scale = 2.5f;
    args.experts = experts.get();
    args.weights = weights.get();
    return args;
  };
  const GroupBySlotLaunch group = {experts.get(),
                                   rows * kTopK,
                                   kExperts,
                                   offsets.get(),
                                   pairs.get(),
                                   places.get(),
                                   reinterpret_cast<int32_t*>(workspace.get())};
  Row(
      "route top-8 of 256, 4 of 8 groups", rows, static_cast<double>(rows) * (kExperts * 4 + 64),
      [&](int, cudaStream_t stream) { CUDA_OK(LaunchRouteTopK(route(), stream)); }, 1);
  if (rows <= kMaxRowsGrouped) {
    Row(
        "the same, to slots, and grouped by them", rows,
        static_cast<double>(rows) * (kExperts * 4 + 64),
        [&](int, cudaStream_t stream) {
          RouteTopKLaunch args = route();
          args.choice.tokens = tokens.get();
          args.choice.first_slot = first_slot.get();
          args.choice.counts = counts.get();
          args.choice.slots = slots.get();
          GroupBySlotLaunch of_slots = group;
          of_slots.slots = slots.get();
          CUDA_OK(LaunchRouteAndGroup(args, of_slots, stream));
        },
        1);
  }
  Row(
      "group by slot, 8 pairs a row, 256 slots", rows, static_cast<double>(rows) * kTopK * 12,
      [&](int, cudaStream_t stream) { CUDA_OK(LaunchGroupBySlot(group, stream)); }, 1);
}

// What brings the experts' rows home, of DeepSeek-V3 and of Qwen3-30B-A3B: the sum, with the norm
// behind it in a launch of its own, and in the same.
void Sums(int64_t rows, int64_t hidden, bool has_shared) {
  testing::Rng rng(6);
  std::vector<int32_t> order(rows * kTopK);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), rng);
  const Device<int32_t> places(order);
  const Device<float> weights(testing::RandomNormal<float>(rng, rows * kTopK));
  const Device<float> norm_weight(testing::RandomNormal<float>(rng, hidden));
  const double sum_bytes = static_cast<double>(rows) * hidden * 2 * (kTopK + 1 + has_shared);
  const double norm_bytes = static_cast<double>(rows) * hidden * (4 + 4 + 2);
  const int sets = Sets(sum_bytes + norm_bytes);
  const auto in = testing::DeviceNormal(sets * rows * kTopK * hidden, 4);
  const auto shared = testing::DeviceNormal(sets * rows * hidden, 5);
  Device<float> residual(sets * rows * hidden);
  CUDA_OK(cudaMemset(residual.get(), 0, residual.bytes()));
  Device<Bf16> delta(sets * rows * hidden), out(sets * rows * hidden);
  const auto sum_of = [&](int set) {
    WeightedReduceLaunch sum;
    sum.in = {in.get() + set * rows * kTopK * hidden, DType::kBF16, hidden};
    sum.places = places.get();
    sum.weights = weights.get();
    sum.k = kTopK;
    if (has_shared) sum.shared = {shared.get() + set * rows * hidden, DType::kBF16, hidden};
    sum.out = {delta.get() + set * rows * hidden, DType::kBF16, hidden};
    sum.rows = rows;
    sum.cols = hidden;
    return sum;
  };
  const auto norm_of = [&](int set) {
    RmsNormLaunch norm;
    norm.x = sum_of(set).out;
    norm.residual = residual.get() + set * rows * hidden;
    norm.residual_stride = hidden;
    norm.weight = norm_weight.get();
    norm.out = {out.get() + set * rows * hidden, DType::kBF16, hidden};
    norm.rows = rows;
    norm.cols = hidden;
    return norm;
  };
  const std::string what = "8 rows of " + std::to_string(hidden) + (has_shared ? ", shared" : "");
  Row(("weighted reduce of " + what).c_str(), rows, sum_bytes,
      [&](int set, cudaStream_t stream) { CUDA_OK(LaunchWeightedReduce(sum_of(set), stream)); },
      sets);
  Row(("reduce, then norm of " + what).c_str(), rows, sum_bytes + norm_bytes,
      [&](int set, cudaStream_t stream) {
        CUDA_OK(LaunchWeightedReduce(sum_of(set), stream));
        CUDA_OK(LaunchRmsNorm(norm_of(set), stream));
      },
      sets);
  if (!FitsReduceAndNorm(sum_of(0), norm_of(0))) return;
  // The sums themselves are not written.
  const double delta_bytes = static_cast<double>(rows) * hidden * 2;
  Row(("reduce and norm of " + what).c_str(), rows, sum_bytes + norm_bytes - delta_bytes,
      [&](int set, cudaStream_t stream) {
        CUDA_OK(LaunchReduceAndNorm(sum_of(set), norm_of(set), stream));
      },
      sets);
}

void Samples(int64_t rows) {
  testing::Rng rng(4);
  const double bytes = static_cast<double>(rows) * kVocab * 4;
  std::vector<float> base = testing::RandomNormal<float>(rng, kVocab * 8, 2.5f);
  std::vector<float> values;
  for (int64_t t = 0; t < rows; ++t) {
    const auto from = base.begin() + static_cast<int64_t>(rng() % (kVocab * 7));
    values.insert(values.end(), from, from + kVocab);
  }
  const Device<float> source(values);
  const int sets = std::min(Sets(bytes), 20);
  Device<float> logits(sets * rows * kVocab);
  for (int set = 0; set < sets; ++set) {
    CUDA_OK(cudaMemcpy(logits.get() + set * rows * kVocab, source.get(), source.bytes(),
                       cudaMemcpyDeviceToDevice));
  }
  Device<int32_t> tokens(rows);
  const auto time = [&](const char* what, const DeviceSampleRow& wish) {
    std::vector<DeviceSampleRow> wishes(rows, wish);
    for (int64_t t = 0; t < rows; ++t) wishes[t].seed = rng();
    const Device<DeviceSampleRow> d_wishes(wishes);
    Row(
        what, rows, bytes,
        [&](int set, cudaStream_t stream) {
          SampleLaunch args;
          args.logits = logits.get() + set * rows * kVocab;
          args.logits_stride = kVocab;
          args.rows = rows;
          args.vocab = kVocab;
          args.wishes = d_wishes.get();
          args.tokens = tokens.get();
          CUDA_OK(LaunchSample(args, stream));
        },
        sets);
  };
  time("sample: greedy", {.temperature = 0});
  time("sample: temperature", {});
  time("sample: top-p 0.9", {.top_p = 0.9f});
  time("sample: top-k 50, top-p 0.9", {.top_k = 50, .top_p = 0.9f});
}

}  // namespace

void BenchRows(std::FILE* json) {
  g_copy_rate = testing::CopyRate();
  g_json = json;
  std::printf("\nRows (not checked here), copy %.0f GB/s (read + written)\n\n", g_copy_rate * 1e-9);
  std::printf("| operation | rows | us | GB/s | of copy |\n| --- | --: | --: | --: | --: |\n");
  for (const int64_t rows : {1, 4, 32, 256, 4096}) {
    Norms(rows, kHidden);
    Norms(rows, 2048);
    Latents(rows);
    NormedHeads(rows);
    Experts(rows);
    Sums(rows, kHidden, true);
    Sums(rows, 2048, false);
    if (rows <= 256) Samples(rows);
  }
}

}  // namespace moebius::kernels::cuda
