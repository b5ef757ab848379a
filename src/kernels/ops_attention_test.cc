// Attention over paged caches of every back end against the reference, and its row invariance.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <numeric>

#include "kernels/test_util.h"

namespace moebius::kernels {
namespace {

// Sequences with a cache whose blocks are dealt in random order; what no sequence owns is NaN.
struct Batch {
  Batch(const std::vector<std::pair<int, int>>& queries_and_context, int64_t block_size,
        Random& random)
      : block_size(block_size) {
    query_start.push_back(0);
    for (const auto& [queries, context] : queries_and_context) {
      query_start.push_back(query_start.back() + queries);
      context_len.push_back(context);
      max_blocks = std::max(max_blocks, (context + block_size - 1) / block_size);
    }
    const int64_t total = max_blocks * static_cast<int64_t>(context_len.size()) + 3;
    std::vector<int32_t> blocks(total);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::shuffle(blocks.begin(), blocks.end(), random.engine());
    block_table.assign(blocks.begin(), blocks.begin() + total - 3);
    cache_rows = total * block_size;
  }
  AttentionBatch view() const {
    return {query_start, context_len, block_table, max_blocks, block_size};
  }
  void FillCache(TestMat& cache, Random& random) const {
    for (size_t s = 0; s < context_len.size(); ++s) {
      for (int64_t p = 0; p < context_len[s]; ++p) {
        const int64_t row =
            block_table[s * max_blocks + p / block_size] * block_size + p % block_size;
        for (int64_t c = 0; c < cache.view().cols; ++c) cache.Set(row, c, random.Normal());
      }
    }
  }
  int64_t num_rows() const { return query_start.back(); }

