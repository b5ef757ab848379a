// PrepareHeads on a GPU against ref/, and its forms against each other. Skipped without a GPU.
#include "kernels/cuda/ops/device_test_util.h"
#include "kernels/cuda/rows/rows.h"

namespace moebius::kernels {
namespace {

struct HeadsForm {
  DType act, cache;
  int64_t rows, dim;
  bool normed, interleaved;

  std::string name() const {
    return fmt::format("{} -> {}, {} x {}{}{}", DTypeName(act), DTypeName(cache), rows, dim,
                       normed ? ", normed" : "", interleaved ? ", interleaved" : "");
  }
};

// Projected rows of a few heads, what they are normed and turned by, and the caches that they go
// to.
struct ProjectedHeads {
  static constexpr int64_t kQueries = 6;
  static constexpr int64_t kKeys = 2;
  static constexpr int64_t kAll = kQueries + 2 * kKeys;
  static constexpr int64_t kPositions = 40;

  ProjectedHeads(const HeadsForm& form, Random& random)
      : form(form),
        qkv(form.act, form.rows, kAll * form.dim, 8),
        q_norm(DType::kF32, 1, form.dim),
        k_norm(DType::kF32, 1, form.dim),
        table(DType::kF32, kPositions, form.dim),
        k(form.cache, 2 * form.rows + 2, kKeys * form.dim),
        v(form.cache, 2 * form.rows + 2, kKeys * form.dim) {
    for (TestMat* m : {&qkv, &q_norm, &k_norm, &table, &k, &v}) m->Fill(random);
    for (int64_t r = 0; r < form.rows; ++r) {
      positions.push_back(static_cast<Position>(random.Below(kPositions)));
      places.push_back(r % 5 == 4 ? -1 : 2 * r + 1);
    }
  }
  // `put` gives what the operation's side has of a matrix or list.
  template <typename Put>
  PrepareHeadsArgs Args(const Put& put) const {
    return {.qkv = put(qkv),
            .num_heads = kQueries,
            .num_kv_heads = kKeys,
            .head_dim = form.dim,
            .q_norm = form.normed ? put(q_norm) : Mat(),
            .k_norm = form.normed ? put(k_norm) : Mat(),
            .interleaved = form.interleaved,
            .positions = put(positions),
            .table = put(table),
            .rows = put(places),
            .k_cache = put(k),
            .v_cache = put(v)};
  }
  void Get(DeviceBench& bench, const PrepareHeadsArgs& args) {
    bench.Get(args.qkv, qkv);
    bench.Get(args.k_cache, k);
    bench.Get(args.v_cache, v);
  }
  TestMat Queries() const {
    TestMat queries(form.act, form.rows, kQueries * form.dim);
    for (int64_t r = 0; r < form.rows; ++r) {
      for (int64_t c = 0; c < kQueries * form.dim; ++c) queries.Set(r, c, qkv.At(r, c));
    }
    return queries;
  }

  HeadsForm form;
  TestMat qkv, q_norm, k_norm, table, k, v;
  std::vector<Position> positions;
  std::vector<int64_t> places;
};

struct OnHost {
  Mat operator()(const TestMat& m) const { return m.view(); }
  template <typename T>
  std::span<const T> operator()(const std::vector<T>& values) const {
    return values;
  }
};

void ExpectCloseHeads(const ProjectedHeads& got, const ProjectedHeads& want) {
  const std::string what = want.form.name();
  // The steps round to act between norm and rotation.
  const double limit = std::max(LimitOf(want.form.act), LimitOf(want.form.cache));
  ExpectClose(got.Queries(), want.Queries(), LimitOf(want.form.act), "q " + what);
  ExpectClose(got.k, want.k, limit, "k " + what);
  ExpectClose(got.v, want.v, 0, "v " + what);
}

TEST_P(CudaOps, PrepareHeads) {
  const auto on_device = [&](const auto& x) { return bench().Put(x); };
  for (const DType act : kActs) {
    for (const DType cache : kActs) {
      for (const int64_t dim : {20, 32, 40, 64, 128, 192, 1024}) {
        for (const int64_t rows : {1, 11}) {
          for (const int kind : {0, 1, 2, 3}) {
            bench().Reset();
            ProjectedHeads want({act, cache, rows, dim, kind % 2 == 1, kind >= 2}, random_);
            ProjectedHeads got = want;
            const PrepareHeadsArgs args = want.Args(on_device);
            PrepareHeads(device(), args);
            got.Get(bench(), args);
            PrepareHeads(host(), want.Args(OnHost()));
            ExpectCloseHeads(got, want);
          }
        }
      }
    }
  }
}

// Many rows take heads two by two: close to the reference, and a row's bits are those that it has
// among few.
TEST_P(CudaOps, PrepareHeadsOfManyRows) {
  const auto on_device = [&](const auto& x) { return bench().Put(x); };
  constexpr int64_t kRows = cuda::kManyHeads / ProjectedHeads::kAll + 1;
  constexpr int64_t kFew = 300;
  for (const HeadsForm& form : {HeadsForm{DType::kBF16, DType::kBF16, kRows, 128, true, false},
                                HeadsForm{DType::kBF16, DType::kBF16, kRows, 64, true, true},
                                HeadsForm{DType::kBF16, DType::kF32, kRows, 48, false, false},
                                HeadsForm{DType::kF32, DType::kBF16, kRows, 24, true, true},
                                HeadsForm{DType::kF32, DType::kF32, kRows, 64, true, false}}) {
    bench().Reset();
    ProjectedHeads want(form, random_);
    ProjectedHeads got = want;
    ProjectedHeads in_parts = want;
    const PrepareHeadsArgs args = want.Args(on_device);
    PrepareHeads(device(), args);
    got.Get(bench(), args);

    const PrepareHeadsArgs all = want.Args(on_device);
    for (int64_t first = 0; first < kRows; first += kFew) {
      const int64_t count = std::min(kFew, kRows - first);
      PrepareHeadsArgs part = all;
      part.qkv = all.qkv.Rows(first, count);
      part.positions = all.positions.subspan(first, count);
      part.rows = all.rows.subspan(first, count);
      PrepareHeads(device(), part);
    }
    in_parts.Get(bench(), all);

    PrepareHeads(host(), want.Args(OnHost()));
    ExpectCloseHeads(got, want);
    for (int64_t r = 0; r < kRows; ++r) {
      ExpectSameRow(got.qkv, r, in_parts.qkv, r, "q " + form.name());
    }
    for (int64_t r = 0; r < got.k.view().rows; ++r) {
      ExpectSameRow(got.k, r, in_parts.k, r, "k " + form.name());
      ExpectSameRow(got.v, r, in_parts.v, r, "v " + form.name());
    }
  }
}

}  // namespace
}  // namespace moebius::kernels
