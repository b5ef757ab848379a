// Attention over a paged cache, draws, and the operations of a tiny model.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "bench/micro/operations/machine.h"

namespace moebius::bench {
namespace {

using kernels::ExecContext;
using kernels::SampleResult;
using kernels::SampleRow;

constexpr int64_t kBlockSize = 16;
constexpr int64_t kVocab = 151936;

struct AttentionCase {
  int64_t seqs, queries, context, heads, kv_heads, dim, v_dim;
};

// The last query, which sees the whole context of the last sequence, against the scalar back
// end's.
bool IsLastQueryRight(OperationMachine& m, const kernels::AttentionArgs& args, int64_t context) {
  const std::vector<int32_t> start = {0, 1};
  const std::vector<int32_t> length = {static_cast<int32_t>(context)};
  const int64_t rows = args.q.rows;
  kernels::AttentionArgs last = args;
  last.batch.query_start = start;
  last.batch.context_len = length;
  last.batch.block_table = args.batch.block_table.last(static_cast<size_t>(args.batch.max_blocks));
  last.q = args.q.Rows(rows - 1, 1);
  last.out = Mat(m.activations(size_t{480} << 20), args.out.dtype, 1, args.out.cols);
  ExecContext reference = m.reference();
  Attention(reference, last);
  return IsClose(args.out.Rows(rows - 1, 1), last.out);
}

void RunAttention(OperationMachine& m, const AttentionCase& c) {
  const int64_t blocks = (c.context + kBlockSize - 1) / kBlockSize;
  std::vector<int32_t> start(static_cast<size_t>(c.seqs + 1));
  const std::vector<int32_t> lengths(static_cast<size_t>(c.seqs), static_cast<int32_t>(c.context));
  std::vector<int32_t> table(static_cast<size_t>(c.seqs * blocks));
  for (size_t s = 0; s < start.size(); ++s) {
    start[s] = static_cast<int32_t>(static_cast<int64_t>(s) * c.queries);
  }
  for (size_t b = 0; b < table.size(); ++b) table[b] = static_cast<int32_t>(b);
  std::mt19937 random(1);
  std::shuffle(table.begin(), table.end(), random);
  const int64_t rows = c.seqs * blocks * kBlockSize;
  const bool latent = c.v_dim < c.dim;
  kernels::AttentionArgs args;
  args.batch = {start, lengths, table, blocks, kBlockSize};
  args.q = Mat(m.activations(0), DType::kBF16, c.seqs * c.queries, c.heads * c.dim);
  args.k_cache = Mat(m.weights().data(), DType::kBF16, rows, c.kv_heads * c.dim);
  args.v_cache = latent ? args.k_cache.Cols(0, c.v_dim)
                        : Mat(m.weights().data() + (size_t{1} << 30), DType::kBF16, rows,
                              c.kv_heads * c.v_dim);
  args.num_heads = c.heads;
  args.num_kv_heads = c.kv_heads;
  args.head_dim = c.dim;
  args.v_head_dim = c.v_dim;
  args.scale = 0.01f;
  args.out =
      Mat(m.activations(size_t{256} << 20), DType::kBF16, c.seqs * c.queries, c.heads * c.v_dim);
  ExecContext ctx = m.context();
  OperationRow row;
  row.what =
      fmt::format("{} {}x{} queries, context {}, heads {}/{} x {}", latent ? "MLA" : "attention",
                  c.seqs, c.queries, c.context, c.heads, c.kv_heads, c.dim);
  row.seconds = m.Median([&](int) { Attention(ctx, args); }, 9);
  const double visible = static_cast<double>(c.context) - static_cast<double>(c.queries - 1) / 2;
  row.flops = 2.0 * static_cast<double>(c.seqs * c.queries * c.heads * (c.dim + c.v_dim)) * visible;
  row.bytes = static_cast<double>(rows * c.kv_heads * (latent ? c.dim : c.dim + c.v_dim) * 2);
  row.right = IsLastQueryRight(m, args, c.context);
  m.Print(row);
}

void RunSample(OperationMachine& m, const std::string& what, const SampleRow& wish) {
  std::vector<float> logits(static_cast<size_t>(kVocab));
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  for (float& x : logits) x = normal(random);
  std::vector<float> copy;
  std::vector<TokenId> tokens(32);
  std::vector<float> logprobs(32);
  const auto draw = [&](ExecContext ctx, double* seconds) {
    copy = logits;
    SampleResult result;
    result.top_tokens = tokens;
    result.top_logprobs = logprobs;
    const double start = m.Now();
    Sample(ctx, {Mat(copy.data(), DType::kF32, 1, kVocab), {&wish, 1}, {&result, 1}});
    *seconds = m.Now() - start;
    return result.token;
  };
  constexpr size_t kDraws = 21;
  std::vector<double> times(kDraws);
  TokenId token = -1;
  for (double& seconds : times) token = draw(m.context(), &seconds);
  std::sort(times.begin(), times.end());
  double ignored = 0;
  OperationRow row;
  row.what = fmt::format("sample {} {}", kVocab, what);
  row.seconds = times[kDraws / 2];
  row.right = token >= 0 && token == draw(m.reference(), &ignored);
  m.Print(row);
}

// The norm adds to the stream, so the check is a call more.
void RunNorm(OperationMachine& m) {
  constexpr int64_t kWidth = 256;
  kernels::RmsNormArgs norm;
  norm.x = Mat(m.activations(0), DType::kBF16, 1, kWidth);
  norm.residual = Mat(m.activations(65536), DType::kF32, 1, kWidth);
  norm.out = Mat(m.activations(131072), DType::kBF16, 1, kWidth);
  ExecContext ctx = m.context();
  OperationRow row;
  row.what = "rms_norm 1x256";
  row.seconds = m.Median([&](int) { RmsNorm(ctx, norm); }, 1001);
  std::vector<float> stream(kWidth);
  std::memcpy(stream.data(), norm.residual.data, kWidth * sizeof(float));
  RmsNorm(ctx, norm);
  kernels::RmsNormArgs want = norm;
  want.residual = Mat(stream.data(), DType::kF32, 1, kWidth);
  want.out = Mat(m.activations(196608), DType::kBF16, 1, kWidth);
  ExecContext reference = m.reference();
  RmsNorm(reference, want);
  row.right = IsClose(norm.out, want.out) && IsClose(norm.residual, want.residual);
  m.Print(row);
}

}  // namespace

void BenchAttention(OperationMachine& m) {
  RunAttention(m, {1, 1, 4096, 32, 4, 128, 128});
  RunAttention(m, {8, 1, 4096, 32, 4, 128, 128});
  RunAttention(m, {1, 1, 4096, 16, 1, 576, 512});
  RunAttention(m, {1, 1, 4096, 128, 1, 576, 512});
  RunAttention(m, {1, 512, 2048, 32, 4, 128, 128});
  RunAttention(m, {1, 512, 512, 16, 1, 576, 512});
}

void BenchSampling(OperationMachine& m) {
  SampleRow row;
  RunSample(m, "temperature 1", row);
  row.top_p = 0.9f;
  RunSample(m, "top-p 0.9", row);
  row.top_k = 50;
  RunSample(m, "top-k 50, top-p 0.9", row);
  row = {};
  row.min_p = 0.05f;
  RunSample(m, "min-p 0.05", row);
  row = {};
  row.temperature = 0;
  RunSample(m, "greedy", row);
  row.num_logprobs = 20;
  RunSample(m, "greedy, 20 logprobs", row);
}

void BenchSmall(OperationMachine& m) {
  using kernels::WeightFormat;
  RunNorm(m);
  BenchGemm(m, WeightFormat::kBF16, DType::kBF16, 1, 256, 256);
  BenchMoe(m, WeightFormat::kFp8Block, 256, 128, 32, 1);
  BenchMoe(m, WeightFormat::kBF16, 256, 128, 32, 1);
  BenchGemm(m, WeightFormat::kBF16, DType::kBF16, 1, 8192, 256);
}

}  // namespace moebius::bench
