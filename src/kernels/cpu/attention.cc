// Attention over paged caches as a list of tasks, one a tile of up to 16 (query, head) pairs that
// share a key head. Latent attention is the case of one key head whose value is a part of the key.
#include <algorithm>
#include <limits>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/parallel.h"
#include "kernels/latent_row.h"

namespace moebius::kernels::cpu {
namespace {

constexpr double kMacsPerNs = 20;

struct AttentionScratch {
  float* q;
  float* out;
  float* scores;
  float* latents;  // a block's rows of an fp8 cache, in float32
};

// How the pairs of one key head become tiles: `queries` queries by `heads` heads.
struct Tiling {
  int64_t group;       // query heads of a key head
  int64_t heads;       // of a tile
  int64_t head_tiles;  // tiles across the group
  int64_t queries;     // of a tile
};

Tiling TilingOf(const AttentionArgs& args) {
  Tiling tiling;
  tiling.group = args.num_heads / args.num_kv_heads;
  tiling.heads = std::min(tiling.group, kAttentionRows);
  tiling.head_tiles = (tiling.group + tiling.heads - 1) / tiling.heads;
  tiling.queries = std::max<int64_t>(kAttentionRows / tiling.heads, 1);
  return tiling;
}

// Tiles of queries are numbered so that a sequence's first is a plain function of where its queries
// begin; at most one number a sequence stays unused.
int64_t FirstTile(const AttentionBatch& batch, const Tiling& tiling, int64_t seq) {
  return batch.query_start[seq] / tiling.queries + seq;
}

int64_t SequenceOf(const AttentionBatch& batch, const Tiling& tiling, int64_t tile) {
  int64_t low = 0;
  int64_t high = batch.num_seqs();
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (FirstTile(batch, tiling, middle) <= tile ? low : high) = middle;
  }
  return low;
}

int64_t FirstVisible(const AttentionArgs& args, int64_t position) {
  int64_t first = 0;
  if (args.window > 0) first = std::max(first, position - args.window + 1);
  if (args.chunk > 0) first = std::max(first, position / args.chunk * args.chunk);
  return first;
}

// The pairs of one tile: query rows [row0, row0 + queries) x heads [head0, head0 + heads).
struct Pairs {
  int64_t seq;
  int64_t row0;
  int64_t queries;
  int64_t position0;  // of row0
  int64_t kv_head;
  int64_t head0;
  int64_t heads;
};

// Where the cached rows of the block at position `begin` lie; returns their number.
int64_t FindRows(const AttentionArgs& args, const Pairs& pairs, int64_t begin, int64_t end,
                 const void** k_rows, const void** v_rows) {
  const AttentionBatch& batch = args.batch;
  const int32_t* blocks = batch.block_table.data() + pairs.seq * batch.max_blocks;
  const int64_t count = std::clamp<int64_t>(end - begin, 0, kAttentionBlock);
  for (int64_t j = 0; j < count; ++j) {
    const int64_t position = begin + j;
    const int64_t row =
        blocks[position / batch.block_size] * batch.block_size + position % batch.block_size;
    k_rows[j] = RunAt(args.k_cache, row, pairs.kv_head * args.head_dim).data;
    v_rows[j] = RunAt(args.v_cache, row, pairs.kv_head * args.v_head_dim).data;
  }
  return count;
}

// The rows of a block of an fp8 cache, in float32; `rows` point there afterwards. That cache is
// latent attention's alone: a row is the key, its first columns the value.
void Widen(const CpuKernels& cpu, const AttentionArgs& args, int64_t count, float* latents,
           const void** k_rows, const void** v_rows) {
  const LatentRow layout = {args.v_head_dim, args.head_dim - args.v_head_dim};
  for (int64_t j = 0; j < count; ++j) {
    auto* from = static_cast<std::byte*>(const_cast<void*>(k_rows[j]));
    float* row = latents + j * args.head_dim;
    for (int64_t block = 0; block < layout.num_blocks(); ++block) {
      const int64_t begin = block * LatentRow::kBlock;
      cpu.widen_e4m3(from + begin, std::min(LatentRow::kBlock, layout.latent_dim - begin),
                     LoadFloat(from + layout.scales_at(), DType::kF32, block), row + begin);
    }
    cpu.convert({from + layout.rope_at(), DType::kBF16}, layout.rope_dim,
                {row + layout.latent_dim, DType::kF32});
    k_rows[j] = v_rows[j] = row;
  }
}

void RunTile(const CpuKernels& cpu, const AttentionArgs& args, const Pairs& pairs,
             const AttentionScratch& scratch) {
  int64_t first[kAttentionRows];
  int64_t last[kAttentionRows];
  float top[kAttentionRows];
  float sum[kAttentionRows];
  AttentionTile tile;
  tile.rows = pairs.queries * pairs.heads;
  tile.q_stride = (args.head_dim + 15) / 16 * 16;
  tile.out_stride = (args.v_head_dim + 15) / 16 * 16;
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t query = r / pairs.heads;
    const int64_t head = pairs.head0 + r % pairs.heads;
    last[r] = pairs.position0 + query;
    first[r] = FirstVisible(args, last[r]);
    top[r] = -std::numeric_limits<float>::infinity();
    sum[r] = 0;
    float* q = scratch.q + r * tile.q_stride;
    cpu.to_f32(RunAt(args.q, pairs.row0 + query, head * args.head_dim), args.head_dim, 1.0f, q,
               tile.q_stride);
    for (int64_t d = 0; d < args.head_dim; ++d) q[d] *= args.scale;
  }
  std::fill_n(scratch.out, tile.rows * tile.out_stride, 0.0f);
  tile.q = scratch.q;
  tile.head_dim = args.head_dim;
  tile.v_head_dim = args.v_head_dim;
  const bool is_fp8 = args.k_cache.dtype == DType::kF8E4M3;
  tile.cache_dtype = is_fp8 ? DType::kF32 : args.k_cache.dtype;
  tile.first = first;
  tile.last = last;
  tile.scores = scratch.scores;
  tile.top = top;
  tile.sum = sum;
  tile.out = scratch.out;
  const void* k_rows[2][kAttentionBlock];
  const void* v_rows[2][kAttentionBlock];
  const int64_t end = last[tile.rows - 1] + 1;
  int current = 0;
  tile.begin = first[0] / kAttentionBlock * kAttentionBlock;
  tile.count = FindRows(args, pairs, tile.begin, end, k_rows[0], v_rows[0]);
  while (tile.count > 0) {
    const int64_t next = tile.begin + kAttentionBlock;
    const int64_t next_count =
        FindRows(args, pairs, next, end, k_rows[1 - current], v_rows[1 - current]);
    if (is_fp8) Widen(cpu, args, tile.count, scratch.latents, k_rows[current], v_rows[current]);
    tile.next_count = is_fp8 ? 0 : next_count;  // rows of bytes are nothing to ask for ahead
    tile.k_rows = k_rows[current];
    tile.v_rows = v_rows[current];
    tile.next_k_rows = k_rows[1 - current];
    cpu.attention_tile(tile);
    tile.begin = next;
    tile.count = next_count;
    current = 1 - current;
  }
  for (int64_t r = 0; r < tile.rows; ++r) {
    const int64_t head = pairs.head0 + r % pairs.heads;
    cpu.attention_finish(scratch.out + r * tile.out_stride, sum[r], args.v_head_dim,
                         RunAt(args.out, pairs.row0 + r / pairs.heads, head * args.v_head_dim));
  }
}

