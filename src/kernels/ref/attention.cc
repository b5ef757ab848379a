// Attention over paged caches. Latent attention is grouped-query attention whose one key head is
// the whole cache row and whose value is the row's latent part.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "kernels/latent_row.h"
#include "kernels/ref/ref.h"

namespace moebius::kernels::ref {
namespace {

int64_t CacheRow(const AttentionBatch& batch, int64_t seq, int64_t p) {
  const int64_t block = batch.block_table[seq * batch.max_blocks + p / batch.block_size];
  return block * batch.block_size + p % batch.block_size;
}

// The first position that `position` sees.
int64_t FirstVisible(const AttentionArgs& args, int64_t position) {
  int64_t first = 0;
  if (args.window > 0) first = std::max(first, position - args.window + 1);
  if (args.chunk > 0) first = std::max(first, position / args.chunk * args.chunk);
  return first;
}

void AttendHead(const AttentionArgs& args, int64_t seq, int64_t row, int64_t position,
                int64_t head) {
  const AttentionBatch& batch = args.batch;
  const int64_t kv_head = head / (args.num_heads / args.num_kv_heads);
  const auto cache_row = [&](int64_t p) { return CacheRow(batch, seq, p); };
  const int64_t first = FirstVisible(args, position);
  std::vector<double> scores;
  for (int64_t p = first; p <= position; ++p) {
    double dot = 0;
    for (int64_t d = 0; d < args.head_dim; ++d) {
      dot += Get(args.q, row, head * args.head_dim + d) *
             Get(args.k_cache, cache_row(p), kv_head * args.head_dim + d);
    }
    scores.push_back(dot * args.scale);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - top);
  for (int64_t d = 0; d < args.v_head_dim; ++d) {
    double value = 0;
    for (int64_t p = first; p <= position; ++p) {
      value += scores[p - first] * Get(args.v_cache, cache_row(p), kv_head * args.v_head_dim + d);
    }
    Put(args.out, row, head * args.v_head_dim + d, value / sum);
  }
}

// A float32 matrix with memory of its own.
struct Floats {
  Floats(int64_t rows, int64_t cols)
      : values(static_cast<size_t>(rows * cols)), mat(values.data(), DType::kF32, rows, cols) {}
  std::vector<float> values;
  Mat mat;
};

// MLA's cache as numbers, whatever its rows are.
class LatentCache {
 public:
  LatentCache(const Mat& cache, const LatentRow& layout)
      : widened_(cache.dtype == DType::kF8E4M3 ? cache.rows : 0,
                 layout.latent_dim + layout.rope_dim),
        mat_(cache.dtype == DType::kF8E4M3 ? widened_.mat : cache) {
    for (int64_t row = 0; row < widened_.mat.rows; ++row) {
      LoadLatentRow(layout, cache.RowBytes(row), widened_.mat.Row<float>(row));
    }
  }
  LatentCache(const LatentCache&) = delete;
  const Mat& mat() const { return mat_; }

 private:
  Floats widened_;
  Mat mat_;
};

// One head's keys [nope | rope] and values of one sequence.
void ExpandHead(const MlaPrefillArgs& args, const Mat& cache, int64_t seq, size_t head,
                const Mat& keys, const Mat& values) {
  const PackedWeight& uk = args.w_uk[head];
  const PackedWeight& uv = args.w_uv[head];
  const int64_t latent_dim = uv.k;
  std::vector<double> to_key(static_cast<size_t>(uk.k * latent_dim));
  std::vector<double> to_value(static_cast<size_t>(uv.n * latent_dim));
  for (int64_t i = 0; i < latent_dim; ++i) {
    for (int64_t d = 0; d < uk.k; ++d) to_key[d * latent_dim + i] = PackedAt(uk, i, d);
    for (int64_t d = 0; d < uv.n; ++d) to_value[d * latent_dim + i] = PackedAt(uv, d, i);
  }
  std::vector<double> c(static_cast<size_t>(latent_dim));
  for (int64_t p = 0; p < keys.rows; ++p) {
    const int64_t row = CacheRow(args.batch, seq, p);
    for (int64_t i = 0; i < latent_dim; ++i) c[i] = Get(cache, row, i);
    const auto dot = [&](const std::vector<double>& weights, int64_t d) {
      return std::inner_product(c.begin(), c.end(), weights.begin() + d * latent_dim, 0.0);
    };
    for (int64_t d = 0; d < uk.k; ++d) Put(keys, p, d, dot(to_key, d));
    for (int64_t d = 0; d < uv.n; ++d) Put(values, p, d, dot(to_value, d));
    for (int64_t d = 0; d < args.rope_dim; ++d) {
      Put(keys, p, uk.k + d, Get(cache, row, latent_dim + d));
    }
  }
}

}  // namespace

void Attention(ExecContext& /*ctx*/, const AttentionArgs& args) {
  const AttentionBatch& batch = args.batch;
  for (int64_t s = 0; s < batch.num_seqs(); ++s) {
    const int64_t begin = batch.query_start[s];
    const int64_t count = batch.query_start[s + 1] - begin;
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t h = 0; h < args.num_heads; ++h) {
        AttendHead(args, s, begin + i, batch.context_len[s] - count + i, h);
      }
    }
  }
}

void MlaAttention(ExecContext& ctx, const MlaAttentionArgs& args) {
  AttentionArgs plain;
  plain.batch = args.batch;
  plain.q = args.q;
  const LatentCache cache(args.cache, {args.latent_dim, args.rope_dim});
  plain.k_cache = cache.mat();
  plain.v_cache = cache.mat().Cols(0, args.latent_dim);
  plain.num_heads = args.num_heads;
  plain.num_kv_heads = 1;
  plain.head_dim = args.latent_dim + args.rope_dim;
  plain.v_head_dim = args.latent_dim;
  plain.scale = args.scale;
  plain.out = args.out;
  ref::Attention(ctx, plain);
}

void MlaPrefill(ExecContext& ctx, const MlaPrefillArgs& args) {
  const int64_t width = args.w_uk[0].k + args.rope_dim;
  const int64_t value = args.w_uv[0].n;
  const LatentCache cache(args.cache, {args.w_uv[0].k, args.rope_dim});
  for (const AttentionItem& item : args.batch.expanded) {
    Floats q(item.queries, width);
    Floats keys(item.context, width);
    Floats values(item.context, value);
    // The sequence alone, in caches of one block.
    const int32_t starts[] = {0, item.queries};
    const int32_t block = 0;
    AttentionArgs plain;
    plain.batch = {.query_start = starts,
                   .context_len = {&item.context, 1},
                   .block_table = {&block, 1},
                   .max_blocks = 1,
                   .block_size = item.context,
                   .staged = nullptr,
                   .expanded = {}};
    plain.q = q.mat;
    plain.k_cache = keys.mat;
    plain.v_cache = values.mat;
    plain.num_heads = plain.num_kv_heads = 1;
    plain.head_dim = width;
    plain.v_head_dim = value;
    plain.scale = args.scale;
    for (size_t h = 0; h < args.w_uk.size(); ++h) {
      const auto head = static_cast<int64_t>(h);
      ExpandHead(args, cache.mat(), item.seq, h, keys.mat, values.mat);
      for (int64_t i = 0; i < item.queries; ++i) {
        const int64_t row = item.row + i;
        for (int64_t d = 0; d < width; ++d) Put(q.mat, i, d, Get(args.q, row, head * width + d));
      }
      plain.out = args.out.Rows(item.row, item.queries).Cols(head * value, value);
      ref::Attention(ctx, plain);
    }
  }
}

}  // namespace moebius::kernels::ref
