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

// A row of MLA's cache, of either kind.
std::vector<double> ReadLatentRow(const Mat& cache, int64_t row, const LatentRow& layout) {
  std::vector<double> out(layout.latent_dim + layout.rope_dim);
  if (cache.dtype == DType::kF8E4M3) {
    std::vector<float> whole(out.size());
    LoadLatentRow(layout, cache.RowBytes(row), whole.data());
    std::copy(whole.begin(), whole.end(), out.begin());
    return out;
  }
  for (size_t d = 0; d < out.size(); ++d) out[d] = Get(cache, row, static_cast<int64_t>(d));
  return out;
}

// Columns [begin, begin + count) of a cached row. Of an fp8 row, which is latent attention's alone,
// the keys are all numbers and the values those that keys have not on top.
std::vector<double> ReadCached(const AttentionArgs& args, const Mat& cache, int64_t row,
                               int64_t begin, int64_t count) {
  if (cache.dtype == DType::kF8E4M3) {
    auto whole = ReadLatentRow(cache, row, {args.v_head_dim, args.head_dim - args.v_head_dim});
    whole.resize(count);
    return whole;
  }
  std::vector<double> out(count);
  for (int64_t d = 0; d < count; ++d) out[d] = Get(cache, row, begin + d);
  return out;
}

void AttendHead(const AttentionArgs& args, int64_t seq, int64_t row, int64_t position,
                int64_t head) {
  const AttentionBatch& batch = args.batch;
  const int64_t kv_head = head / (args.num_heads / args.num_kv_heads);
  const auto cache_row = [&](int64_t p) { return CacheRow(batch, seq, p); };
  const int64_t first = FirstVisible(args, position);
  std::vector<double> scores;
  for (int64_t p = first; p <= position; ++p) {
    const std::vector<double> key =
        ReadCached(args, args.k_cache, cache_row(p), kv_head * args.head_dim, args.head_dim);
    double dot = 0;
    for (int64_t d = 0; d < args.head_dim; ++d) {
      dot += Get(args.q, row, head * args.head_dim + d) * key[d];
    }
    scores.push_back(dot * args.scale);
  }
  const double top = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& score : scores) sum += score = std::exp(score - top);
  std::vector<double> out(args.v_head_dim);
  for (int64_t p = first; p <= position; ++p) {
    const std::vector<double> value =
        ReadCached(args, args.v_cache, cache_row(p), kv_head * args.v_head_dim, args.v_head_dim);
    for (int64_t d = 0; d < args.v_head_dim; ++d) out[d] += scores[p - first] * value[d];
  }
  for (int64_t d = 0; d < args.v_head_dim; ++d) {
    Put(args.out, row, head * args.v_head_dim + d, out[d] / sum);
  }
}

// A float32 matrix with memory of its own.
struct Floats {
  Floats(int64_t rows, int64_t cols)
      : values(static_cast<size_t>(rows * cols)), mat(values.data(), DType::kF32, rows, cols) {}
  std::vector<float> values;
  Mat mat;
};

// One head's keys [nope | rope] and values of one sequence.
void ExpandHead(const MlaPrefillArgs& args, int64_t seq, size_t head, const Mat& keys,
                const Mat& values) {
  const PackedWeight& uk = args.w_uk[head];
  const PackedWeight& uv = args.w_uv[head];
  const int64_t latent_dim = uv.k;
  std::vector<double> to_key(static_cast<size_t>(uk.k * latent_dim));
  std::vector<double> to_value(static_cast<size_t>(uv.n * latent_dim));
  for (int64_t i = 0; i < latent_dim; ++i) {
    for (int64_t d = 0; d < uk.k; ++d) to_key[d * latent_dim + i] = PackedAt(uk, i, d);
    for (int64_t d = 0; d < uv.n; ++d) to_value[d * latent_dim + i] = PackedAt(uv, d, i);
  }
  for (int64_t p = 0; p < keys.rows; ++p) {
    const std::vector<double> c =
        ReadLatentRow(args.cache, CacheRow(args.batch, seq, p), {latent_dim, args.rope_dim});
    const auto dot = [&](const std::vector<double>& weights, int64_t d) {
      return std::inner_product(c.begin(), c.begin() + latent_dim, weights.begin() + d * latent_dim,
                                0.0);
    };
    for (int64_t d = 0; d < uk.k; ++d) Put(keys, p, d, dot(to_key, d));
    for (int64_t d = 0; d < uv.n; ++d) Put(values, p, d, dot(to_value, d));
    for (int64_t d = 0; d < args.rope_dim; ++d) {
      Put(keys, p, uk.k + d, c[latent_dim + d]);
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
  plain.k_cache = args.cache;
  plain.v_cache =
      args.cache.dtype == DType::kF8E4M3 ? args.cache : args.cache.Cols(0, args.latent_dim);
  plain.num_heads = args.num_heads;
  plain.num_kv_heads = 1;
  plain.head_dim = args.latent_dim + args.rope_dim;
  plain.v_head_dim = args.latent_dim;
  plain.scale = args.scale;
  plain.out = args.out;
  ref::Attention(ctx, plain);
}

void MlaPrefill(ExecContext& ctx, const MlaPrefillArgs& args) {
  const int64_t nope = args.w_uk[0].k;
  const int64_t value = args.w_uv[0].n;
  for (const AttentionItem& item : args.batch.expanded) {
    Floats q(item.queries, nope + args.rope_dim);
    Floats keys(item.context, nope + args.rope_dim);
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
    plain.head_dim = nope + args.rope_dim;
    plain.v_head_dim = value;
    plain.scale = args.scale;
    for (size_t h = 0; h < args.w_uk.size(); ++h) {
      const auto head = static_cast<int64_t>(h);
      ExpandHead(args, item.seq, h, keys.mat, values.mat);
      for (int64_t i = 0; i < item.queries; ++i) {
        const int64_t row = item.row + i;
        for (int64_t d = 0; d < nope; ++d) Put(q.mat, i, d, Get(args.q_nope, row, head * nope + d));
        for (int64_t d = 0; d < args.rope_dim; ++d) {
          Put(q.mat, i, nope + d, Get(args.q_rope, row, head * args.q_rope_stride + d));
        }
      }
      plain.out = args.out.Rows(item.row, item.queries).Cols(head * value, value);
      ref::Attention(ctx, plain);
    }
  }
}

}  // namespace moebius::kernels::ref
