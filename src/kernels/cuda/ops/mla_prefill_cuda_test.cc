// MlaPrefill on a GPU, gathering and expanding included, against ref/. Skipped without a GPU.
#include "kernels/cuda/ops/device_test_util.h"
#include "kernels/cuda/ops/staged.h"
#include "kernels/tuning/latent_passes.h"

namespace moebius::kernels {
namespace {

constexpr int64_t kLatent = 512;
constexpr int64_t kRope = 64;
constexpr int64_t kHead = 128;

struct PrefillCase {
  const char* name;
  int heads;
  int64_t block_size;
  std::vector<int32_t> queries, contexts;  // by sequence; those of fewer than 2 stay absorbed
  WeightFormat format = WeightFormat::kBF16;
  size_t pass_bytes = kLatentPassBytes;
  bool fp8_cache = false;
};

class CudaMlaPrefill : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    const auto backend = CudaBackend();
    if (!backend) GTEST_SKIP() << backend.error().message();
    bench_ = std::make_unique<DeviceBench>(*backend, GetParam());
  }
  void Run(const PrefillCase& c);

  Random random_{11};
  std::unique_ptr<DeviceBench> bench_;
  TestContext host_{&RefBackend()};
};

INSTANTIATE_TEST_SUITE_P(OwnAndLibrary, CudaMlaPrefill, ::testing::Bool());

void CudaMlaPrefill::Run(const PrefillCase& c) {
  DeviceBench& bench = *bench_;
  bench.Reset();
  std::vector<int32_t> starts = {0};
  for (const int32_t count : c.queries) starts.push_back(starts.back() + count);
  std::vector<AttentionItem> expanded;
  for (size_t s = 0; s < c.queries.size(); ++s) {
    if (c.queries[s] < 2) continue;
    expanded.push_back({starts[s], static_cast<int32_t>(s), c.contexts[s], c.queries[s]});
  }
  const int64_t longest = *std::max_element(c.contexts.begin(), c.contexts.end());
  const int64_t max_blocks = (longest + c.block_size - 1) / c.block_size + 1;
  std::vector<int32_t> table(c.contexts.size() * static_cast<size_t>(max_blocks));
  for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
  std::shuffle(table.begin(), table.end(), random_.engine());
  const int64_t rows = starts.back();
  const auto cache_rows = static_cast<int64_t>(table.size()) * c.block_size;
  const TestMat numbers = TestMat(DType::kBF16, cache_rows, kLatent + kRope).Fill(random_);
  const TestMat cache = c.fp8_cache ? Fp8Latents(numbers, kLatent) : numbers;
  const TestMat q = TestMat(DType::kBF16, rows, c.heads * (kHead + kRope), 8).Fill(random_);
  const DeviceWeights w_uk(bench, random_, c.format, c.heads, kLatent, kHead, false);
  const DeviceWeights w_uv(bench, random_, c.format, c.heads, kHead, kLatent, false);
  TestMat want(DType::kBF16, rows, c.heads * kHead, 16);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < want.view().cols; ++i) want.Set(r, i, 7.0f);  // stays where absorbed
  }
  TestMat got = want;

  MlaPrefillArgs args;
  args.batch = {.query_start = starts,
                .context_len = c.contexts,
                .block_table = table,
                .max_blocks = max_blocks,
                .block_size = c.block_size,
                .staged = nullptr,
                .expanded = expanded};
  args.q = q.view();
  args.cache = cache.view();
  args.rope_dim = kRope;
  args.w_uk = w_uk.packed();
  args.w_uv = w_uv.packed();
  args.scale = 1.0f / std::sqrt(192.0f);
  args.out = want.view();
  MlaPrefill(host_.ctx(), args);

  const LatentPasses plan = PlanLatentPasses(
      expanded, {.num_heads = c.heads, .num_sms = bench.num_sms(), .most_bytes = c.pass_bytes});
  cuda::StagedAttention staged;
  staged.block_table = bench.Put(table).data();
  staged.max_blocks = max_blocks;
  staged.block_size = static_cast<int>(c.block_size);
  staged.sequences = bench.Put(plan.sequences).data();
  staged.tiles = bench.Put(plan.tiles).data();
  staged.passes = plan.passes;
  args.batch.staged = &staged;
  args.q = bench.Put(q);
  args.cache = bench.Put(cache);
  args.w_uk = w_uk.device();
  args.w_uv = w_uv.device();
  const Mat d_out = bench.Put(got);
  args.out = d_out;
  MlaPrefill(bench.ctx(), args);
  bench.Get(d_out, got);
  EXPECT_TRUE(got.Untouched()) << c.name;
  for (size_t s = 0; s < c.queries.size(); ++s) {
    if (c.queries[s] < 2) {
      EXPECT_EQ(got.At(starts[s], 5), 7.0f) << c.name;
    }
  }
  ExpectClose(got, want, 1e-2, fmt::format("{}, {} heads", c.name, c.heads));
}

TEST_P(CudaMlaPrefill, AgreesWithRef) {
  const std::vector<int32_t> chunks = {1, 64, 1, 90, 130};
  const std::vector<int32_t> behind = {50, 64, 3, 300, 131};
  for (const PrefillCase& c : {
           PrefillCase{"ragged", 16, 16, chunks, behind},
           PrefillCase{"blocks of 64, passes", 8, 64, chunks, behind, WeightFormat::kBF16,
                       size_t{2} << 20},
           PrefillCase{"groups of heads", 5, 16, chunks, behind, WeightFormat::kBF16,
                       size_t{1} << 20},
           PrefillCase{"float32 weights", 2, 16, chunks, behind, WeightFormat::kF32},
           PrefillCase{"all heads", 128, 16, {1, 70}, {4, 80}},
           PrefillCase{"fp8 cache", 16, 16, chunks, behind, WeightFormat::kBF16, kLatentPassBytes,
                       true},
       }) {
    Run(c);
  }
}

}  // namespace
}  // namespace moebius::kernels
