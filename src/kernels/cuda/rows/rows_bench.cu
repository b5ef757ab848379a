// Row, routing and sampling operations at the sizes of a decode step of DeepSeek-V3 (hidden 7168,
// 128 heads, 256 experts, top-8, vocabulary 129280) and one prefill chunk, and heads of Qwen3's.
// Inputs rotate through more memory than the L2 cache holds; times are of graph replays. Bytes:
// what each operation must read and write once.
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

void Norms(int64_t rows) {
  const double bytes = static_cast<double>(rows) * kHidden * (2 + 4 + 4 + 2);
  const int sets = Sets(bytes);
  const auto x = testing::DeviceNormal(sets * rows * kHidden, 1);
  Device<float> residual(sets * rows * kHidden);
  CUDA_OK(cudaMemset(residual.get(), 0, residual.bytes()));
  testing::Rng rng(1);
  const Device<float> weight(testing::RandomNormal<float>(rng, kHidden));
  Device<Bf16> out(sets * rows * kHidden);
  Row(
      "rms_norm with residual, 7168", rows, bytes,
      [&](int set, cudaStream_t stream) {
        const int64_t at = set * rows * kHidden;
        RmsNormLaunch args;
        args.x = {x.get() + at, DType::kBF16, kHidden};
        args.residual = residual.get() + at;
        args.residual_stride = kHidden;
        args.weight = weight.get();
        args.out = {out.get() + at, DType::kBF16, kHidden};
        args.rows = rows;
        args.cols = kHidden;
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
  Row(
      "mla cache write: norm 512, rope 64", rows, static_cast<double>(rows) * 576 * 4,
      [&](int set, cudaStream_t stream) {
        MlaKvWriteLaunch args;
        args.x = {q.get() + set * rows * width, DType::kBF16, width};
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

// Of Qwen3-30B-A3B: 32 heads of queries, 4 of keys and 4 of values, 128 wide, normed. Positions
// follow each other as a prompt's do, and the cache has them in shuffled blocks of 16.
void NormedHeads(int64_t rows) {
  constexpr int64_t kQueries = 32;
  constexpr int64_t kKeys = 4;
  constexpr int64_t kDim = 128;
  constexpr int64_t kWidth = (kQueries + 2 * kKeys) * kDim;
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
        args.num_heads = kQueries;
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
  Row(
      "route top-8 of 256, 4 of 8 groups", rows, static_cast<double>(rows) * (kExperts * 4 + 64),
      [&](int, cudaStream_t stream) {
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
        CUDA_OK(LaunchRouteTopK(args, stream));
      },
      1);
  Row(
      "group by slot, 8 pairs a row, 256 slots", rows, static_cast<double>(rows) * kTopK * 12,
      [&](int, cudaStream_t stream) {
        CUDA_OK(
            LaunchGroupBySlot({experts.get(), rows * kTopK, kExperts, offsets.get(), pairs.get(),
                               places.get(), reinterpret_cast<int32_t*>(workspace.get())},
                              stream));
      },
      1);
  const double bytes = static_cast<double>(rows) * kHidden * 2 * (kTopK + 2);
  const int sets = Sets(bytes);
  const auto in = testing::DeviceNormal(sets * rows * kTopK * kHidden, 4);
  const auto shared = testing::DeviceNormal(rows * kHidden, 5);
  Device<Bf16> out(rows * kHidden);
  Row(
      "weighted reduce of 8 rows of 7168, shared", rows, bytes,
      [&](int set, cudaStream_t stream) {
        WeightedReduceLaunch args;
        args.in = {in.get() + set * rows * kTopK * kHidden, DType::kBF16, kHidden};
        args.places = places.get();
        args.weights = weights.get();
        args.k = kTopK;
        args.shared = {shared.get(), DType::kBF16, kHidden};
        args.out = {out.get(), DType::kBF16, kHidden};
        args.rows = rows;
        args.cols = kHidden;
        CUDA_OK(LaunchWeightedReduce(args, stream));
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
  time("sample: top-k 50, top-p 0.9", {.top_k = 50, .top_p = 0.9f});
}

}  // namespace

void BenchRows(std::FILE* json) {
  g_copy_rate = testing::CopyRate();
  g_json = json;
  std::printf("\nRows (not checked here), copy %.0f GB/s (read + written)\n\n", g_copy_rate * 1e-9);
  std::printf("| operation | rows | us | GB/s | of copy |\n| --- | --: | --: | --: | --: |\n");
  for (const int64_t rows : {1, 32, 256, 4096}) {
    Norms(rows);
    Latents(rows);
    NormedHeads(rows);
    Experts(rows);
    if (rows <= 256) Samples(rows);
  }
}

}  // namespace moebius::kernels::cuda
