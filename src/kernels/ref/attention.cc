// Attention over paged caches. Latent attention is grouped-query attention whose one key head is
// the whole cache row and whose value is the row's latent part.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/latent_row.h"
#include "kernels/ref/ref.h"

namespace moebius::kernels::ref {
namespace {

// The first position that `position` sees.
int64_t FirstVisible(const AttentionArgs& args, int64_t position) {
  int64_t first = 0;
  if (args.window > 0) first = std::max(first, position - args.window + 1);
  if (args.chunk > 0) first = std::max(first, position / args.chunk * args.chunk);
  return first;
}

// Columns [begin, begin + count) of a cached row. Of an fp8 row, which is latent attention's alone,
// the keys are all numbers and the values those that keys have not on top.
std::vector<double> ReadCached(const AttentionArgs& args, const Mat& cache, int64_t row,
                               int64_t begin, int64_t count) {
  std::vector<double> out(count);
  if (cache.dtype == DType::kF8E4M3) {
    std::vector<float> whole(args.head_dim);
    LoadLatentRow({args.v_head_dim, args.head_dim - args.v_head_dim}, cache.RowBytes(row),
                  whole.data());
    std::copy_n(whole.begin(), count, out.begin());
    return out;
  }
  for (int64_t d = 0; d < count; ++d) out[d] = Get(cache, row, begin + d);
  return out;
}

void AttendHead(const AttentionArgs& args, int64_t seq, int64_t row, int64_t position,
                int64_t head) {
  const AttentionBatch& batch = args.batch;
  const int64_t kv_head = head / (args.num_heads / args.num_kv_heads);
  const auto cache_row = [&](int64_t p) {
    const int64_t block = batch.block_table[seq * batch.max_blocks + p / batch.block_size];
    return block * batch.block_size + p % batch.block_size;
  };
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

}  // namespace moebius::kernels::ref
