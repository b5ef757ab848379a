// The GPU's operations on rows and attention against ref/, through kernels/ops.h: heads,
// products and experts have files of their own. Skipped without a GPU.
#include "kernels/cuda/attention/gqa.h"
#include "kernels/cuda/attention/mla_decode.h"
#include "kernels/cuda/ops/device_test_util.h"
#include "kernels/cuda/ops/staged.h"
#include "kernels/tuning/attention_form.h"
#include "kernels/tuning/gqa_prefill.h"

namespace moebius::kernels {
namespace {

INSTANTIATE_TEST_SUITE_P(OwnAndLibrary, CudaOps, ::testing::Bool());

TEST_P(CudaOps, Rows) {
  for (const DType act : kActs) {
    for (const auto& [rows, cols] :
         {std::pair(1, 64), std::pair(7, 96), std::pair(33, 2048), std::pair(2, 32768)}) {
      const std::string what = fmt::format("{} {} x {}", DTypeName(act), rows, cols);
      bench().Reset();
      const std::vector<int32_t> tokens = Ints(rows, 50);
      const TestMat table = TestMat(act, 50, cols).Fill(random_);
      TestMat want(act, rows, cols, 8);
      TestMat got = want;
      Mat d_out = bench().Put(got);
      Embed(host(), {.tokens = tokens, .table = table.view(), .out = want.view()});
      Embed(device(), {.tokens = bench().Put(tokens), .table = bench().Put(table), .out = d_out});
      bench().Get(d_out, got);
      ExpectClose(got, want, 0, "embed " + what);

      for (const int64_t group : {0, 32, 64, 128, 256}) {
        if (group > 0 && cols % group != 0) continue;
        const TestMat x = TestMat(act, rows, cols, 16).Fill(random_);
        TestMat stream = TestMat(DType::kF32, rows, cols).Fill(random_);
        const TestMat weight = TestMat(DType::kF32, 1, group == 0 ? cols : group).Fill(random_);
        const Mat d_stream = bench().Put(stream);
        RmsNorm(device(), {.x = bench().Put(x),
                           .residual = group == 0 ? d_stream : Mat(),
                           .weight = bench().Put(weight),
                           .group = group,
                           .out = d_out});
        RmsNorm(host(), {.x = x.view(),
                         .residual = group == 0 ? stream.view() : Mat(),
                         .weight = weight.view(),
                         .group = group,
                         .out = want.view()});
        bench().Get(d_out, got);
        ExpectClose(got, want, LimitOf(act), "rms_norm " + what);
        TestMat got_stream = stream;
        bench().Get(d_stream, got_stream);
        ExpectClose(got_stream, stream, 1e-6, "rms_norm's residual " + what);
      }

      const TestMat y = TestMat(act, rows, cols).Fill(random_);
      TestMat sum = TestMat(DType::kF32, rows, cols).Fill(random_);
      TestMat got_sum = sum;
      const Mat d_sum = bench().Put(sum);
      Add(device(), {d_sum, bench().Put(y)});
      Add(host(), {sum.view(), y.view()});
      bench().Get(d_sum, got_sum);
      ExpectClose(got_sum, sum, 1e-6, "add " + what);

      std::vector<float> scales;
      for (int row = 0; row < rows; ++row) scales.push_back(random_.Normal());
      CopyRows(device(), {.from = bench().Put(y), .to = d_out, .scale = bench().Put(scales)});
      CopyRows(host(), {.from = y.view(), .to = want.view(), .scale = scales});
      bench().Get(d_out, got);
      ExpectClose(got, want, 0, "copy_rows with a scale " + what);
      CopyRows(device(), {.from = bench().Put(y), .to = d_out});
      CopyRows(host(), {.from = y.view(), .to = want.view()});
      bench().Get(d_out, got);
      ExpectClose(got, want, 0, "copy_rows " + what);

      std::vector<int64_t> cache_rows;
      for (int r = 0; r < rows; ++r) cache_rows.push_back(r % 5 == 4 ? -1 : 2 * r + 1);
      TestMat cache = TestMat(act, 2 * rows + 2, cols).Fill(random_);
      TestMat got_cache = cache;
      const Mat d_cache = bench().Put(cache);
      KvWrite(device(), {bench().Put(y), bench().Put(cache_rows), d_cache});
      KvWrite(host(), {y.view(), cache_rows, cache.view()});
      bench().Get(d_cache, got_cache);
      ExpectClose(got_cache, cache, 0, "kv_write " + what);
    }
  }
}

TEST_P(CudaOps, Rope) {
  const TestMat table = TestMat(DType::kF32, 40, 32).Fill(random_);
  for (const auto& [rows, heads] : {std::pair(9, 5), std::pair(400, 43)}) {
    for (const DType act : kActs) {
      for (const bool interleaved : {false, true}) {
        bench().Reset();
        TestMat x = TestMat(act, rows, heads * 48, 16).Fill(random_);
        TestMat got = x;
        const std::vector<Position> positions = Ints(rows, 40);
        const Mat d_x = bench().Put(x);
        RopeArgs args = {.x = d_x,
                         .num_heads = heads,
                         .head_stride = 48,
                         .offset = 16,
                         .dim = 32,
                         .interleaved = interleaved,
                         .deinterleave = interleaved && rows == 9,
                         .positions = bench().Put(positions),
                         .table = bench().Put(table)};
        Rope(device(), args);
        args.x = x.view();
        args.positions = positions;
        args.table = table.view();
        Rope(host(), args);
        bench().Get(d_x, got);
        ExpectClose(got, x, LimitOf(act),
                    fmt::format("rope of {} heads {} {}", heads, DTypeName(act), interleaved));

        TestMat want_out = TestMat(act, rows, heads * 40, 8).Fill(random_);
        TestMat got_out = want_out;
        const Mat d_out = bench().Put(got_out);
        args.out_head_stride = 40;
        args.out_offset = 8;
        args.out = want_out.view();
        Rope(host(), args);
        args.x = bench().Put(x);
        args.positions = bench().Put(positions);
        args.table = bench().Put(table);
        args.out = d_out;
        Rope(device(), args);
        bench().Get(d_out, got_out);
        ExpectClose(got_out, want_out, LimitOf(act), fmt::format("rope of {} heads out", heads));

        // A row's bits are the same among few rows, whose heads take another form.
        const int64_t few = rows / 2;
        TestMat got_few = TestMat(act, few, heads * 40, 8);
        const Mat d_few = bench().Put(got_few);
        args.x = args.x.Rows(0, few);
        args.positions = args.positions.first(static_cast<size_t>(few));
        args.out = d_few;
        Rope(device(), args);
        bench().Get(d_few, got_few);
        for (int64_t i = 0; i < few * heads * 32; ++i) {
          const int64_t column = i / 32 % heads * 40 + 8 + i % 32;
          const int64_t row = i / 32 / heads;
          ASSERT_EQ(got_few.At(row, column), got_out.At(row, column)) << row << ", " << column;
        }
      }
    }
  }
}

TEST_P(CudaOps, PrepareLatents) {
  constexpr int64_t kLatent = 96;
  constexpr int64_t kRope = 32;
  for (const DType act : kActs) {
    for (const DType cache_dtype : kActs) {
      for (const bool interleaved : {false, true}) {
        bench().Reset();
        const TestMat table = TestMat(DType::kF32, 40, kRope).Fill(random_);
        const TestMat norm = TestMat(DType::kF32, 1, kLatent).Fill(random_);
        const TestMat x = TestMat(act, 11, kLatent + kRope, 8).Fill(random_);
        TestMat q = TestMat(act, 11, 64, interleaved ? 8 : 7).Fill(random_);  // beside, or not
        TestMat got_q = q;
        const TestMat q_norm = TestMat(DType::kF32, 1, 64).Fill(random_);
        TestMat cache = TestMat(cache_dtype, 24, kLatent + kRope).Fill(random_);
        TestMat got = cache;
        const std::vector<Position> positions = Ints(11, 40);
        std::vector<int64_t> places;
        for (int r = 0; r < 11; ++r) places.push_back(r % 5 == 4 ? -1 : 2 * r + 1);
        PrepareLatentsArgs args = {.x = bench().Put(x),
                                   .latent_dim = kLatent,
                                   .norm = bench().Put(norm),
                                   .interleaved = interleaved,
                                   .positions = bench().Put(positions),
                                   .table = bench().Put(table),
                                   .rows = bench().Put(places),
                                   .cache = bench().Put(cache),
                                   .q = bench().Put(q),
                                   .q_norm = bench().Put(q_norm)};
        PrepareLatents(device(), args);
        bench().Get(args.cache, got);
        bench().Get(args.q, got_q);
        args.x = x.view();
        args.norm = norm.view();
        args.positions = positions;
        args.table = table.view();
        args.rows = places;
        args.cache = cache.view();
        args.q = q.view();
        args.q_norm = q_norm.view();
        PrepareLatents(host(), args);
        ExpectClose(got_q, q, LimitOf(act), "queries beside");
        ExpectClose(
            got, cache, std::max(LimitOf(act), LimitOf(cache_dtype)),
            fmt::format("{} -> {}, {}", DTypeName(act), DTypeName(cache_dtype), interleaved));
      }
    }
  }
}

// Either side rounds for itself, and where they differ in the last bit of x, e4m3 may differ by a
// step: a few numbers in a hundred, each by an eighth at most.
TEST_P(CudaOps, PrepareFp8Latents) {
  for (const auto& [latent, rope] : {std::pair<int64_t, int64_t>{512, 64}, {200, 24}}) {
    for (const DType act : kActs) {
      bench().Reset();
      const LatentRow layout = {latent, rope};
      const TestMat table = TestMat(DType::kF32, 40, rope).Fill(random_);
      const TestMat norm = TestMat(DType::kF32, 1, latent).Fill(random_);
      const TestMat x = TestMat(act, 11, latent + rope, 8).Fill(random_);
      const TestMat before = TestMat(DType::kF32, 24, latent + rope).Fill(random_);
      TestMat cache = Fp8Latents(before, latent);
      TestMat got = cache;
      const std::vector<Position> positions = Ints(11, 40);
      std::vector<int64_t> places;
      for (int r = 0; r < 11; ++r) places.push_back(r % 5 == 4 ? -1 : 2 * r + 1);
      PrepareLatentsArgs args = {.x = bench().Put(x),
                                 .latent_dim = latent,
                                 .norm = bench().Put(norm),
                                 .interleaved = true,
                                 .positions = bench().Put(positions),
                                 .table = bench().Put(table),
                                 .rows = bench().Put(places),
                                 .cache = bench().Put(cache)};
      PrepareLatents(device(), args);
      bench().Get(args.cache, got);
      args.x = x.view();
      args.norm = norm.view();
      args.positions = positions;
      args.table = table.view();
      args.rows = places;
      args.cache = cache.view();
      PrepareLatents(host(), args);
      for (int64_t r = 0; r < 24; r += 2) ExpectSameRow(got, r, cache, r, "a row of others");
      ExpectClose(WidenedLatents(got, latent, rope), WidenedLatents(cache, latent, rope),
                  act == DType::kBF16 ? 2e-2 : 5e-3,
                  fmt::format("{} -> fp8, {} latents", DTypeName(act), latent));
      EXPECT_EQ(layout.bytes(), got.view().cols);
    }
  }
}

struct AttentionCase {
  const char* name;
  DType act;
  bool mla;
  int heads, kv_heads;
  int64_t dim, v_dim, block_size;
  int64_t window = 0;
  bool is_fp8 = false;  // the cache, of mla
  int64_t chunk = 0;
  bool tiles = false;  // prompts' chunks where there is a kernel for it (gqa_prefill.h)
};

constexpr AttentionCase kAttention[] = {
    {"gqa 128", DType::kBF16, false, 16, 2, 128, 128, 16},
    {"gqa 128, tiles", DType::kBF16, false, 16, 2, 128, 128, 16, 0, false, 0, true},
    {"gqa 128, tiles, window", DType::kBF16, false, 10, 2, 128, 128, 32, 50, false, 0, true},
    {"gqa 128, tiles, chunks", DType::kBF16, false, 8, 8, 128, 128, 64, 0, false, 96, true},
    {"gqa 64, window", DType::kBF16, false, 8, 8, 64, 64, 16, 20},
    {"gqa 48", DType::kBF16, false, 6, 3, 48, 48, 16},
    {"gqa float32", DType::kF32, false, 4, 2, 64, 64, 8},
    {"mla", DType::kBF16, true, 16, 1, 576, 512, 16},
    {"mla, blocks of 64", DType::kBF16, true, 32, 1, 576, 512, 64},
    {"mla small", DType::kF32, true, 4, 1, 24, 16, 4},
    {"mla fp8", DType::kBF16, true, 16, 1, 576, 512, 16, 0, true},
    {"mla fp8, blocks of 64", DType::kBF16, true, 32, 1, 576, 512, 64, 0, true},
    {"mla fp8, float32", DType::kF32, true, 4, 1, 576, 512, 16, 0, true},
    {"mla fp8, small", DType::kBF16, true, 4, 1, 214, 200, 4, 0, true},
};

TEST_P(CudaOps, Attention) {
  for (const AttentionCase& c : kAttention) {
    for (const bool decode : {true, false}) {
      bench().Reset();
      const std::vector<int32_t> contexts = {1, 17, 300, 64, 5};
      const std::vector<int32_t> queries =
          decode ? std::vector<int32_t>{1, 1, 1, 1, 1} : std::vector<int32_t>{1, 9, 70, 64, 2};
      std::vector<int32_t> starts = {0};
      for (const int32_t q : queries) starts.push_back(starts.back() + q);
      const int64_t max_blocks = (300 + c.block_size - 1) / c.block_size;
      std::vector<int32_t> table(contexts.size() * static_cast<size_t>(max_blocks));
      for (size_t i = 0; i < table.size(); ++i) table[i] = static_cast<int32_t>(i);
      std::shuffle(table.begin(), table.end(), random_.engine());
      const int64_t cache_rows = static_cast<int64_t>(table.size()) * c.block_size;
      const TestMat q =
          TestMat(c.act, starts.back(), c.heads * c.dim, c.mla ? 0 : 32).Fill(random_);
      const TestMat plain = TestMat(c.act, cache_rows, c.kv_heads * c.dim).Fill(random_);
      const TestMat k = c.is_fp8 ? Fp8Latents(plain, c.v_dim) : plain;
      const TestMat v = TestMat(c.act, cache_rows, c.kv_heads * c.v_dim).Fill(random_);
      TestMat want(c.act, starts.back(), c.heads * c.v_dim);
      TestMat got = want;

      const AttentionForm form =
          ChooseAttentionForm({c.mla, c.act, c.heads, c.kv_heads, c.dim, c.v_dim, c.block_size});
      cuda::StagedAttention staged;
      staged.block_table = bench().Put(table).data();
      staged.max_blocks = max_blocks;
      staged.block_size = static_cast<int>(c.block_size);
      int workers = 1;
      size_t partial_bytes = 4;
      if (form == AttentionForm::kGqa) {
        staged.max_queries = cuda::GqaQueriesPerItem(c.heads, c.kv_heads, decode);
        workers = cuda::GqaWorkers(bench().num_sms(), c.heads, c.kv_heads, staged.max_queries,
                                   static_cast<int>(c.dim));
        partial_bytes = cuda::GqaWorkspaceBytes(MaxAttentionSlots(workers), staged.max_queries,
                                                c.heads, static_cast<int>(c.dim));
      } else if (form == AttentionForm::kMla) {
        workers = cuda::MlaDecodeWorkers(bench().num_sms(), c.heads);
        partial_bytes = cuda::MlaDecodeWorkspaceBytes(MaxAttentionSlots(workers), c.heads);
      }
      std::vector<AttentionItem> items = AttentionItems(starts, contexts, staged.max_queries);
      GqaPrefillPlan plan;
      if (c.tiles) {
        EXPECT_TRUE(FitsGqaPrefill({.num_heads = c.heads,
                                    .num_kv_heads = c.kv_heads,
                                    .head_dim = c.dim,
                                    .v_head_dim = c.v_dim,
                                    .block_size = c.block_size}));
        plan = PlanGqaPrefill(AttentionItems(starts, contexts, INT32_MAX), c.heads, 1);
        EXPECT_EQ(plan.tiles.size(), decode ? 0u : 2u);
        std::erase_if(items, [&](const AttentionItem& item) {
          return std::ranges::binary_search(plan.sequences, item.seq, {}, &AttentionItem::seq);
        });
        staged.items = bench().Put(plan.tiles).data();
        staged.num_items = static_cast<int64_t>(plan.tiles.size());
        staged.num_tiled_keys = plan.num_keys;
      }
      const AttentionSplits splits = SplitAttention(
          items, {.num_workers = workers, .sums_in_place = form == AttentionForm::kGqa});
      if (form == AttentionForm::kAny) {
        staged.items = bench().Put(items).data();
        staged.num_items = static_cast<int64_t>(items.size());
      }
      staged.segments = bench().Put(splits.segments).data();
      staged.num_segments = static_cast<int64_t>(splits.segments.size());
      staged.worker_begin = bench().Put(splits.worker_begin).data();
      staged.num_workers = workers;
      staged.combine = bench().Put(splits.combine).data();
      staged.num_combine = static_cast<int64_t>(splits.combine.size());
      staged.partials = bench().Room(partial_bytes);
      staged.max_slots = MaxAttentionSlots(workers);
      if (form == AttentionForm::kGqa) {
        const int64_t arrivals =
            cuda::GqaArrivals(staged.max_slots, staged.max_queries, c.heads, c.kv_heads);
        staged.arrivals = bench().Put(std::vector<int32_t>(arrivals, 0)).data();
      }

      AttentionBatch batch = {starts, contexts, table, max_blocks, c.block_size, nullptr};
      AttentionBatch device_batch = batch;
      device_batch.staged = &staged;
      const Mat d_out = bench().Put(got);
      const float scale = 1.0f / std::sqrt(static_cast<float>(c.dim));
      if (c.mla) {
        MlaAttention(device(), {device_batch, bench().Put(q), bench().Put(k), c.heads, c.v_dim,
                                c.dim - c.v_dim, scale, d_out});
        MlaAttention(host(), {batch, q.view(), k.view(), c.heads, c.v_dim, c.dim - c.v_dim, scale,
                              want.view()});
      } else {
        AttentionArgs args = {.batch = device_batch,
                              .q = bench().Put(q),
                              .k_cache = bench().Put(k),
                              .v_cache = bench().Put(v),
                              .num_heads = c.heads,
                              .num_kv_heads = c.kv_heads,
                              .head_dim = c.dim,
                              .v_head_dim = c.v_dim,
                              .scale = scale,
                              .window = c.window,
                              .chunk = c.chunk,
                              .out = d_out};
        kernels::Attention(device(), args);
        args.batch = batch;
        args.q = q.view();
        args.k_cache = k.view();
        args.v_cache = v.view();
        args.out = want.view();
        kernels::Attention(host(), args);
      }
      bench().Get(d_out, got);
      ExpectClose(got, want, c.act == DType::kBF16 ? 1e-2 : 1e-5,
                  fmt::format("{}, {}", c.name, decode ? "decode" : "prefill"));
    }
  }
}

// A chain of sums from one stream to the other and back, much work before each change of streams:
// any that does not wait for what came before gives another result.
TEST_P(CudaOps, WorkBesideStaysBetweenItsBounds) {
  DeviceBench other(device().backend, GetParam());
  device().beside = &other.ctx();
  TestMat sum = TestMat(DType::kF32, 4096, 1024).Fill(random_);
  const TestMat ones = TestMat(DType::kF32, 4096, 1024).Fill(random_);
  TestMat want = sum;
  const Mat d_sum = bench().Put(sum);
  const Mat d_ones = bench().Put(ones);
  constexpr int kRounds = 20;
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < 5; ++i) Add(device(), {d_sum, d_ones});
    BeginBeside(device());
    for (int i = 0; i < 5; ++i) Add(other.ctx(), {d_sum, d_ones});
    EndBeside(device());
  }
  for (int i = 0; i < 10 * kRounds; ++i) Add(host(), {want.view(), ones.view()});
  bench().Get(d_sum, sum);
  ExpectClose(sum, want, 1e-6, "sums of two streams");

  other.ctx().device->Check("no such kernel", "gemm");
  BeginBeside(device());
  EndBeside(device());
  const Status failed = bench().Finish();
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message(), "CUDA: gemm: no such kernel");
  EXPECT_TRUE(other.Finish());
}

TEST(CudaBackendTest, HasEveryOperation) {
  const auto backend = CudaBackend();
  if (!backend) GTEST_SKIP() << backend.error().message();
  EXPECT_TRUE(MissingOps(**backend).empty());
}

}  // namespace
}  // namespace moebius::kernels