double CostNs(const AttentionArgs& args) {
  double pairs = 0;
  for (int64_t s = 0; s < args.batch.num_seqs(); ++s) {
    const double queries = args.batch.query_start[s + 1] - args.batch.query_start[s];
    pairs += queries * args.batch.context_len[s];
  }
  return pairs * static_cast<double>(args.num_heads * (args.head_dim + args.v_head_dim)) /
         kMacsPerNs;
}

}  // namespace

void Attention(ExecContext& ctx, const AttentionArgs& args) {
  const CpuKernels& cpu = *ctx.backend->cpu;
  const AttentionBatch& batch = args.batch;
  const Tiling tiling = TilingOf(args);
  const int64_t per_tile = args.num_kv_heads * tiling.head_tiles;
  const int64_t num_tiles = FirstTile(batch, tiling, batch.num_seqs());

  ArenaScope scope(*ctx.workspace);
  const int num_threads = NumThreads(ctx);
  auto* scratch =
      static_cast<AttentionScratch*>(ctx.workspace->Alloc(sizeof(AttentionScratch) * num_threads));
  for (int t = 0; t < num_threads; ++t) {
    scratch[t].q = ctx.workspace->Alloc<float>(kAttentionRows * ((args.head_dim + 15) / 16 * 16));
    scratch[t].out =
        ctx.workspace->Alloc<float>(kAttentionRows * ((args.v_head_dim + 15) / 16 * 16));
    scratch[t].scores = ctx.workspace->Alloc<float>(kAttentionRows * kAttentionBlock);
    scratch[t].latents = args.k_cache.dtype == DType::kF8E4M3
                             ? ctx.workspace->Alloc<float>(kAttentionBlock * args.head_dim)
                             : nullptr;
  }
  ForTasks(ctx, num_tiles * per_tile, CostNs(args), [&](int64_t task, int thread_idx) {
    const int64_t tile = num_tiles - 1 - task / per_tile;  // the last queries see the most: first
    const int64_t head_tile = task % tiling.head_tiles;
    Pairs pairs;
    pairs.seq = SequenceOf(batch, tiling, tile);
    const int64_t begin = batch.query_start[pairs.seq];
    const int64_t end = batch.query_start[pairs.seq + 1];
    pairs.row0 = begin + (tile - FirstTile(batch, tiling, pairs.seq)) * tiling.queries;
    pairs.queries = std::min(tiling.queries, end - pairs.row0);
    if (pairs.queries <= 0) return;
    pairs.position0 = batch.context_len[pairs.seq] - (end - pairs.row0);
    pairs.kv_head = task % per_tile / tiling.head_tiles;
    pairs.head0 = pairs.kv_head * tiling.group + head_tile * tiling.heads;
    pairs.heads = std::min(tiling.heads, tiling.group - head_tile * tiling.heads);
    RunTile(cpu, args, pairs, scratch[thread_idx]);
  });
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
  cpu::Attention(ctx, plain);
}

}  // namespace moebius::kernels::cpu