  std::vector<int32_t> query_start;
  std::vector<int32_t> context_len;
  std::vector<int32_t> block_table;
  int64_t max_blocks = 0;
  int64_t block_size;
  int64_t cache_rows = 0;
};

struct Heads {
  int64_t num_heads;
  int64_t num_kv_heads;
  int64_t head_dim;
  int64_t v_head_dim;
  int64_t window;
  int64_t chunk;
};

TEST(OpsAttention, AgreesWithRef) {
  const std::vector<std::vector<std::pair<int, int>>> batches = {
      {{1, 1}},
      {{1, 64}, {1, 65}, {1, 200}},
      {{20, 20}, {1, 130}, {0, 7}, {17, 150}, {70, 70}},
  };
  for (const Backend* backend : VectorBackends()) {
    for (const Heads& h : {Heads{4, 4, 16, 16, 0, 0},
                           {8, 2, 64, 64, 0, 0},
                           {8, 1, 40, 24, 0, 0},
                           {6, 2, 128, 128, 20, 0},
                           {4, 2, 32, 32, 0, 24},
                           {4, 4, 24, 16, 90, 0},
                           {20, 1, 256, 64, 0, 0},
                           {40, 2, 17, 33, 70, 100}}) {
      for (const auto& shape : batches) {
        for (const DType act : kActs) {
          for (const DType cache_dtype : kActs) {
            if (act != cache_dtype && h.num_heads > 4) continue;
            Random random(h.num_heads);
            const Batch batch(shape, h.head_dim == 64 ? 8 : 16, random);
            TestMat k(cache_dtype, batch.cache_rows, h.num_kv_heads * h.head_dim, 4);
            TestMat v(cache_dtype, batch.cache_rows, h.num_kv_heads * h.v_head_dim, 4);
            batch.FillCache(k, random);
            batch.FillCache(v, random);
            TestMat q(act, batch.num_rows(), h.num_heads * h.head_dim, 4);
            q.Fill(random, 2.0f);
            TestMat want(act, batch.num_rows(), h.num_heads * h.v_head_dim, 3);
            TestMat got(want);
            AttentionArgs args;
            args.batch = batch.view();
            args.q = q.view();
            args.k_cache = k.view();
            args.v_cache = v.view();
            args.num_heads = h.num_heads;
            args.num_kv_heads = h.num_kv_heads;
            args.head_dim = h.head_dim;
            args.v_head_dim = h.v_head_dim;
            args.scale = 1.0f / std::sqrt(static_cast<float>(h.head_dim));
            args.window = h.window;
            args.chunk = h.chunk;
            args.out = want.view();
            TestContext ref(&RefBackend());
            Attention(ref.ctx(), args);
            args.out = got.view();
            TestContext context(backend, 2);
            Attention(context.ctx(), args);
            ExpectNear(got, want,
                       fmt::format("{} heads {}/{} dim {}", backend->name, h.num_heads,
                                   h.num_kv_heads, h.head_dim),
                       3e-6f);
          }
        }
      }
    }
  }
}

TEST(OpsAttention, MlaAgreesWithRef) {
  for (const Backend* backend : VectorBackends()) {
    for (const int64_t num_heads : {1, 4, 16, 24}) {
      for (const auto& [latent, rope] : {std::pair<int64_t, int64_t>{512, 64}, {64, 16}, {40, 8}}) {
        for (const auto& [dtype, is_fp8] : {std::pair(DType::kF32, false),
                                            {DType::kBF16, false},
                                            {DType::kF32, true},
                                            {DType::kBF16, true}}) {
          Random random(num_heads);
          const Batch batch({{3, 3}, {1, 100}, {9, 70}}, 16, random);
          TestMat plain(dtype, batch.cache_rows, latent + rope, 4);
          batch.FillCache(plain, random);
          const TestMat cache = is_fp8 ? Fp8Latents(plain, latent) : plain;
          TestMat q(dtype, batch.num_rows(), num_heads * (latent + rope), 4);
          q.Fill(random);
          TestMat want(dtype, batch.num_rows(), num_heads * latent, 3);
          TestMat got(want);
          MlaAttentionArgs args;
          args.batch = batch.view();
          args.q = q.view();
          args.cache = cache.view();
          args.num_heads = num_heads;
          args.latent_dim = latent;
          args.rope_dim = rope;
          args.scale = 0.1f;
          args.out = want.view();
          TestContext ref(&RefBackend());
          MlaAttention(ref.ctx(), args);
          args.out = got.view();
          TestContext context(backend, 2);
          MlaAttention(context.ctx(), args);
          ExpectNear(
              got, want,
              fmt::format("{} mla {} heads{}", backend->name, num_heads, is_fp8 ? ", fp8" : ""),
              3e-6f);
        }
      }
    }
  }
}

// What fp8 costs: latents are off by 1/16 at most, and as the errors of a row and of positions are
// independent, scores and sums by far less.
TEST(OpsAttention, Fp8LatentsAreNearTheirOwn) {
  constexpr int64_t kLatent = 512;
  constexpr int64_t kRope = 64;
  for (const Backend* backend : AvailableBackends()) {
    Random random(3);
    const Batch batch({{1, 200}, {4, 70}}, 16, random);
    TestMat plain(DType::kBF16, batch.cache_rows, kLatent + kRope);
    batch.FillCache(plain, random);
    const TestMat fp8 = Fp8Latents(plain, kLatent);
    TestMat q(DType::kBF16, batch.num_rows(), 16 * (kLatent + kRope));
    q.Fill(random);
    TestMat want(DType::kF32, batch.num_rows(), 16 * kLatent);
    TestMat got(want);
    TestContext context(backend);
    MlaAttention(context.ctx(), {batch.view(), q.view(), plain.view(), 16, kLatent, kRope,
                                 1.0f / 24.0f, want.view()});
    MlaAttention(context.ctx(), {batch.view(), q.view(), fp8.view(), 16, kLatent, kRope,
                                 1.0f / 24.0f, got.view()});
    double difference = 0;
    double norm = 0;
    for (int64_t r = 0; r < batch.num_rows(); ++r) {
      for (int64_t c = 0; c < want.view().cols; ++c) {
        difference += std::pow(got.At(r, c) - want.At(r, c), 2);
        norm += std::pow(want.At(r, c), 2);
      }
    }
    EXPECT_LT(std::sqrt(difference / norm), 0.05) << backend->name;
    EXPECT_GT(difference, 0) << backend->name;
  }
}

// Expanded and absorbed are one function; only rounding differs, which float32 has little of.
class ExpandedLatents : public ::testing::TestWithParam<bool> {};  // fp8

TEST_P(ExpandedLatents, GiveWhatAbsorbedOnesGive) {
  constexpr int64_t kHeads = 3;
  constexpr int64_t kNope = 10;
  constexpr int64_t kRope = 6;
  constexpr int64_t kLatent = 24;
  constexpr int64_t kValue = 14;
  Random random(5);
  TestContext context(&RefBackend());
  const Batch batch({{1, 9}, {5, 5}, {7, 30}}, 4, random);
  TestMat numbers(DType::kF32, batch.cache_rows, kLatent + kRope);
  batch.FillCache(numbers, random);
  const TestMat cache = GetParam() ? Fp8Latents(numbers, kLatent) : numbers;
  const int64_t rows = batch.num_rows();
  const TestMat q = TestMat(DType::kF32, rows, kHeads * (kNope + kRope)).Fill(random);
  std::vector<TestWeight> weights;
  std::vector<PackedWeight> w_uk;
  std::vector<PackedWeight> w_uv;
  for (int64_t h = 0; h < kHeads; ++h) {
    weights.emplace_back(WeightFormat::kF32, kLatent, kNope, false, random);
    w_uk.push_back(weights.back().packed());
    weights.emplace_back(WeightFormat::kF32, kValue, kLatent, false, random);
    w_uv.push_back(weights.back().packed());
  }
  const float scale = 0.3f;
  const std::vector<AttentionItem> expanded = {{1, 1, 5, 5}, {6, 2, 30, 7}};
  AttentionBatch some = batch.view();
  some.expanded = expanded;
  TestMat got(DType::kF32, rows, kHeads * kValue);
  MlaPrefill(context.ctx(), {.batch = some,
                             .q = q.view(),
                             .cache = cache.view(),
                             .rope_dim = kRope,
                             .w_uk = w_uk,
                             .w_uv = w_uv,
                             .scale = scale,
                             .out = got.view()});
  EXPECT_TRUE(std::isnan(got.At(0, 0)));  // of a sequence that is not expanded

  TestMat latent_out(DType::kF32, rows, kHeads * kLatent);
  TestMat want(DType::kF32, rows, kHeads * kValue);
  TestMat absorbed(DType::kF32, rows, kHeads * (kLatent + kRope));
  HeadGemm(context.ctx(), {.a = q.view(),
                           .a_head_stride = kNope + kRope,
                           .weights = w_uk,
                           .out = absorbed.view(),
                           .out_head_stride = kLatent + kRope});
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t h = 0; h < kHeads; ++h) {
      for (int64_t c = 0; c < kRope; ++c) {
        absorbed.Set(r, h * (kLatent + kRope) + kLatent + c,
                     q.At(r, h * (kNope + kRope) + kNope + c));
      }
    }
  }
  MlaAttention(context.ctx(), {batch.view(), absorbed.view(), cache.view(), kHeads, kLatent, kRope,
                               scale, latent_out.view()});
  HeadGemm(context.ctx(), {.a = latent_out.view(),
                           .a_head_stride = kLatent,
                           .weights = w_uv,
                           .out = want.view(),
                           .out_head_stride = kValue});
  for (int64_t r = 1; r < rows; ++r) {
    for (int64_t c = 0; c < want.view().cols; ++c) {
      EXPECT_NEAR(got.At(r, c), want.At(r, c), 1e-4) << r << ", " << c;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Caches, ExpandedLatents, ::testing::Bool());

// Very large scores: the maximum is subtracted before exp, across blocks too.
TEST(OpsAttention, LargeScoresDoNotOverflow) {
  for (const Backend* backend : AvailableBackends()) {
    Random random(1);
    const Batch batch({{1, 300}}, 16, random);
    TestMat k(DType::kF32, batch.cache_rows, 16);
    TestMat v(DType::kF32, batch.cache_rows, 16);
    batch.FillCache(k, random);
    batch.FillCache(v, random);
    TestMat q(DType::kF32, 1, 16);
    q.Fill(random, 1000.0f);
    TestMat want(DType::kF32, 1, 16);
    TestMat got(want);
    AttentionArgs args;
    args.batch = batch.view();
    args.q = q.view();
    args.k_cache = k.view();
    args.v_cache = v.view();
    args.num_heads = args.num_kv_heads = 1;
    args.head_dim = args.v_head_dim = 16;
    args.out = want.view();
    TestContext ref(&RefBackend());
    Attention(ref.ctx(), args);
    args.out = got.view();
    TestContext context(backend);
    Attention(context.ctx(), args);
    ExpectNear(got, want, std::string(backend->name), 1e-3f);
  }
}

// A sequence prefilled at once, in chunks, token by token, beside others, on several threads.
TEST(OpsAttention, RowsAreInvariant) {
  for (const Backend* backend : AvailableBackends()) {
    for (const Heads& h :
         {Heads{8, 2, 64, 64, 0, 0}, {4, 4, 32, 32, 50, 0}, {32, 1, 80, 64, 0, 0}}) {
      Random random(6);
      const int context = 180;
      const Batch batch({{context, context}, {30, 150}}, 16, random);
      TestMat k(DType::kBF16, batch.cache_rows, h.num_kv_heads * h.head_dim);
      TestMat v(DType::kBF16, batch.cache_rows, h.num_kv_heads * h.v_head_dim);
      batch.FillCache(k, random);
      batch.FillCache(v, random);
      TestMat q(DType::kBF16, batch.num_rows(), h.num_heads * h.head_dim);
      q.Fill(random);
      AttentionArgs args;
      args.k_cache = k.view();
      args.v_cache = v.view();
      args.num_heads = h.num_heads;
      args.num_kv_heads = h.num_kv_heads;
      args.head_dim = h.head_dim;
      args.v_head_dim = h.v_head_dim;
      args.window = h.window;
      args.scale = 0.125f;
      TestMat all(DType::kBF16, batch.num_rows(), h.num_heads * h.v_head_dim);
      args.batch = batch.view();
      args.q = q.view();
      args.out = all.view();
      TestContext both(backend, 3);
      Attention(both.ctx(), args);
      // The first sequence alone, rows [begin, end) as one chunk.
      for (const auto& [begin, end] :
           {std::pair<int, int>{0, 1}, {0, 180}, {63, 64}, {64, 65}, {50, 130}, {179, 180}}) {
        const std::vector<int32_t> query_start = {0, end - begin};
        const std::vector<int32_t> context_len = {end};
        args.batch = batch.view();
        args.batch.query_start = query_start;
        args.batch.context_len = context_len;
        args.q = q.view().Rows(begin, end - begin);
        TestMat part(DType::kBF16, end - begin, h.num_heads * h.v_head_dim);
        args.out = part.view();
        TestContext context(backend, 1);
        Attention(context.ctx(), args);
        for (int r = 0; r < end - begin; ++r) {
          ExpectSameRow(part, r, all, begin + r,
                        fmt::format("{} rows {} to {}", backend->name, begin, end));
        }
      }
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
